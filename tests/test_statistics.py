"""Tests of pcl_jax.evaluation.statistics."""

import numpy as np
import pytest
from scipy import stats

from pcl_jax.evaluation import statistics


def _normal(seed: int, n: int) -> np.ndarray:
  return np.random.default_rng(seed).normal(3.0, 2.0, n)


def test_the_interval_holds_the_mean_and_is_reproducible():
  values = _normal(0, 50)
  low, high = statistics.bootstrap_interval(values)
  assert low < values.mean() < high
  assert statistics.bootstrap_interval(values) == (low, high)
  assert statistics.bootstrap_interval(values, seed=1) != (low, high)


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
  covered = 0
  for seed in range(300):
    low, high = statistics.bootstrap_interval(
      _normal(seed, 60), draws=300, share=0.9
    )
    covered += low <= 3.0 <= high
  # 270 expected; a binomial's range without one in a thousand on each side,
  # and somewhat less at the bottom, since the percentile bootstrap is narrow.
  lowest, highest = stats.binom(300, 0.9).ppf([1e-3, 1 - 1e-3])
  assert lowest - 6 <= covered <= highest


def test_the_interval_is_that_of_the_normal_approximation_for_many_values():
  values = _normal(0, 2000)
  error = values.std() / np.sqrt(len(values))
  expected = values.mean() + np.array([-1.96, 1.96]) * error
  actual = statistics.bootstrap_interval(values)
  np.testing.assert_allclose(actual, expected, atol=0.15 * error)


def test_four_times_the_values_halve_the_interval():
  widths = [
    np.diff(statistics.bootstrap_interval(_normal(0, n)))[0]
    for n in (100, 400, 1600)
  ]
  ratios = np.array(widths[:-1]) / widths[1:]
  np.testing.assert_allclose(ratios, 2.0, rtol=0.2)


def test_a_larger_share_gives_a_wider_interval_around_the_smaller():
  values = _normal(0, 50)
  outer = statistics.bootstrap_interval(values, share=0.99)
  inner = statistics.bootstrap_interval(values, share=0.5)
  assert outer[0] < inner[0] < inner[1] < outer[1]


@pytest.mark.parametrize("values", [[0.4], [0.4] * 30])
def test_equal_values_give_an_interval_of_no_width(values):
  low, high = statistics.bootstrap_interval(np.array(values))
  assert low == high == pytest.approx(0.4)


def test_the_interval_follows_a_change_of_scale():
  values = _normal(0, 40)
  low, high = statistics.bootstrap_interval(values)
  np.testing.assert_allclose(
    statistics.bootstrap_interval(10 * values + 1),
    (10 * low + 1, 10 * high + 1),
  )
