"""The tables of the study of real recordings.

A representation has a value for each seed and query: of the seed's training on
the fold that the query is tested in. Means, intervals and differences are those
of `strategy_table`: resamples draw queries, the same for all rows, and seeds.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from jaxtyping import Float
import numpy as np

from benchmarks.parts import machine
from benchmarks.real_music import real_scores
from benchmarks.strategies import strategy_runs
from benchmarks.strategies import strategy_table
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import dataset
from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation import folds
from pcl_jax.evaluation import mel_baselines
from pcl_jax.evaluation import representations

CHANCE = representations.CHANCE
MEAN_STD_MEL = representations.MEAN_STD_MEL
# What each row is compared with.
_BASES = (MEAN_STD_MEL, strategy_table.UNTRAINED)
VECTORS = "baselines"  # Folder of NAME.npy, a vector of each song.
_STATISTICS = {
  representations.MEAN_MEL: mel_baselines.mean_mel,
  MEAN_STD_MEL: mel_baselines.mean_std_mel,
}
# Row -> seed -> scores of each fold.
Rows = dict[str, dict[int, list[real_scores.Scores]]]


def values_of(
  seeds: Mapping[int, list[real_scores.Scores]],
  protocol: str,
  task: str,
  metric: str,
) -> Float[np.ndarray, "seeds queries"]:
  """Returns the values of all folds' queries, a row a seed.

  Raises:
    InputError: seeds have different numbers of queries.
  """
  rows = [
    [value for fold in found for value in fold[protocol][task][metric]]
    for found in seeds.values()
  ]
  if len(set(map(len, rows))) > 1:
    counts = ", ".join(
      f"seed {seed} {len(row)}" for seed, row in zip(seeds, rows, strict=True)
    )
    raise errors.InputError(
      f"the runs of a recipe have different numbers of queries ({task}: "
      f"{counts}: some are of other data). Remove their folders, or give "
      "another --out."
    )
  return np.array(rows, np.float64)


def trained(out: pathlib.Path, count: int) -> tuple[Rows, list[dict[str, Any]]]:
  """Reads the runs of all recipes and seeds whose folds are all finished.

  Args:
    out: folder of the runs.
    count: how many folds there are.

  Returns:
    Rows, and the results of their runs.
  """
  rows: Rows = {}
  results = []
  for folder in sorted(out.glob("*-*")):
    recipe, _, seed = folder.name.rpartition("-")
    places = [
      folder / str(fold) / strategy_runs.RESULT for fold in range(count)
    ]
    if seed.isdecimal() and all(one.exists() for one in places):
      found = [storage.read_json(one) for one in places]
      rows.setdefault(recipe, {})[int(seed)] = [one["scores"] for one in found]
      results += found
  return rows, results


def untrained_rows(data: list[dataset.DataSet], out: pathlib.Path) -> Rows:
  """Looks up by chance, by the mel's statistics and by vectors of a folder."""
  songs = np.arange(len(data[0].store), dtype=np.int32)
  vectors = {CHANCE: None} | {
    name: statistic(data[0].store, songs)
    for name, statistic in _STATISTICS.items()
  }
  for path in sorted((out / VECTORS).glob("*.npy")):
    vectors[path.stem] = np.load(path).astype(np.float32)
  return {
    name: {0: [real_scores.measure(one, rows) for one in data]}
    for name, rows in vectors.items()
  }


def _cell(values: np.ndarray, means: np.ndarray) -> str:
  low, high = bootstrap.percentiles(means)
  return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def _against(
  values: Mapping[str, np.ndarray], means: Mapping[str, np.ndarray], base: str
) -> dict[str, str]:
  """Returns the difference of each row to one of them, with Holm's p."""
  others = [name for name in values if name not in (base, CHANCE)]
  drawn = [means[name] - means[base] for name in others]
  p_values = np.array(
    [
      min(2 * (1 + min((d <= 0).sum(), (d >= 0).sum())) / (len(d) + 1), 1.0)
      for d in drawn
    ]
  )
  found = {}
  for name, draws, p in zip(
    others, drawn, bootstrap.holm(p_values), strict=True
  ):
    low, high = bootstrap.percentiles(draws)
    value = values[name].mean() - values[base].mean()
    text = f"{value:+.3f} [{low:+.3f}, {high:+.3f}], p {p:.3f}"
    found[name] = f"**{text}**" if p < 0.05 else text
  return found


