"""Certainty of a mean."""

from jaxtyping import Float
import numpy as np


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
  rng = np.random.default_rng(seed)
  picked = rng.integers(0, len(values), (draws, len(values)))
  means = values[picked].mean(axis=1)
  low, high = np.quantile(means, [(1 - share) / 2, (1 + share) / 2])
  return float(low), float(high)
