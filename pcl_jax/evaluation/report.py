"""Writes what an evaluation found, as files and as a table for people."""

from collections.abc import Iterable, Mapping
import dataclasses
import math
import pathlib
from typing import Any

import numpy as np
import pyarrow
from pyarrow import parquet

from pcl_jax.common import console
from pcl_jax.common import storage
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.audit import leakage
from pcl_jax.evaluation.retrieval import precision_at_k

FILE_NAME = "results.json"
FOLDER = "evaluation"
ROW = "representation"  # First column of every table of items.
_COLUMNS = 5  # Metrics in the table where a task does not name them.
# Of the summary: what rows may be beside the first, and the number of lines.
_BESIDE = ("untrained", "mean mel", "chance")
_MOST_LINES = 10


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """All that was measured.

  Attributes:
    results: plain values, fit for json.
    items: task -> representation -> columns of one value an item.
    tasks: the tasks, by name.
  """

  results: dict[str, Any]
  items: dict[str, dict[str, dict[str, np.ndarray]]]
  tasks: Mapping[str, task_base.Task]


def _plain(value: Any) -> Any:
  """Returns plain values, with None for numbers that are not finite."""
  if isinstance(value, dict):
    return {str(k): _plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple | np.ndarray):
    return [_plain(v) for v in value]
  if isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def as_dict(found: task_base.Result) -> dict[str, Any]:
  """Returns a result, without its items, as plain values."""
  metrics = {
    name: {
      "value": metric.value,
      "interval_95": [metric.low, metric.high],
      "items": metric.items,
    }
    for name, metric in found.metrics.items()
  }
  return _plain(
    {
      "metrics": metrics,
      "left_out": found.left_out,
      "settings": found.settings,
      "notes": found.notes,
    }
  )


def folder_of(path: pathlib.Path) -> pathlib.Path:
  """Returns where the results of a run's folder, or of a table, are."""
  if not path.is_file():
    return path
  # Files that differ in what follows the last dot are two tables.
  name = path.stem if path.suffix == ".parquet" else path.name
  return path.with_name(f"{name}.evaluated")


def check_writable(path: pathlib.Path) -> None:
  """Refuses a run or a table beside which no results can be written.

  One that is absent is left to whoever reads it.

  Raises:
    InputError: its folder cannot be written to.
  """
  if path.exists():
    folder = folder_of(path)
    place = folder if folder.is_dir() else folder.parent
    storage.check_writable(
      place / FILE_NAME,
      "results are written beside what is evaluated, so give a copy of it in a "
      "folder that you may write to",
    )


def write(workdir: pathlib.Path, found: Evaluation) -> list[pathlib.Path]:
  """Writes results.json, and a table of items for each task.

  Args:
    workdir: folder of the run, or what `folder_of` gives for a table.
    found: what to write.

  Returns:
    The files' paths, results.json first.
  """
  folder = workdir / FOLDER
  folder.mkdir(parents=True, exist_ok=True)
  paths = [workdir / FILE_NAME]
  for task, rows in found.items.items():
    if rows:
      paths.append(folder / f"{task}.parquet")
      write_items(paths[-1], rows)
  storage.write_json(paths[0], _plain(found.results))
  return paths


def write_items(
  path: pathlib.Path, rows: dict[str, dict[str, np.ndarray]]
) -> None:
  """Writes the values of each item, of several representations, as parquet.

  Args:
    path: the file.
    rows: representation -> columns; the first one names the item.
  """
  tables = []
  for name, columns in rows.items():
    table = pyarrow.table(columns)
    names = pyarrow.array([name] * len(table), pyarrow.string())
    tables.append(table.add_column(0, ROW, names))
  table = pyarrow.concat_tables(tables, promote_options="permissive")
  with storage.write_aside(path) as partial, open(partial, "wb") as file:
    parquet.write_table(table, file)  # The path may be no text.


def cell(value: float | None, interval: list[float | None]) -> str:
  """Returns a number with its interval, where it has one."""
  if value is None:
    return "undefined"
  if None in interval:
    return f"{value:.3f}"
  return f"{value:.3f}  [{interval[0]:.3f}, {interval[1]:.3f}]"


def format_precision(results: dict[str, Any]) -> str:
  """Returns the table of precision at 5; empty where there is none."""
  table = results["precision_at_5"]
  queries = {
    c: one["queries"] for row in table.values() for c, one in row.items()
  }
  if not queries:
    return ""
  counts = ", ".join(f"{count} for {c}" for c, count in queries.items())
  rows = [
    [
      name,
      *(cell(row[c]["precision_at_5"], row[c]["interval_95"]) for c in queries),
    ]
    for name, row in table.items()
  ]
  lines = [
    f"Precision at {precision_at_k.NEAREST}, with 95 % bootstrap intervals. "
    f"Queries: test songs of {results['data']} ({counts});",
    f"candidates: all other {results['songs'] - 1} songs.",
    "",
    *console.grid(["", *queries], rows),
  ]
  return "\n".join(lines)


