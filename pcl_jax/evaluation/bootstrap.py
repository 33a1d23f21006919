"""Uncertainty of means, and of differences between runs."""

from collections.abc import Iterator
import dataclasses

from jaxtyping import Float, Int
import numpy as np

from pcl_jax.evaluation import task_base

_MOST_DRAWN = 1 << 22  # Items held at once; all resamples would be gigabytes.


def resample_counts(
  items: int, draws: int, seed: int = 0, *, at_once: int | None = None
) -> Iterator[Int[np.ndarray, "some items"]]:
  """Yields how often each item is in each resample, some resamples at a time.

  Args:
    items: number of items, and of those drawn each time; at least 1.
    draws: number of resamples.
    seed: seed of the resamples.
    at_once: resamples at a time, on which they do not depend; None for as many
      as 4 million counts make.
  """
  rng = np.random.default_rng(seed)
  at_once = at_once or max(1, _MOST_DRAWN // items)
  for begin in range(0, draws, at_once):
    some = min(at_once, draws - begin)
    picked = rng.integers(0, items, (some, items))
    picked += items * np.arange(some)[:, None]
    counts = np.bincount(picked.ravel(), minlength=some * items)
    yield counts.reshape(some, items)


def resampled_means(
  columns: Float[np.ndarray, "items m"],
  *,
  draws: int = 2000,
  seed: int = 0,
  groups: Int[np.ndarray, " items"] | None = None,
) -> Float[np.ndarray, "draws m"]:
  """Returns the means of bootstrap resamples, the same ones for each column.

  Args:
    columns: values of each item, [items, m]; nan where an item has none, which
      is then left out of that column's means.
    draws: number of resamples.
    seed: seed of the resamples.
    groups: number of each item's group, from 0 on; a resample draws groups, and
      all items of each. Without them, single items are drawn.

  Returns:
    Means, [draws, m]; nan where a resample has no value.
  """
  if not len(columns):
    return np.full((draws, columns.shape[1]), np.nan)
  defined = ~np.isnan(columns)
  # Relative to the least value, so that the mean of equal values is exact.
  least = np.where(defined, columns, np.inf).min(axis=0)
  least = np.where(np.isinf(least), 0.0, least)
  values = np.where(defined, columns - least, 0.0).astype(np.float64)
  drawn = len(columns) if groups is None else int(groups.max()) + 1
  out = []
  for counts in resample_counts(drawn, draws, seed):
    counts = (counts if groups is None else counts[:, groups]).astype(float)
    with np.errstate(invalid="ignore"):
      out.append(least + (counts @ values) / (counts @ defined))
  return np.concatenate(out)


def percentiles(
  draws: Float[np.ndarray, " draws"], share: float = 0.95
) -> tuple[float, float]:
  """Returns the percentile interval of resampled values; nan of nothing.

  Args:
    draws: a value of each resample; nan where a resample has none.
    share: share of the values that are in the interval.

  References:
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
  """
  draws = draws[~np.isnan(draws)]
  if not len(draws):
    return float("nan"), float("nan")
  low, high = np.quantile(draws, [(1 - share) / 2, (1 + share) / 2])
  return float(low), float(high)


def bootstrap_interval(
  values: Float[np.ndarray, " n"],
  *,
  share: float = 0.95,
  draws: int = 2000,
  seed: int = 0,
) -> tuple[float, float]:
  """Returns the percentile bootstrap interval of the mean of values, [n]."""
  means = resampled_means(values[:, None], draws=draws, seed=seed)
  return percentiles(means[:, 0], share)


def mean_metrics(
  columns: dict[str, np.ndarray], *, draws: int = 2000, seed: int = 0
) -> dict[str, task_base.Metric]:
  """Turns columns of values into metrics: their means and 95 % intervals.

  Args:
    columns: name -> value of each item, nan where it has none.
    draws: number of resamples, which all columns share.
    seed: seed of the resamples.

  Returns:
    A metric for each column; nan with 0 items where no item has a value.
  """
  table = np.stack([np.asarray(c, np.float64) for c in columns.values()], 1)
  means = resampled_means(table, draws=draws, seed=seed)
  metrics = {}
  for name, values, drawn in zip(columns, table.T, means.T, strict=True):
    values = values[~np.isnan(values)]
    value = float(values.mean()) if len(values) else float("nan")
    metrics[name] = task_base.Metric(value, *percentiles(drawn), len(values))
  return metrics


@dataclasses.dataclass(frozen=True)
class Difference:
  """How much one run differs from another in a metric.

  Attributes:
    means: mean of the first run and of the second, over the items of both.
    value: mean of second minus first; nan without items.
    low: lower end of its 95 % percentile interval.
    high: upper end of the interval.
    p: two-sided p-value: twice the smaller share of resamples on one side of
      0, counting the observed one; at least 2 / (draws + 1), and no less than
      an exact test of signs can give.
    items: number of items that both define.
  """

  means: tuple[float, float]
  value: float
  low: float
  high: float
  p: float
  items: int


def paired_differences(
  first: Float[np.ndarray, "items m"],
  second: Float[np.ndarray, "items m"],
  *,
  draws: int = 10_000,
  seed: int = 0,
) -> list[Difference]:
  """Compares two runs on the same items by the paired bootstrap.

  Items are resampled, each with the values of both runs, so that what makes an
  item hard for both does not blur their difference.

  Args:
    first: values of each item, [items, m]; nan where undefined.
    second: values of the other run.
    draws: number of resamples.
    seed: seed of the resamples.

  Returns:
    A difference for each column.

  References:
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13
    and 15.
  """
  change = second - first
  found = []
  resampled = resampled_means(change, draws=draws, seed=seed)
  for column, means in enumerate(resampled.T):
    both = ~np.isnan(change[:, column])
    if not both.any():
      nan = float("nan")
      found.append(Difference((nan, nan), nan, nan, nan, nan, 0))
      continue
    means = means[~np.isnan(means)]
    smaller = 1 + min((means <= 0).sum(), (means >= 0).sum())
    p = 2 * float(smaller) / (len(means) + 1)
    # Resamples of a few items of one sign never cross 0.
    least = 2.0 ** (1 - np.count_nonzero(change[both, column]))
    found.append(
      Difference(
        tuple(float(one[both, column].mean()) for one in (first, second)),
        float(change[both, column].mean()),
        *percentiles(means),
        p=min(max(p, least), 1.0),
        items=int(both.sum()),
      )
    )
  return found


def holm(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
  """Corrects p-values for the number of tests by Holm's method.

  Args:
    p_values: one p-value a test.

  Returns:
    Corrected p-values: if all tests below a level a are accepted, one of them
    is wrong with a probability of at most a.

  References:
    Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
  """
  order = np.argsort(p_values, kind="stable")
  factors = len(order) - np.arange(len(order))
  out = np.empty(len(order))
  out[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1.0)
  return out
