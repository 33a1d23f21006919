"""The tables of the study of real recordings, made of what is kept."""

from collections.abc import Mapping, Sequence
import pathlib

import numpy as np

from benchmarks.real_music import box_table
from benchmarks.real_music import curve_table
from benchmarks.real_music import kept_results
from benchmarks.real_music import read_out_table
from benchmarks.real_music import real_scores
from benchmarks.real_music import row_values
from benchmarks.strategies import strategy_table
from pcl_jax.common import errors
from pcl_jax.evaluation import representations

# What each row is compared with.
_BASES = (representations.MEAN_STD_MEL, strategy_table.UNTRAINED)


def _task_table(
  rows: row_values.Rows,
  task: str,
  groups: Mapping[str, np.ndarray | None],
) -> list[str]:
  columns = [
    (real_scores.RETRIEVAL, real_scores.AVERAGE),
    (real_scores.RETRIEVAL, real_scores.PRECISION),
    (real_scores.LOOK_UP, real_scores.PRECISION),
  ]
  values = {
    column: {
      name: row_values.values_of(seeds, column[0], task, column[1])
      for name, seeds in rows.items()
    }
    for column in columns
  }
  queries = values[columns[0]][row_values.CHANCE].shape[1]
  if not queries:
    return [
      f"{task}: no song shares it with another, so there is no table.",
      "",
    ]
  means = {
    column: {
      name: strategy_table.resampled(
        one, strategy_table.draws_of(name), groups[column[0]]
      )
      for name, one in row.items()
    }
    for column, row in values.items()
  }
  first = columns[0]
  bases = [name for name in _BASES if name in rows]
  differences = [
    row_values.against(values[first], means[first], name, groups[first[0]])
    for name in bases
  ]
  head = [f"{task}, {queries} queries", "seeds", "average precision"]
  head += ["precision at 5", "look-up, precision at 5"]
  head += [f"to {name}, average precision" for name in bases]
  lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  order = sorted(rows, key=lambda name: -values[first][name].mean())
  for name in order:
    cells = [name, str(len(rows[name]))]
    cells += [row_values.cell(values[c][name], means[c][name]) for c in columns]
    cells += [one.get(name, "") for one in differences]
    lines.append(f"| {' | '.join(cells)} |")
  return [*lines, ""]


def of_folders(
  folder: pathlib.Path,
  beside: Sequence[pathlib.Path] = (),
  box: pathlib.Path | None = None,
  draw: str = row_values.DRAWN[0],
) -> str:
  """Returns the tables of all that is kept.

  Args:
    folder: of the study's results.
    beside: results of recipes that were trained longer, wider or on fewer
      hours, which make a table of their own.
    box: results of the recipe of the encoder in the box, on some folds.
    draw: what a resample draws, of `row_values.DRAWN`.

  Raises:
    InputError: a folder has no results, or those of other queries.
  """
  kept = kept_results.read(folder)
  rows = row_values.rows_of(kept, range(kept.folds))
  if row_values.CHANCE not in rows:
    raise errors.InputError(
      f"{folder} has no results of chance on all {kept.folds} folds: "
      "--stages=keep makes them."
    )
  lines = [_head(kept, rows), ""]
  if box is not None:
    kept_results.check_same_queries(folder, box)
    lines += box_table.lines_of(kept_results.read(box), kept, draw)
  for task in real_scores.TASKS:
    groups = row_values.groups_of(kept, draw, task, range(kept.folds))
    lines += _task_table(rows, task, groups)
  for one in (folder, box):
    lines += [] if one is None else read_out_table.lines_of(one, draw)
  if beside:
    for one in beside:
      kept_results.check_same_queries(folder, one)
    lines += curve_table.lines_of(
      kept, list(map(kept_results.read, beside)), draw
    )
  return "\n".join(lines).rstrip()


def _head(kept: kept_results.Kept, rows: row_values.Rows) -> str:
  head = (
    f"{kept.recordings} recordings and {kept.rendered} rendered scores in "
    f"{kept.folds} folds. "
  )
  trained = row_values.trainings(kept, rows)
  if trained:
    hours = [run.about["training_hours"] for run in trained]
    sizes = sorted({row_values.sizes_of(run.settings) for run in trained})
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