def shown_metrics(
  task: task_base.Task | None, metrics: Mapping[str, Any]
) -> list[str]:
  """Returns the metrics of a task that people read, the headline first.

  Args:
    task: the task; None where only its results are known.
    metrics: its metrics by name.
  """
  shown = [one for one in task.shown if one in metrics] if task else []
  return shown or list(metrics)[:_COLUMNS]


def format_task(
  name: str, task: task_base.Task, rows: dict[str, dict[str, Any]]
) -> str:
  """Returns a task's part of the table.

  Args:
    name: name of the task.
    task: the task.
    rows: representation -> what `as_dict` gave, or why there is no result.
  """
  lines = [f"{task.title} ({name})"]
  given = {k: row for k, row in rows.items() if "not_given" not in row}
  missing = {k: row["not_given"] for k, row in rows.items() if k not in given}
  if given:
    metrics = next(iter(given.values()))["metrics"]
    shown = shown_metrics(task, metrics)
    cells = [[row, *_cells(one, shown)] for row, one in given.items()]
    lines += console.grid(["", *shown], cells)
    notes = [f"  mean over {metrics[shown[0]]['items']} items"]
    left_out = {}
    for row in given.values():
      left_out |= {why: n for why, n in row["left_out"].items() if n}
    notes += [f"left out: {count} {why}" for why, count in left_out.items()]
    lines.append("; ".join(notes))
    told = [note for row in given.values() for note in row.get("notes", ())]
    lines += [f"  {note}" for note in dict.fromkeys(told)]
  if not given and len(set(missing.values())) == 1:
    lines.append(f"  not measured: {next(iter(missing.values()))}")
  else:
    lines += [f"  {row}: not measured: {why}" for row, why in missing.items()]
  return "\n".join(lines)


def _cells(row: dict[str, Any], shown: list[str]) -> Iterable[str]:
  """Yields a row's numbers, the first one with its interval."""
  for i, name in enumerate(shown):
    metric = row["metrics"].get(name)
    if metric is None:
      yield ""
    else:
      yield cell(metric["value"], [None] if i else metric["interval_95"])


def _headline(task: task_base.Task, rows: dict[str, dict[str, Any]]) -> str:
  """Returns the first metric that a task shows; empty without a result."""
  given = next((row for row in rows.values() if "metrics" in row), None)
  return shown_metrics(task, given["metrics"])[0] if given else ""


def _summary_rows(found: Evaluation) -> list[tuple[str, dict[str, Any]]]:
  """Returns headings and metrics by row: look-up, tasks with chance, others."""
  table = found.results["precision_at_5"]
  kinds = dict.fromkeys(kind for row in table.values() for kind in row)
  lines = [
    (
      f"look-up, {kind}: precision at {precision_at_k.NEAREST}",
      {
        name: one[kind] | {"value": one[kind]["precision_at_5"]}
        for name, one in table.items()
        if kind in one
      },
    )
    for kind in kinds
  ]
  tasks = found.results["tasks"]
  for name in sorted(tasks, key=lambda one: "chance" not in tasks[one]):
    metric = _headline(found.tasks[name], tasks[name])
    values = {
      row: one["metrics"][metric]
      for row, one in tasks[name].items()
      if metric in one.get("metrics", ())
    }
    if values:
      lines.append((f"{name}: {metric.replace('_', ' ')}", values))
  return lines


def _format_audit(checks: list[dict[str, Any]]) -> str:
  """Returns one line that counts the checks, and names those that failed."""
  lines = leakage.format_checks([one for one in checks if not one["passed"]])
  named: dict[str, list[str]] = {}
  for line in lines:
    word, _, rest = line.partition(", ")
    named.setdefault(word, []).append(rest.partition(":")[0])
  parts = [f"{word}: {', '.join(names)}" for word, names in named.items()]
  passed = sum(one["passed"] is True for one in checks)
  return "; ".join([f"audit: {passed} checks for leakage passed", *parts])


def format_summary(found: Evaluation) -> str:
  """Returns the headline of each task, in at most 13 lines and the notes."""
  results, lines = found.results, _summary_rows(found)
  first = results["trained"]
  beside = [
    name for name in _BESIDE if any(name in values for _, values in lines)
  ]
  rows = [
    [
      heading,
      *_cells({"metrics": values}, [first]),
      *(
        cell(values[name]["value"], [None]) if name in values else ""
        for name in beside
      ),
    ]
    for heading, values in lines
  ]
  text = console.grid([results["data"], first, *beside], rows[:_MOST_LINES])
  if (rest := len(rows) - _MOST_LINES) > 0:
    text.append(f"and {rest} more tasks, which --verbose prints")
  audit = _format_audit(results["checks"])
  return "\n".join([*text, *results["notes"], audit])


def format_evaluation(found: Evaluation) -> str:
  """Returns the table that people read."""
  results = found.results
  parts = [format_precision(results)]
  parts += [
    format_task(name, found.tasks[name], rows)
    for name, rows in results["tasks"].items()
  ]
  lines = results["notes"] + leakage.format_checks(results["checks"])
  parts.append("\n".join(lines))
  return "\n\n".join(part for part in parts if part)
