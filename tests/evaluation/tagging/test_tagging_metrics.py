"""Tests of pcl_jax.evaluation.tagging.tagging_metrics."""

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import numpy as np
import pytest
from sklearn import metrics

from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation.tagging import tagging_metrics

_SCORES = st.one_of(
  st.integers(-2, 2).map(float),  # Many ties.
  st.floats(-1e6, 1e6, width=32),
)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(2, 30), st.integers(1, 3))
def test_both_metrics_agree_with_scikit_learn_ties_included(data, songs, tags):
  shape = (songs, tags)
  scores = data.draw(hnp.arrays(np.float64, shape, elements=_SCORES))
  labels = data.draw(hnp.arrays(bool, shape))
  area, precision = tagging_metrics.by_tag(scores, labels)
  defined = tagging_metrics.both_classes(labels)
  np.testing.assert_array_equal(np.isnan(area), ~defined)
  np.testing.assert_array_equal(np.isnan(precision), ~defined)
  for tag in np.flatnonzero(defined):
    one = labels[:, tag], scores[:, tag]
    assert area[tag] == pytest.approx(metrics.roc_auc_score(*one))
    assert precision[tag] == pytest.approx(
      metrics.average_precision_score(*one)
    )


def _example(songs: int, tags: int, seeds: int = 1):
  rng = np.random.default_rng(1)
  labels = rng.random((songs, tags)) < 0.3
  scores = labels + rng.standard_normal((seeds, songs, tags)).round(1)
  return scores, labels


def test_a_resample_counts_songs_as_often_as_they_were_drawn():
  scores, labels = _example(40, 3, seeds=2)
  found = tagging_metrics.macro_draws(scores, labels, draws=7)
  (counts,) = bootstrap.resample_counts(40, 7)
  assert (counts.sum(axis=1) == 40).all()
  for draw in range(7):
    rows = np.repeat(np.arange(40), counts[draw])
    pairs = [tagging_metrics.by_tag(one[rows], labels[rows]) for one in scores]
    np.testing.assert_allclose(
      [found[0][draw], found[1][draw]], np.mean(pairs, axis=(0, 2))
    )


def test_resamples_do_not_depend_on_how_many_are_held_at_once():
  together = list(bootstrap.resample_counts(30, 20))
  apart = list(bootstrap.resample_counts(30, 20, at_once=6))
  np.testing.assert_array_equal(np.concatenate(together), np.concatenate(apart))


def test_a_tag_that_a_resample_leaves_with_one_class_is_left_out_of_it():
  labels = np.zeros((4, 2), bool)
  labels[:2, 0], labels[0, 1] = True, True  # Often the one song is not drawn.
  scores = np.arange(8.0).reshape(1, 4, 2)
  area, precision = tagging_metrics.macro_draws(scores, labels, draws=200)
  assert 0 < np.isnan(area).sum() < 100
  np.testing.assert_array_equal(np.isnan(area), np.isnan(precision))
  low, high = tagging_metrics.interval(area)
  assert 0 <= low <= high <= 1


def test_the_interval_of_a_known_share_has_the_width_of_its_distribution():
  # The area of one binary score is linear in two shares: normal for many songs.
  rng = np.random.default_rng(0)
  labels = (np.arange(4000) < 2000)[:, None]
  scores = (rng.random((1, 4000, 1)) < np.where(labels, 0.7, 0.4)) * 1.0
  area, _ = tagging_metrics.macro_draws(scores, labels, draws=300)
  rates = scores[0, :2000].mean(), scores[0, 2000:].mean()
  expected = sum(rate * (1 - rate) / 2000 / 4 for rate in rates) ** 0.5
  assert area.std() == pytest.approx(expected, rel=0.15)


def test_nothing_defined_has_no_interval_and_no_mean():
  nothing = np.full(3, np.nan)
  assert np.isnan(tagging_metrics.interval(nothing)).all()
  assert np.isnan(tagging_metrics.mean_where_defined(nothing))
