"""The tables of other vectors of the same trainings."""

import pathlib

from benchmarks.real_music import kept_results
from benchmarks.real_music import read_outs
from benchmarks.real_music import real_scores
from benchmarks.real_music import row_values
from benchmarks.strategies import strategy_table

MEAN = "mean of the features of the whole song"


def lines_of(folder: pathlib.Path, draw: str) -> list[str]:
  """Returns a table of other vectors of each row that has some."""
  place = folder / read_outs.FOLDER
  if not (place / kept_results.QUERIES).exists():
    return []
  kept, others = kept_results.read(folder), kept_results.read(place)
  plain = row_values.rows_of(kept, range(kept.folds))
  found = row_values.rows_of(others, range(others.folds))
  lines = []
  for row in sorted({name.partition(": ")[0] for name in found} & plain.keys()):
    mine = {
      name.partition(": ")[2]: seeds
      for name, seeds in found.items()
      if name.startswith(f"{row}: ")
    }
    same = set.intersection(*map(set, mine.values())) & set(plain[row])
    rows = {MEAN: plain[row]} | mine
    rows = {
      name: {seed: seeds[seed] for seed in sorted(same)}
      for name, seeds in rows.items()
    }
    settings = next(run.settings for run in kept.runs if run.row == row)
    if same:
      width = row_values.sizes_of(settings)[2]
      title = f"{row} at width {width}"
      lines += _table_of(row, title, rows, kept, draw)
  return lines


def _table_of(
  row: str,
  title: str,
  rows: row_values.Rows,
  kept: kept_results.Kept,
  draw: str,
) -> list[str]:
  head = [f"{title}: vector of a song", "seeds"]
  cells = {name: [name, f"{len(seeds)}"] for name, seeds in rows.items()}
  for task in real_scores.TASKS[:2]:
    values, means = {}, {}
    groups = row_values.groups_of(kept, draw, task, range(kept.folds))
    for name, seeds in rows.items():
      values[name] = one = row_values.values_of(
        seeds, real_scores.RETRIEVAL, task, real_scores.AVERAGE
      )
      # The same trainings are drawn for all, which are their read-outs.
      means[name] = strategy_table.resampled(
        one, strategy_table.draws_of(row), groups[real_scores.RETRIEVAL]
      )
      cells[name].append(row_values.cell(one, means[name]))
    head += [f"{task}, average precision", "difference"]
    differences = row_values.against(
      values, means, MEAN, groups[real_scores.RETRIEVAL]
    )
    for name in rows:
      cells[name].append(differences.get(name, ""))
  return [
    f"| {' | '.join(head)} |",
    "|---" * len(head) + "|",
    *(f"| {' | '.join(one)} |" for one in cells.values()),
    "",
  ]
