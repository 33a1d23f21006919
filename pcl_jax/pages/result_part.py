"""The part of a page that is about an evaluation: charts, tables, audits."""

from collections.abc import Iterable, Mapping, Sequence
import math
from typing import Any

from flax import traverse_util
import pyarrow as pa

from pcl_jax.evaluation import compare
from pcl_jax.evaluation import registry
from pcl_jax.evaluation import report
from pcl_jax.evaluation import representations
from pcl_jax.evaluation.retrieval import precision_at_k
from pcl_jax.pages import chart_specs
from pcl_jax.pages import song_part

Part = dict[str, Any]  # What the template reads of a chart and its table.
_DIGITS = 4
_CALLED = {"song_id": "song", "playlist": "playlist", "tag": "tag"}


def _row(name: str, value: Any, interval: Sequence[Any]) -> dict[str, Any]:
  text = report.cell(value, list(interval))
  row = {"name": name, "value": value, "text": text}
  return row | dict(zip(("low", "high"), interval, strict=True))


def _chart(
  title: str, rows: Sequence[Mapping[str, Any]]
) -> chart_specs.Spec | None:
  """Returns a chart, chance last and what was trained short; None if empty."""
  trained = f"{representations.TRAINED} ("
  drawn = [
    {**row, "name": representations.TRAINED}
    if row["name"].startswith(trained)
    else row
    for row in rows
    if row["value"] is not None
  ]
  drawn.sort(key=lambda row: row["name"] == representations.CHANCE)
  return chart_specs.intervals(_words(title), drawn) if drawn else None


def _words(name: str) -> str:
  """Returns the name of a metric as people read it."""
  return name.replace("_", " ")


def look_up(results: Mapping[str, Any]) -> list[Part]:
  """Returns the charts of precision at 5, one for each kind of similarity."""
  table = results.get("precision_at_5") or {}
  kinds = dict.fromkeys(kind for row in table.values() for kind in row)
  parts = []
  for kind in kinds:
    given = {name: row[kind] for name, row in table.items() if kind in row}
    rows = [
      _row(name, one["precision_at_5"], one["interval_95"])
      for name, one in given.items()
    ]
    queries = next(iter(given.values()))["queries"]
    title = f"precision at {precision_at_k.NEAREST}: {kind}"
    parts.append(
      {
        "title": f"Look-up: the same {kind}",
        "about": f"{queries} test songs, each looked for among the other "
        f"{results['songs'] - 1} songs",
        "spec": _chart(title, rows),
        "head": ["", title],
        "rows": [[row["name"], row["text"]] for row in rows],
        "notes": [],
      }
    )
  return parts


def _task(name: str, rows: Mapping[str, Mapping[str, Any]]) -> Part:
  task = registry.TASKS.get(name)
  title = task.title if task else name
  given = {k: row for k, row in rows.items() if "not_given" not in row}
  missing = {k: row["not_given"] for k, row in rows.items() if k not in given}
  notes = [f"{row}: not measured: {why}" for row, why in missing.items()]
  if not given:
    none = {"about": "", "spec": None, "head": [], "rows": []}
    return {"title": title, "name": name, "notes": notes} | none
  metrics = next(iter(given.values()))["metrics"]
  shown = report.shown_metrics(task, metrics)
  told = [note for one in given.values() for note in one.get("notes", ())]
  for one in given.values():
    left_out = one.get("left_out", {}).items()
    told += [f"left out: {count} {why}" for why, count in left_out if count]
  first = [
    _row(row, metric["value"], metric["interval_95"])
    for row, one in given.items()
    if (metric := one["metrics"].get(shown[0]))
  ]
  return {
    "title": title,
    "name": name,
    "about": f"{_words(shown[0])}, over {metrics[shown[0]]['items']} items",
    "spec": _chart(shown[0], first),
    "head": ["", *map(_words, shown)],
    "rows": [
      [row, *_cells(one["metrics"], shown)] for row, one in given.items()
    ],
    "notes": [*dict.fromkeys(told), *notes],
  }


