"""Tests of pcl_jax.evaluation.bootstrap."""

import numpy as np
import pytest
from scipy import stats

from pcl_jax.evaluation import bootstrap


def _normal(seed: int, n: int) -> np.ndarray:
  return np.random.default_rng(seed).normal(3.0, 2.0, n)


def test_the_interval_holds_the_mean_and_is_reproducible():
  values = _normal(0, 50)
  low, high = bootstrap.bootstrap_interval(values)
  assert low < values.mean() < high
  assert bootstrap.bootstrap_interval(values) == (low, high)
  assert bootstrap.bootstrap_interval(values, seed=1) != (low, high)


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
  covered = 0
  for seed in range(300):
    low, high = bootstrap.bootstrap_interval(
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
  actual = bootstrap.bootstrap_interval(values)
  np.testing.assert_allclose(actual, expected, atol=0.15 * error)


def test_four_times_the_values_halve_the_interval():
  widths = [
    np.diff(bootstrap.bootstrap_interval(_normal(0, n)))[0]
    for n in (100, 400, 1600)
  ]
  ratios = np.array(widths[:-1]) / widths[1:]
  np.testing.assert_allclose(ratios, 2.0, rtol=0.2)


def test_a_larger_share_gives_a_wider_interval_around_the_smaller():
  values = _normal(0, 50)
  outer = bootstrap.bootstrap_interval(values, share=0.99)
  inner = bootstrap.bootstrap_interval(values, share=0.5)
  assert outer[0] < inner[0] < inner[1] < outer[1]


@pytest.mark.parametrize("values", [[0.4], [0.4] * 30])
def test_equal_values_give_an_interval_of_no_width(values):
  low, high = bootstrap.bootstrap_interval(np.array(values))
  assert low == high == pytest.approx(0.4)


def test_the_interval_follows_a_change_of_scale():
  values = _normal(0, 40)
  low, high = bootstrap.bootstrap_interval(values)
  np.testing.assert_allclose(
    bootstrap.bootstrap_interval(10 * values + 1),
    (10 * low + 1, 10 * high + 1),
  )


def test_resamples_drawn_in_chunks_are_those_drawn_at_once(monkeypatch):
  values = _normal(0, 37)
  whole = bootstrap.resampled_means(values[:, None], draws=50)
  picked = np.random.default_rng(0).integers(0, 37, (50, 37))
  np.testing.assert_allclose(whole[:, 0], values[picked].mean(axis=1))
  monkeypatch.setattr(bootstrap, "_MOST_DRAWN", 100)
  chunked = bootstrap.resampled_means(values[:, None], draws=50)
  np.testing.assert_allclose(chunked, whole)


def test_an_undefined_value_is_left_out_of_its_column_only():
  table = np.stack([_normal(0, 30), _normal(1, 30)], axis=1)
  table[4, 1] = np.nan
  means = bootstrap.resampled_means(table, draws=20)
  picked = np.random.default_rng(0).integers(0, 30, (20, 30))
  expected = [np.nanmean(table[rows], axis=0) for rows in picked]
  np.testing.assert_allclose(means, expected)


def test_metrics_are_means_with_the_interval_of_each_column():
  columns = {"a": _normal(0, 40), "b": np.full(40, np.nan)}
  metrics = bootstrap.mean_metrics(columns)
  assert metrics["a"].value == pytest.approx(columns["a"].mean())
  assert (metrics["a"].low, metrics["a"].high) == pytest.approx(
    bootstrap.bootstrap_interval(columns["a"])
  )
  assert metrics["a"].items == 40
  assert metrics["b"].items == 0
  assert np.isnan(metrics["b"].value)
  assert bootstrap.mean_metrics({"a": np.zeros(0)})["a"].items == 0


def _compare(first, second, **options):
  (found,) = bootstrap.paired_differences(
    first[:, None], second[:, None], **options
  )
  return found


def test_the_paired_bootstrap_finds_what_lies_below_the_spread_of_items():
  first = _normal(0, 200)
  second = first + 0.1 + np.random.default_rng(1).normal(0, 0.2, 200)
  found = _compare(first, second)
  assert found.value == pytest.approx((second - first).mean())
  assert 0 < found.low < found.value < found.high
  assert found.p == pytest.approx(2 / 10_001)
  swapped = _compare(second, first)
  assert swapped.value == -found.value
  assert swapped.p == found.p


def test_the_paired_bootstrap_has_the_p_value_of_a_t_test_on_many_items():
  change = np.random.default_rng(3).normal(0.1, 1.0, 400)
  found = _compare(np.zeros(400), change)
  expected = stats.ttest_1samp(change, 0.0).pvalue
  assert found.p == pytest.approx(expected, abs=0.02)


def test_runs_that_do_not_differ_are_seldom_told_apart():
  rng = np.random.default_rng(0)
  changes = rng.normal(0.0, 1.0, (40, 300))
  found = bootstrap.paired_differences(
    np.zeros_like(changes), changes, draws=1000
  )
  p_values = np.array([one.p for one in found])
  # 15 of 300 expected at 5 %; the bootstrap of 40 items errs to the low side.
  assert 5 <= (p_values < 0.05).sum() <= stats.binom(300, 0.07).ppf(0.999)


@pytest.mark.parametrize("items", [1, 2, 3, 5, 8])
def test_few_items_of_one_sign_are_no_less_than_an_exact_test_gives(items):
  """Their resamples never cross 0, however few they are."""
  change = np.linspace(0.01, 0.1, items)
  exact = stats.binomtest(items, items).pvalue
  assert _compare(np.zeros(items), change).p == pytest.approx(exact)
  # Items that are equal, or undefined in one run, tell nothing.
  others = np.concatenate([change, [0.0, np.nan]])
  assert _compare(np.zeros(items + 2), others).p >= exact


def test_equal_runs_have_p_1_and_undefined_items_are_not_compared():
  same = _normal(0, 20)
  assert _compare(same, same).p == 1.0
  other = same + 1.0
  other[:5] = np.nan
  found = _compare(same, other)
  assert found.items == 15
  assert found.value == pytest.approx(1.0)
  nothing = _compare(same, np.full(20, np.nan))
  assert nothing.items == 0
  assert np.isnan(nothing.p)


def test_holms_correction_has_its_closed_form():
  found = bootstrap.holm(np.array([0.04, 0.01, 0.03, 0.005]))
  np.testing.assert_allclose(found, [0.06, 0.03, 0.06, 0.02])
  assert bootstrap.holm(np.array([0.7, 0.9])).tolist() == [1.0, 1.0]


def test_groups_are_drawn_whole():
  """Groups of one item are as single items; of several, all items are in."""
  values = _normal(0, 12)[:, None]
  each = bootstrap.resampled_means(values, draws=50, groups=np.arange(12))
  np.testing.assert_allclose(each, bootstrap.resampled_means(values, draws=50))
  groups = np.array([0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 0, 0])
  found = bootstrap.resampled_means(values, draws=50, groups=groups)
  picked = np.random.default_rng(0).integers(0, 4, (50, 4))
  expected = [
    np.concatenate([values[groups == one, 0] for one in rows]).mean()
    for rows in picked
  ]
  np.testing.assert_allclose(found[:, 0], expected)
