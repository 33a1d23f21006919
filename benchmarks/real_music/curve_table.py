"""The table of recipes that were trained longer, wider or on fewer hours."""

from collections.abc import Sequence

from jaxtyping import Float
import numpy as np

from benchmarks.real_music import kept_results
from benchmarks.real_music import real_scores
from benchmarks.real_music import row_values
from benchmarks.strategies import strategy_table

_TASKS = real_scores.TASKS[:2]
_HEAD = ["recipe", "width", "pairs", "steps", "hours", "seeds"]
_UNTRAINED = strategy_table.UNTRAINED
# Recipe, width, pairs, steps and hours.
_Row = tuple[str, int, int, int, float]


def _rows_of(
  kept: Sequence[kept_results.Kept],
) -> dict[_Row, dict[int, dict[int, real_scores.Scores]]]:
  """Returns the seeds of each training that differs from the others."""
  found = {}
  for one in kept:
    rows = row_values.rows_of(one, range(one.folds))
    trained = row_values.trainings(one, rows)
    for row, seeds in rows.items():
      mine = [run for run in trained if run.row == row]
      if mine:
        steps, pairs, width = row_values.sizes_of(mine[0].settings)
        hours = np.mean([run.about["training_hours"] for run in mine])
        found[row, width, pairs, steps, float(hours)] = seeds
  return found


def _values_of(seeds: dict, task: str) -> Float[np.ndarray, "seeds queries"]:
  return row_values.values_of(
    seeds, real_scores.RETRIEVAL, task, real_scores.AVERAGE
  )


def lines_of(
  kept: kept_results.Kept, beside: Sequence[kept_results.Kept], draw: str
) -> list[str]:
  """Returns the table of trainings that have the same queries.

  Args:
    kept: results; its untrained networks are what all rows are compared with,
      where it has some.
    beside: results of other sizes; the table has the recipes that are in them.
    draw: what a resample draws, of `row_values.DRAWN`.
  """
  recipes = {run.row for one in beside for run in one.runs}
  found = sorted(_rows_of([kept, *beside]).items())
  rows = {row: seeds for row, seeds in found if row[0] in recipes}
  untrained = row_values.rows_of(kept, range(kept.folds)).get(_UNTRAINED)
  head = list(_HEAD)
  cells = {
    row: [row[0], f"{row[1]}", f"{row[2]}", f"{row[3]:,}", f"{row[4]:.1f}"]
    + [f"{len(seeds)}"]
    for row, seeds in rows.items()
  }
  for task in _TASKS:
    groups = row_values.groups_of(kept, draw, task, range(kept.folds))
    groups = groups[real_scores.RETRIEVAL]
    values = {row: _values_of(seeds, task) for row, seeds in rows.items()}
    if untrained:
      values[_UNTRAINED] = _values_of(untrained, task)
    means = {
      row: strategy_table.resampled(
        one,
        strategy_table.draws_of(row if row == _UNTRAINED else row[0]),
        groups,
      )
      for row, one in values.items()
    }
    head.append(f"{task}, average precision")
    for row in rows:
      cells[row].append(row_values.cell(values[row], means[row]))
    if untrained:
      head.append(f"to {_UNTRAINED}")
      for row, text in row_values.against(
        values, means, _UNTRAINED, groups
      ).items():
        cells[row].append(text)
  return [
    f"| {' | '.join(head)} |",
    "|---" * len(head) + "|",
    *(f"| {' | '.join(one)} |" for one in cells.values()),
    "",
  ]