def _task_table(rows: Rows, task: str, rng: np.random.Generator) -> list[str]:
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
  means = {
    column: {
      name: strategy_table.resampled(one, rng) for name, one in row.items()
    }
    for column, row in values.items()
  }
  first = columns[0]
  bases = [name for name in _BASES if name in rows]
  differences = [_against(values[first], means[first], name) for name in bases]
  queries = values[first][CHANCE].shape[1]
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


def _curve_table(places: Sequence[pathlib.Path], count: int) -> list[str]:
  """Returns a table of recipes that were trained longer, or on less."""
  tasks = real_scores.TASKS[:2]
  lines = [
    "| recipe | steps | hours | seeds | "
    + " | ".join(f"{task}, average precision" for task in tasks)
    + " |",
    "|---|---|---|---|---|---|",
  ]
  found = []
  for place in places:
    rows, results = trained(place, count)
    for name, seeds in rows.items():
      mine = [one for one in results if one["recipe"] == name]
      hours = np.mean([one["training_hours"] for one in mine])
      found.append((hours, mine[0]["steps"], name, seeds))
  for hours, steps, name, seeds in sorted(found, key=lambda one: one[:3]):
    rng = np.random.default_rng(0)
    cells = [name, f"{steps:,}", f"{hours:.1f}", str(len(seeds))]
    for task in tasks:
      values = values_of(
        seeds, real_scores.RETRIEVAL, task, real_scores.AVERAGE
      )
      cells.append(_cell(values, strategy_table.resampled(values, rng)))
    lines.append(f"| {' | '.join(cells)} |")
  return [*lines, ""]


def of_folder(
  data_dir: pathlib.Path,
  out: pathlib.Path,
  beside: Sequence[pathlib.Path] = (),
) -> str:
  """Returns the tables of all that was trained and computed.

  Args:
    data_dir: the folds.
    out: folder of the study.
    beside: folders of runs of the same folds with other steps, or fewer hours,
      which make a table of their own with the recipes that they have.

  Raises:
    InputError: there is nothing in `out`.
  """
  data = [dataset.DataSet(one) for one in folds.find(data_dir)]
  rows, results = trained(out, len(data))
  if not rows and not (out / VECTORS).exists():
    raise errors.InputError(
      f"{out} has no recipe that was trained on all {len(data)} folds, and no "
      "vectors of baselines: --stages=train,baselines makes them."
    )
  rows |= untrained_rows(data, out)
  rng = np.random.default_rng(0)
  lines = [_head(data, results), ""]
  for task in real_scores.TASKS:
    lines += _task_table(rows, task, rng)
  if beside:
    lines += _curve_table(beside, len(data))
  return "\n".join(lines).rstrip()


def _head(data: list[dataset.DataSet], results: list[dict[str, Any]]) -> str:
  songs, known = len(data[0].store), len(real_scores.recordings(data[0]))
  head = (
    f"{known} recordings and {songs - known} rendered scores in {len(data)} "
    "folds. "
  )
  if results:
    hours = [one["training_hours"] for one in results]
    settings = results[0]["settings"]
    devices = ", ".join(sorted({one["device"] for one in results}))
    head += (
      f"{len(results)} trainings on {devices}: {min(hours):.1f} to "
      f"{max(hours):.1f} hours, {settings['steps']} steps of "
      f"{settings['data.batch_size']} pairs, ResNet-18 of width "
      f"{settings['model_params.audio.width']}. "
    )
  return f"{head}Tables computed on {machine.describe()}."
