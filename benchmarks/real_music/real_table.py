"""The tables of the study of real recordings.

A representation has a value for each seed and query: of the seed's training on
the fold that the query is tested in. Means, intervals and differences are those
of `strategy_table`: resamples draw queries, the same for all rows, and seeds.
All is made of the results that are kept (`kept_results`).
"""

from collections.abc import Collection, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

from jaxtyping import Float, Int
import numpy as np

from benchmarks.real_music import kept_results
from benchmarks.real_music import read_outs
from benchmarks.real_music import real_scores
from benchmarks.strategies import strategy_table
from pcl_jax.common import errors
from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation import representations

CHANCE = representations.CHANCE
MEAN_STD_MEL = representations.MEAN_STD_MEL
# What each row is compared with.
_BASES = (MEAN_STD_MEL, strategy_table.UNTRAINED)
_BOX = "the recipe of the box"
_MEAN = "mean of the features of the whole song"
# What resamples draw: the packages' queries are not independent of one another.
DRAWN = ("queries", "packages")
# Row -> seed -> fold -> scores.
Rows = dict[str, dict[int, dict[int, real_scores.Scores]]]


def values_of(
  seeds: Mapping[int, Mapping[int, real_scores.Scores]],
  protocol: str,
  task: str,
  metric: str,
  folds: Collection[int] | None = None,
) -> Float[np.ndarray, "seeds queries"]:
  """Returns the values of the folds' queries, a row a seed; of all folds."""
  rows = [
    [
      value
      for fold in sorted(found if folds is None else folds)
      for value in found[fold][protocol][task][metric]
    ]
    for found in seeds.values()
  ]
  return np.array(rows, np.float64)


def rows_of(kept: kept_results.Kept, folds: Collection[int]) -> Rows:
  """Returns the rows whose seeds have been tried on all of some folds."""
  rows: Rows = {}
  for run in kept.runs:
    rows.setdefault(run.row, {}).setdefault(run.seed, {})[run.fold] = run.scores
  whole = {
    row: {seed: one for seed, one in seeds.items() if one.keys() >= set(folds)}
    for row, seeds in rows.items()
  }
  return {row: seeds for row, seeds in whole.items() if seeds}


def _cell(values: np.ndarray, means: np.ndarray) -> str:
  low, high = bootstrap.percentiles(means)
  return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def _p(
  change: Float[np.ndarray, " queries"],
  draws: Float[np.ndarray, " draws"],
  groups: Int[np.ndarray, " queries"] | None,
) -> float:
  """Returns the p of a difference, no less than a test of signs can give."""
  sums = change if groups is None else np.bincount(groups, change)
  least = 2.0 ** (1 - np.count_nonzero(np.abs(sums) > 1e-9))
  smaller = 1 + min((draws <= 0).sum(), (draws >= 0).sum())
  return min(max(2 * smaller / (len(draws) + 1), least), 1.0)


def _against(
  values: Mapping[str, np.ndarray],
  means: Mapping[str, np.ndarray],
  base: str,
  groups: np.ndarray | None,
  sign: int = 1,
) -> dict[str, str]:
  """Returns the difference of each row to one of them, with Holm's p.

  With a sign of -1, the difference of the one to each row.
  """
  others = [name for name in values if name not in (base, CHANCE)]
  drawn = [sign * (means[name] - means[base]) for name in others]
  of_queries = {name: one.mean(axis=0) for name, one in values.items()}
  p_values = np.array(
    [
      _p(of_queries[name] - of_queries[base], draws, groups)
      for name, draws in zip(others, drawn, strict=True)
    ]
  )
  found = {}
  for name, draws, p in zip(
    others, drawn, bootstrap.holm(p_values), strict=True
  ):
    low, high = bootstrap.percentiles(draws)
    value = sign * (values[name].mean() - values[base].mean())
    text = f"{value:+.3f} [{low:+.3f}, {high:+.3f}], p {p:.3f}"
    found[name] = f"**{text}**" if p < 0.05 else text
  return found


def _groups(
  kept: kept_results.Kept, draw: str, task: str, folds: Collection[int]
) -> dict[str, np.ndarray | None]:
  """Returns for each protocol which queries are drawn together."""
  if draw == DRAWN[0]:
    return dict.fromkeys(real_scores.PROTOCOLS)
  return {
    protocol: kept.packages(protocol, task, sorted(folds))
    for protocol in real_scores.PROTOCOLS
  }


