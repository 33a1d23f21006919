"""Values, means and differences of the rows of the study's tables.

A representation has a value for each seed and query: of the seed's training on
the fold that the query is tested in. Means, intervals and differences are those
of `strategy_table`: resamples draw queries, the same for all rows, and seeds.
"""

from collections.abc import Collection, Mapping
from typing import Any

from jaxtyping import Float, Int
import numpy as np

from benchmarks.real_music import kept_results
from benchmarks.real_music import real_scores
from benchmarks.strategies import strategy_table
from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation import representations

CHANCE = representations.CHANCE
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


def cell(values: np.ndarray, means: np.ndarray) -> str:
  """Returns a mean with its interval, for a table."""
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


def against(
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


def groups_of(
  kept: kept_results.Kept, draw: str, task: str, folds: Collection[int]
) -> dict[str, np.ndarray | None]:
  """Returns for each protocol which queries are drawn together."""
  if draw == DRAWN[0]:
    return dict.fromkeys(real_scores.PROTOCOLS)
  return {
    protocol: kept.packages(protocol, task, sorted(folds))
    for protocol in real_scores.PROTOCOLS
  }


def trainings(kept: kept_results.Kept, rows: Rows) -> list[kept_results.Run]:
  """Returns the trainings of the seeds that are in some rows."""
  return [
    run
    for run in kept.runs
    if is_trained(run) and run.seed in rows.get(run.row, {})
  ]


def sizes_of(settings: Mapping[str, Any]) -> tuple[int, int, int]:
  """Returns steps, pairs and width."""
  keys = "steps", "data.batch_size", "model_params.audio.width"
  return tuple(settings[key] for key in keys)


def is_trained(run: kept_results.Run) -> bool:
  """Returns whether steps of training made a run's encoder."""
  return bool(run.settings) and run.row != strategy_table.UNTRAINED
