"""Tests of pcl_jax.evaluation.retrieval."""

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
from sklearn import metrics
from sklearn.metrics import pairwise

from pcl_jax.data import catalogue as catalogues
from pcl_jax.evaluation import retrieval

_seeds = st.integers(0, 2**32 - 1)


def _problem(seed: int, queries: int = 4, candidates: int = 12):
  """Draws scores with ties, what is relevant, and what is excluded."""
  rng = np.random.default_rng(seed)
  shape = (queries, candidates)
  return (
    rng.integers(-3, 4, shape) / 4,
    rng.random(shape) < 0.3,
    rng.random(shape) < 0.2,
  )


def _ranking(scores, excluded) -> list[int]:
  """Ranks the candidates of one query by hand, ties by their place."""
  places = [c for c in range(len(scores)) if not excluded[c]]
  return sorted(places, key=lambda c: (-scores[c], c))


@settings(deadline=None)
@given(_seeds, st.integers(1, 5))
def test_precision_is_the_share_of_relevant_ones_among_the_k_best(seed, k):
  scores, relevant, excluded = _problem(seed)
  excluded[:, :5] = False  # So that k candidates are left.
  found = retrieval.precision_at(k, scores, relevant, excluded)
  for q in range(len(scores)):
    best = _ranking(scores[q], excluded[q])[:k]
    if (relevant[q] & ~excluded[q]).any():
      assert found[q] == pytest.approx(np.mean([relevant[q, c] for c in best]))
    else:
      assert np.isnan(found[q])


@settings(deadline=None)
@given(_seeds)
def test_average_precision_is_scikit_learns_where_scores_are_distinct(seed):
  _, relevant, excluded = _problem(seed, candidates=20)
  scores = np.random.default_rng(seed).permuted(
    np.tile(np.linspace(-1, 1, 20), (4, 1)), axis=1
  )
  found = retrieval.average_precision(scores, relevant, excluded)
  for q in range(len(scores)):
    kept = ~excluded[q]
    if not (relevant[q] & kept).any():
      assert np.isnan(found[q])
      continue
    expected = metrics.average_precision_score(
      relevant[q, kept], scores[q, kept]
    )
    assert found[q] == pytest.approx(expected)


@settings(deadline=None)
@given(_seeds)
def test_average_precision_ranks_ties_by_their_place(seed):
  scores, relevant, excluded = _problem(seed)
  found = retrieval.average_precision(scores, relevant, excluded)
  for q in range(len(scores)):
    hits = [relevant[q, c] for c in _ranking(scores[q], excluded[q])]
    precisions = [
      np.mean(hits[: rank + 1]) for rank, hit in enumerate(hits) if hit
    ]
    if precisions:
      assert found[q] == pytest.approx(np.mean(precisions))
    else:
      assert np.isnan(found[q])


@settings(deadline=None)
@given(_seeds)
def test_what_is_excluded_changes_nothing_however_near_or_relevant(seed):
  scores, relevant, excluded = _problem(seed)
  nearest = np.where(excluded, 9.0, scores)
  for relevant_too in (relevant & ~excluded, relevant | excluded):
    for measure in (
      retrieval.average_precision,
      lambda *args: retrieval.precision_at(2, *args),
    ):
      np.testing.assert_array_equal(
        measure(nearest, relevant_too, excluded),
        measure(scores, relevant & ~excluded, excluded),
      )


def test_a_perfect_and_the_worst_ranking_have_their_closed_forms():
  scores = np.array([[4.0, 3.0, 2.0, 1.0]])
  nothing = np.zeros((1, 4), bool)
  first = np.array([[True, True, False, False]])
  assert retrieval.average_precision(scores, first, nothing) == 1.0
  assert retrieval.precision_at(2, scores, first, nothing) == 1.0
  assert retrieval.average_precision(scores, ~first, nothing) == (
    pytest.approx((1 / 3 + 2 / 4) / 2)
  )
  assert retrieval.precision_at(2, scores, ~first, nothing) == 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cosines_are_scikit_learns(dtype):
  rng = np.random.default_rng(0)
  a, b = rng.random((3, 5)).astype(dtype), rng.random((4, 5)).astype(dtype)
  np.testing.assert_allclose(
    retrieval.cosines(a, b), pairwise.cosine_similarity(a, b), rtol=1e-6
  )


def test_the_cosine_with_a_row_of_zeros_is_0():
  a = np.array([[0.0, 0.0], [1.0, 0.0]])
  np.testing.assert_array_equal(retrieval.cosines(a, a), [[0, 0], [0, 1]])


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 9), max_size=4), min_size=1, max_size=8))
def test_songs_are_relevant_where_their_sets_meet_but_not_to_themselves(sets):
  lists = catalogues.Ragged.from_lists([sorted(one) for one in sets])
  queries = np.arange(0, len(sets), 2)
  candidates = np.arange(len(sets))[::-1]
  found = retrieval.share_a_value(lists, queries, candidates)
  expected = [[q != c and bool(sets[q] & sets[c]) for c in candidates]
              for q in queries]  # fmt: skip
  np.testing.assert_array_equal(found, expected)