def _task_table(
  rows: Rows,
  task: str,
  rng: np.random.Generator,
  groups: Mapping[str, np.ndarray | None],
) -> list[str]:
  columns = [
    (real_scores.RETRIEVAL, real_scores.AVERAGE),
    (real_scores.RETRIEVAL, real_scores.PRECISION),
    (real_scores.LOOK_UP, real_scores.PRECISION),
  ]
  values = {
    column: {
      name: values_of(seeds, column[0], task, column[1])
      for name, seeds in rows.items()
    }
    for column in columns
  }
  queries = values[columns[0]][CHANCE].shape[1]
  if not queries:
    return [
      f"{task}: no song shares it with another, so there is no table.",
      "",
    ]
  means = {
    column: {
      name: strategy_table.resampled(one, rng, groups[column[0]])
      for name, one in row.items()
    }
    for column, row in values.items()
  }
  first = columns[0]
  bases = [name for name in _BASES if name in rows]
  differences = [
    _against(values[first], means[first], name, groups[first[0]])
    for name in bases
  ]
  head = [f"{task}, {queries} queries", "seeds", "average precision"]
  head += ["precision at 5", "look-up, precision at 5"]
  head += [f"to {name}, average precision" for name in bases]
  lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  order = sorted(rows, key=lambda name: -values[first][name].mean())
  for name in order:
    cells = [name, str(len(rows[name]))]
    cells += [_cell(values[c][name], means[c][name]) for c in columns]
    cells += [one.get(name, "") for one in differences]
    lines.append(f"| {' | '.join(cells)} |")
  return [*lines, ""]


def _curve_table(
  kept: Sequence[kept_results.Kept], draw: str = DRAWN[0]
) -> list[str]:
  """Returns a table of recipes that were trained longer, or on less."""
  tasks = real_scores.TASKS[:2]
  head = ["recipe", "width", "pairs", "steps", "hours", "seeds"]
  head += [f"{task}, average precision" for task in tasks]
  found = []
  for one in kept:
    rows = rows_of(one, range(one.folds))
    trained = _trainings(one, rows)
    for row, seeds in rows.items():
      mine = [run for run in trained if run.row == row]
      if mine:
        steps, pairs, width = _sizes_of(mine[0].settings)
        hours = np.mean([run.about["training_hours"] for run in mine])
        found.append((row, width, pairs, steps, float(hours), seeds, one))
  lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  for row, width, pairs, steps, hours, seeds, its in sorted(
    found, key=lambda one: one[:5]
  ):
    rng = np.random.default_rng(0)
    cells = [row, f"{width}", f"{pairs}", f"{steps:,}", f"{hours:.1f}"]
    cells.append(f"{len(seeds)}")
    for task in tasks:
      values = values_of(
        seeds, real_scores.RETRIEVAL, task, real_scores.AVERAGE
      )
      groups = _groups(its, draw, task, range(its.folds))
      means = strategy_table.resampled(
        values, rng, groups[real_scores.RETRIEVAL]
      )
      cells.append(_cell(values, means))
    lines.append(f"| {' | '.join(cells)} |")
  return [*lines, ""]


def _box_table(
  box: kept_results.Kept, kept: kept_results.Kept, draw: str
) -> list[str]:
  """Returns the differences of the box's trainings to all that needs none."""
  runs = [run for run in box.runs if _is_trained(run)]
  folds, names = sorted({run.fold for run in runs}), {run.row for run in runs}
  mine = rows_of(dataclasses.replace(box, runs=runs), folds)
  if len(names) != 1 or not mine:
    raise errors.InputError(
      f"--box has trainings of {', '.join(sorted(names)) or 'nothing'}, on the "
      f"folds {folds}: it should be one recipe, with a seed on all of them."
    )
  others = [run for run in kept.runs if not _is_trained(run)]
  rows = {_BOX: mine[names.pop()]}
  rows |= rows_of(dataclasses.replace(kept, runs=others), folds)
  head, columns = [f"{_BOX}, minus"], {row: [row] for row in rows}
  for task in real_scores.TASKS:
    rng = np.random.default_rng(0)
    values = {
      row: values_of(
        seeds, real_scores.RETRIEVAL, task, real_scores.AVERAGE, folds
      )
      for row, seeds in rows.items()
    }
    queries = values[_BOX].shape[1]
    if not queries:
      continue
    groups = _groups(kept, draw, task, folds)[real_scores.RETRIEVAL]
    means = {
      row: strategy_table.resampled(one, rng, groups)
      for row, one in values.items()
    }
    head.append(f"{task}, {queries} queries")
    columns[_BOX].append(_cell(values[_BOX], means[_BOX]))
    for row, text in _against(values, means, _BOX, groups, -1).items():
      columns[row].append(text)
  columns[_BOX][0] = "(its average precision)"
  whole = [one for one in columns.values() if len(one) == len(head)]
  return [
    f"| {' | '.join(head)} |",
    "|---" * len(head) + "|",
    *(f"| {' | '.join(cells)} |" for cells in whole),
    "",
  ]