def _cells(metrics: Mapping[str, Any], shown: Iterable[str]) -> Iterable[str]:
  for name in shown:
    one = metrics.get(name)
    yield report.cell(one["value"], one["interval_95"]) if one else ""


def tasks(results: Mapping[str, Any]) -> list[Part]:
  """Returns the chart and the table of each task."""
  return [_task(name, rows) for name, rows in results["tasks"].items()]


def _number(value: Any) -> Any:
  if value is None or not math.isfinite(value):
    return None
  return int(value) if float(value).is_integer() else round(value, _DIGITS)


def _labels(
  key: str, values: Sequence[Any], songs: song_part.SongPart | None
) -> dict[str, list[Any]]:
  """Returns what items are called, or the rows of the songs that they are."""
  if songs is None:
    return {"label": list(map(str, values))}
  if key == "song_id":
    row_of = {number: i for i, number in enumerate(songs.sheet.ids)}
    if all(one in row_of for one in values):
      return {"song": [row_of[one] for one in values]}
  names = songs.sheet.playlist_names
  if key == "playlist" and all(
    isinstance(one, int) and one < len(names) for one in values
  ):
    return {"label": [names[one] for one in values]}
  if key == "tag":
    known = songs.tags
    return {
      "label": [f"{known[v]} ({v})" if v in known else str(v) for v in values]
    }
  return {"label": list(map(str, values))}


def _items(table: pa.Table, songs: song_part.SongPart | None) -> dict[str, Any]:
  """Returns a table of items by column; empty columns are left out."""
  key, *names = table.column_names
  columns = {
    name: list(map(_number, table[name].to_pylist())) for name in names
  }
  columns = {
    name: values
    for name, values in columns.items()
    if any(value is not None for value in values)
  }
  return {
    "key": _CALLED.get(key, key),
    "names": list(map(_words, columns)),
    "columns": list(columns.values()),
    **_labels(key, table[key].to_pylist(), songs),
  }


def items(
  run: compare.Evaluated, songs: song_part.SongPart | None
) -> dict[str, dict[str, Any]]:
  """Returns the values of every query, playlist, song or tag, by task.

  Args:
    run: an evaluated run; those of its trained encoder are read.
    songs: what is known of the songs; None where nothing is.

  Raises:
    InputError: a table is missing or damaged.
  """
  return {task: _items(run.items(task), songs) for task in run.tasks}


def checks(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
  """Returns verdict, name and findings of each check for leakage."""
  rows = []
  for one in results.get("checks", ()):
    word = {True: "passed", False: "LEAK", None: "NOT CHECKED"}[one["passed"]]
    if one["expected"] and not one["passed"]:
      word = "SHARED"
    some = ", ".join(map(str, one["songs"]))
    text = one["found"] + (f" (such as {some})" if some else "")
    rows.append((word, one["name"], text))
  return rows


def flat(value: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Returns nested settings as pairs of a dotted key and its value."""
  content = traverse_util.flatten_dict(dict(value), sep=".")
  return [(key, str(one)) for key, one in content.items()]


def differences(
  runs: Sequence[compare.Evaluated], names: Sequence[str]
) -> Part:
  """Returns the paired tests of runs against the first one.

  Args:
    runs: evaluated runs, at least two.
    names: what they are called.

  Raises:
    InputError: the runs cannot be compared.
  """
  tests, notes = compare.compare([run.workdir for run in runs])
  head, cells = compare.rows_of(names, tests)
  rows = [
    {
      "name": f"{test.task}: {test.metric}",
      "run": names[test.other],
      "value": test.difference.value,
      "low": test.difference.low,
      "high": test.difference.high,
      "text": row[head.index("difference")],
    }
    for test, row in zip(tests, cells, strict=True)
  ]
  return {
    "spec": chart_specs.differences(rows, names[0]),
    "head": head,
    "rows": cells,
    "notes": [f"not compared: {note}" for note in notes],
  }
