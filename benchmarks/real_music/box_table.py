"""The table of the recipe of the encoder in the box."""

import dataclasses

from benchmarks.real_music import kept_results
from benchmarks.real_music import real_scores
from benchmarks.real_music import row_values
from benchmarks.strategies import strategy_table
from pcl_jax.common import errors

_BOX = "the recipe of the box"


def lines_of(
  box: kept_results.Kept, kept: kept_results.Kept, draw: str
) -> list[str]:
  """Returns the differences of the box's trainings to all that needs none."""
  runs = [run for run in box.runs if row_values.is_trained(run)]
  folds, names = sorted({run.fold for run in runs}), {run.row for run in runs}
  mine = row_values.rows_of(dataclasses.replace(box, runs=runs), folds)
  if len(names) != 1 or not mine:
    raise errors.InputError(
      f"--box has trainings of {', '.join(sorted(names)) or 'nothing'}, on the "
      f"folds {folds}: it should be one recipe, with a seed on all of them."
    )
  others = [run for run in kept.runs if not row_values.is_trained(run)]
  rows = {_BOX: mine[names.pop()]}
  rows |= row_values.rows_of(dataclasses.replace(kept, runs=others), folds)
  head, columns = [f"{_BOX}, minus"], {row: [row] for row in rows}
  for task in real_scores.TASKS:
    values = {
      row: row_values.values_of(
        seeds, real_scores.RETRIEVAL, task, real_scores.AVERAGE, folds
      )
      for row, seeds in rows.items()
    }
    queries = values[_BOX].shape[1]
    if not queries:
      continue
    groups = row_values.groups_of(kept, draw, task, folds)[
      real_scores.RETRIEVAL
    ]
    means = {
      row: strategy_table.resampled(one, strategy_table.draws_of(row), groups)
      for row, one in values.items()
    }
    head.append(f"{task}, {queries} queries")
    columns[_BOX].append(row_values.cell(values[_BOX], means[_BOX]))
    for row, text in row_values.against(
      values, means, _BOX, groups, -1
    ).items():
      columns[row].append(text)
  columns[_BOX][0] = "(its average precision)"
  whole = [one for one in columns.values() if len(one) == len(head)]
  return [
    f"| {' | '.join(head)} |",
    "|---" * len(head) + "|",
    *(f"| {' | '.join(cells)} |" for cells in whole),
    "",
  ]