def _read_out_tables(folder: pathlib.Path, draw: str) -> list[str]:
  """Returns a table of other vectors of each row that has some."""
  place = folder / read_outs.FOLDER
  if not (place / kept_results.QUERIES).exists():
    return []
  kept, others = kept_results.read(folder), kept_results.read(place)
  plain = rows_of(kept, range(kept.folds))
  found = rows_of(others, range(others.folds))
  lines = []
  for row in sorted({name.partition(": ")[0] for name in found} & plain.keys()):
    mine = {
      name.partition(": ")[2]: seeds
      for name, seeds in found.items()
      if name.startswith(f"{row}: ")
    }
    same = set.intersection(*map(set, mine.values())) & set(plain[row])
    rows = {_MEAN: plain[row]} | mine
    rows = {
      name: {seed: seeds[seed] for seed in sorted(same)}
      for name, seeds in rows.items()
    }
    settings = next(run.settings for run in kept.runs if run.row == row)
    if same:
      width = _sizes_of(settings)[2]
      lines += _read_out_table(f"{row} at width {width}", rows, kept, draw)
  return lines


def _read_out_table(
  title: str, rows: Rows, kept: kept_results.Kept, draw: str
) -> list[str]:
  head = [f"{title}: vector of a song", "seeds"]
  cells = {name: [name, f"{len(seeds)}"] for name, seeds in rows.items()}
  for task in real_scores.TASKS[:2]:
    values, means = {}, {}
    groups = _groups(kept, draw, task, range(kept.folds))
    for name, seeds in rows.items():
      values[name] = one = values_of(
        seeds, real_scores.RETRIEVAL, task, real_scores.AVERAGE
      )
      # The same trainings are drawn for all, which are their read-outs.
      means[name] = strategy_table.resampled(
        one, np.random.default_rng(0), groups[real_scores.RETRIEVAL]
      )
      cells[name].append(_cell(one, means[name]))
    head += [f"{task}, average precision", "difference"]
    differences = _against(values, means, _MEAN, groups[real_scores.RETRIEVAL])
    for name in rows:
      cells[name].append(differences.get(name, ""))
  return [
    f"| {' | '.join(head)} |",
    "|---" * len(head) + "|",
    *(f"| {' | '.join(one)} |" for one in cells.values()),
    "",
  ]


def of_folders(
  folder: pathlib.Path,
  beside: Sequence[pathlib.Path] = (),
  box: pathlib.Path | None = None,
  draw: str = DRAWN[0],
) -> str:
  """Returns the tables of all that is kept.

  Args:
    folder: of the study's results.
    beside: results of recipes that were trained longer, wider or on fewer
      hours, which make a table of their own.
    box: results of the recipe of the encoder in the box, on some folds.
    draw: what a resample draws, of `DRAWN`.

  Raises:
    InputError: a folder has no results, or those of other queries.
  """
  kept = kept_results.read(folder)
  rows = rows_of(kept, range(kept.folds))
  if CHANCE not in rows:
    raise errors.InputError(
      f"{folder} has no results of chance on all {kept.folds} folds: "
      "--stages=keep makes them."
    )
  rng = np.random.default_rng(0)
  lines = [_head(kept, rows), ""]
  if box is not None:
    kept_results.check_same_queries(folder, box)
    lines += _box_table(kept_results.read(box), kept, draw)
  for task in real_scores.TASKS:
    groups = _groups(kept, draw, task, range(kept.folds))
    lines += _task_table(rows, task, rng, groups)
  for one in (folder, box):
    lines += [] if one is None else _read_out_tables(one, draw)
  if beside:
    for one in beside:
      kept_results.check_same_queries(folder, one)
    lines += _curve_table([kept, *map(kept_results.read, beside)], draw)
  return "\n".join(lines).rstrip()


def _head(kept: kept_results.Kept, rows: Rows) -> str:
  head = (
    f"{kept.recordings} recordings and {kept.rendered} rendered scores in "
    f"{kept.folds} folds. "
  )
  trained = _trainings(kept, rows)
  if trained:
    hours = [run.about["training_hours"] for run in trained]
    sizes = sorted({_sizes_of(run.settings) for run in trained})
    each = (
      f"{steps} steps of {pairs} pairs, ResNet-18 of width {width}"
      for steps, pairs, width in sizes
    )
    devices = ", ".join(sorted({run.about["device"] for run in trained}))
    head += (
      f"{len(trained)} trainings on {devices}: {min(hours):.1f} to "
      f"{max(hours):.1f} hours, {', or '.join(each)}."
    )
  return head.rstrip()


def _trainings(kept: kept_results.Kept, rows: Rows) -> list[kept_results.Run]:
  """Returns the trainings of the seeds that are in some rows."""
  return [
    run
    for run in kept.runs
    if _is_trained(run) and run.seed in rows.get(run.row, {})
  ]


def _sizes_of(settings: Mapping[str, Any]) -> tuple[int, int, int]:
  """Returns steps, pairs and width."""
  keys = "steps", "data.batch_size", "model_params.audio.width"
  return tuple(settings[key] for key in keys)


def _is_trained(run: kept_results.Run) -> bool:
  return bool(run.settings) and run.row != strategy_table.UNTRAINED
