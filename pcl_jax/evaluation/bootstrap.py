"""Certainty of means, and of differences between runs."""

from collections.abc import Iterator
import math

from jaxtyping import Float, Int
import numpy as np

from pcl_jax.evaluation import task_base

_MOST_DRAWN = 1 << 22  # Items held at once; all resamples would be gigabytes.


def _counts_of_resamples(
  items: int, draws: int, seed: int
) -> Iterator[Int[np.ndarray, "some items"]]:
  """Yields how often each item stands in each resample, some at a time."""
  rng = np.random.default_rng(seed)
  at_once = max(1, _MOST_DRAWN // items)
  for begin in range(0, draws, at_once):
    some = min(at_once, draws - begin)
    picked = rng.integers(0, items, (some, items))
    picked += items * np.arange(some)[:, None]
    counts = np.bincount(picked.ravel(), minlength=some * items)
    yield counts.reshape(some, items)


def resampled_means(
  columns: Float[np.ndarray, "items m"], *, draws: int = 2000, seed: int = 0
) -> Float[np.ndarray, "draws m"]:
  """Returns the means of bootstrap resamples, the same ones for each column.

  Args:
    columns: values of each item, [items, m]; nan where an item has none, which
      is then left out of that column's means. At least one item.
    draws: number of resamples.
    seed: of the resamples.

  Returns:
    Means, [draws, m]; nan where a resample has no value.
  """
  defined = ~np.isnan(columns)
  # Taken from the least, so that equal values have a mean without rounding.
  least = np.where(defined, columns, np.inf).min(axis=0, initial=np.inf)
  least = np.where(np.isinf(least), 0.0, least)
  values = np.where(defined, columns - least, 0.0).astype(np.float64)
  out = np.empty((draws, columns.shape[1]))
  begin = 0
  for counts in _counts_of_resamples(len(columns), draws, seed):
    counts = counts.astype(np.float64)
    with np.errstate(invalid="ignore"):
      means = (counts @ values) / (counts @ defined)
    out[begin : begin + len(counts)] = least + means
    begin += len(counts)
  return out


def bootstrap_interval(
  values: Float[np.ndarray, " n"],
  *,
  share: float = 0.95,
  draws: int = 2000,
  seed: int = 0,
) -> tuple[float, float]:
  """Returns the percentile bootstrap interval of a mean.

  Args:
    values: one per query, [n]; at least one.
    share: of the bootstrapped means that lie in the interval.
    draws: number of resamples.
    seed: of the resamples.

  References:
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
  """
  means = resampled_means(values[:, None], draws=draws, seed=seed)[:, 0]
  low, high = np.nanquantile(means, [(1 - share) / 2, (1 + share) / 2])
  return float(low), float(high)


def mean_metrics(
  columns: dict[str, np.ndarray], *, draws: int = 2000, seed: int = 0
) -> dict[str, task_base.Metric]:
  """Turns columns of values into metrics: their means and 95 % intervals.

  Args:
    columns: name -> value of each item, nan where it has none.
    draws: number of resamples, which all columns share.
    seed: of the resamples.

  Returns:
    A metric for each column; nan with 0 items where no item has a value.
  """
  table = np.stack([np.asarray(c, np.float64) for c in columns.values()], 1)
  counts = (~np.isnan(table)).sum(axis=0).tolist()
  metrics = {}
  means = np.zeros((1, len(columns)))
  if len(table):
    means = resampled_means(table, draws=draws, seed=seed)
  for i, name in enumerate(columns):
    if not counts[i]:
      metrics[name] = task_base.Metric(math.nan, math.nan, math.nan, 0)
      continue
    low, high = np.nanquantile(means[:, i], [0.025, 0.975])
    value = float(np.nanmean(table[:, i]))
    metrics[name] = task_base.Metric(value, float(low), float(high), counts[i])
  return metrics


def paired_difference(
  first: Float[np.ndarray, "items m"],
  second: Float[np.ndarray, "items m"],
  *,
  draws: int = 10_000,
  seed: int = 0,
) -> dict[str, Float[np.ndarray, " m"]]:
  """Compares two runs on the same items by the paired bootstrap.

  Items are resampled, each with the values of both runs, so that what makes an
  item hard for both does not blur their difference.

  Args:
    first: values of each item, [items, m]; nan where undefined.
    second: the same of the other run.
    draws: number of resamples.
    seed: of the resamples.

  Returns:
    `difference` (mean of second minus first over the items that both define),
    `low` and `high` (95 % percentile interval), `p` (two-sided: twice the
    smaller share of resamples on one side of 0, counting the observed one; at
    least 2 / (draws + 1)) and `items`; nan where no item is defined in both.

  References:
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13
    and 15.
  """
  change = second - first
  items = (~np.isnan(change)).sum(axis=0)
  out = {
    name: np.full(change.shape[1], np.nan)
    for name in ("difference", "low", "high", "p")
  }
  some = items > 0
  if some.any():
    kept = change[:, some]
    means = resampled_means(kept, draws=draws, seed=seed)
    out["difference"][some] = np.nanmean(kept, axis=0)
    low, high = np.nanquantile(means, [0.025, 0.975], axis=0)
    out["low"][some], out["high"][some] = low, high
    below = (means <= 0).sum(axis=0) + 1
    above = (means >= 0).sum(axis=0) + 1
    smaller = np.minimum(below, above) / (draws + 1)
    out["p"][some] = np.minimum(2 * smaller, 1.0)
  return out | {"items": items}


def holm(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
  """Corrects p-values for the number of tests by Holm's method.

  Args:
    p_values: one a test; nan where there was none, which does not count.

  Returns:
    Corrected p-values: below a level a, all that stay below it are wrong in
    one of their tests with probability a at most.

  References:
    Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
  """
  out = np.full(len(p_values), np.nan)
  tested = np.flatnonzero(~np.isnan(p_values))
  order = tested[np.argsort(p_values[tested], kind="stable")]
  factors = len(order) - np.arange(len(order))
  out[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1.0)
  return out
