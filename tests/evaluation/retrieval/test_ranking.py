"""Tests of pcl_jax.evaluation.retrieval and relevance."""

import itertools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
import scipy.sparse
from sklearn import metrics
from sklearn.metrics import pairwise

from pcl_jax.data import ragged
from pcl_jax.evaluation.retrieval import ranking
from pcl_jax.evaluation.retrieval import relevance

pytestmark = pytest.mark.usefixtures("quick_compilation")

_seeds = st.integers(0, 2**32 - 1)
_quick = settings(deadline=None, max_examples=15)


def _problem(seed: int, queries: int = 4, candidates: int = 14):
  """Draws scores with ties, what is relevant, and what is hidden."""
  rng = np.random.default_rng(seed)
  shape = (queries, candidates)
  return (
    (rng.integers(-3, 4, shape) / 4).astype(np.float32),
    rng.random(shape) < 0.3,
    rng.random(shape) < 0.2,
  )


def _measure(scores, relevant, hidden):
  keys = ranking.sorting_keys(scores.astype(np.float32))
  ranks = ranking.rank_tile(
    keys,
    np.sort(keys, axis=1),
    scipy.sparse.csr_array((relevant & ~hidden).astype(np.int32)),
    scipy.sparse.csr_array(hidden.astype(np.int32)),
  )
  return ranking.measures_of(ranks)


def _ranking(scores, hidden) -> list[int]:
  """Ranks the candidates of one query by hand, ties by their place."""
  places = [c for c in range(len(scores)) if not hidden[c]]
  return sorted(places, key=lambda c: (-scores[c], c))


def _by_hand(hits: list[bool]) -> dict[str, float]:
  """Computes every measure of one ranking from its definition."""
  total = sum(hits)
  places = [place for place, hit in enumerate(hits, 1) if hit]
  precisions = [sum(hits[:place]) / place for place in places]
  gain = sum(1 / np.log2(1 + place) for place in places if place <= 10)
  ideal = sum(1 / np.log2(1 + place) for place in range(1, min(total, 10) + 1))
  return {
    "average_precision": np.mean(precisions),
    "precision_at_5": sum(hits[:5]) / 5,
    "r_precision": sum(hits[:total]) / total,
    "recall_at_1": sum(hits[:1]) / total,
    "recall_at_5": sum(hits[:5]) / total,
    "recall_at_10": sum(hits[:10]) / total,
    "ndcg_at_10": gain / ideal,
    "reciprocal_rank": 1 / places[0],
  }


@_quick
@given(_seeds)
def test_measures_are_their_definitions_with_ties_ranked_by_place(seed):
  scores, relevant, hidden = _problem(seed)
  found = _measure(scores, relevant, hidden)
  assert tuple(found) == ranking.MEASURES
  for q in range(len(scores)):
    hits = [bool(relevant[q, c]) for c in _ranking(scores[q], hidden[q])]
    for name, values in found.items():
      if any(hits):
        assert values[q] == pytest.approx(_by_hand(hits)[name]), name
      else:
        assert np.isnan(values[q])


@_quick
@given(_seeds)
def test_measures_are_scikit_learns_where_scores_are_distinct(seed):
  _, relevant, hidden = _problem(seed, candidates=20)
  scores = np.random.default_rng(seed).permuted(
    np.tile(np.linspace(-1, 1, 20), (4, 1)), axis=1
  )
  found = _measure(scores, relevant, hidden)
  for q in range(len(scores)):
    kept = ~hidden[q]
    if not (relevant[q] & kept).any():
      assert np.isnan(found["average_precision"][q])
      continue
    truth, mine = relevant[q, kept], scores[q, kept]
    expected = metrics.average_precision_score(truth, mine)
    assert found["average_precision"][q] == pytest.approx(expected)
    expected = metrics.ndcg_score(truth[None], mine[None], k=10)
    assert found["ndcg_at_10"][q] == pytest.approx(expected)


@_quick
@given(_seeds)
def test_what_is_hidden_changes_nothing_however_near_or_relevant(seed):
  scores, relevant, hidden = _problem(seed)
  expected = _measure(scores, relevant & ~hidden, hidden)
  nearest = np.where(hidden, np.float32(9), scores)
  for relevant_too in (relevant & ~hidden, relevant | hidden):
    found = _measure(nearest, relevant_too, hidden)
    for name in found:
      np.testing.assert_array_equal(found[name], expected[name])


def test_a_perfect_and_the_worst_ranking_have_their_closed_forms():
  scores = np.array([[4.0, 3.0, 2.0, 1.0]])
  nothing = np.zeros((1, 4), bool)
  first = np.array([[True, True, False, False]])
  best = _measure(scores, first, nothing)
  for name in ("average_precision", "r_precision", "ndcg_at_10"):
    assert best[name] == 1.0
  worst = _measure(scores, ~first, nothing)
  assert worst["average_precision"] == pytest.approx((1 / 3 + 2 / 4) / 2)
  assert worst["r_precision"] == 0.0
  assert worst["reciprocal_rank"] == pytest.approx(1 / 3)


@_quick
@given(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=12))
def test_keys_sort_as_scores_do_best_first_and_ties_by_place(scores):
  keys = ranking.sorting_keys(np.array([scores], np.float32))
  expected = sorted(range(len(scores)), key=lambda c: (-scores[c], c))
  np.testing.assert_array_equal(np.argsort(keys[0]), expected)


def _songs_with(artists: list[list[int]]) -> relevance.Relevance:
  return relevance.Relevance.of(ragged.Ragged.from_lists(artists))


def _example(songs: int = 23):
  rng = np.random.default_rng(0)
  rows = rng.standard_normal((songs, 6))
  artists = [[int(rng.integers(4))] for _ in range(songs)]
  queries = np.sort(rng.choice(songs, 17, replace=False))
  return rows, queries, {"artist": _songs_with(artists)}, artists


def test_measures_of_embeddings_are_those_of_their_cosines():
  rows, queries, rules, artists = _example()
  found, _, nearest = ranking.measure(rows, queries, queries, rules)
  scores = pairwise.cosine_similarity(rows[queries])
  itself = np.eye(len(queries), dtype=bool)
  mine = np.array(artists)[queries]
  expected = _measure(scores, mine == mine.T, itself)
  for name, values in found["artist"].items():
    np.testing.assert_allclose(values, expected[name], rtol=1e-6)
  for q in range(len(queries)):
    expected = _ranking(scores[q], itself[q])[: ranking.NEAREST]
    np.testing.assert_array_equal(nearest[q], expected)


def test_tiles_change_nothing():
  rows, queries, rules, _ = _example()
  whole, _, nearest = ranking.measure(rows, queries, queries, rules)
  tiles, _, same = ranking.measure(
    rows, queries, queries, rules, tile_bytes=24 * 17 * 3
  )
  np.testing.assert_array_equal(nearest, same)
  for name, values in whole["artist"].items():
    np.testing.assert_array_equal(tiles["artist"][name], values)


def test_a_scale_of_the_embeddings_changes_nothing_and_zeros_are_no_trouble():
  rows, queries, rules, _ = _example()
  rows[3] = 0.0
  found = ranking.measure(rows, queries, queries, rules).columns
  scaled = ranking.measure(8 * rows, queries, queries, rules).columns
  for name, values in found["artist"].items():
    np.testing.assert_allclose(scaled["artist"][name], values)


def test_chance_is_the_mean_over_all_orders_of_the_candidates():
  cases = [(r, n) for n in (1, 2, 3, 6, 7) for r in range(1, n + 1)]
  relevant, candidates = np.array([*cases, (0, 4)]).T
  found = ranking.chance(relevant, candidates)
  for i, (r, n) in enumerate(cases):
    places = list(itertools.combinations(range(1, n + 1), r))
    every = ranking.measures_of([np.array(one) for one in places])
    for name, values in found.items():
      assert values[i] == pytest.approx(every[name].mean(), rel=1e-12), name
  assert all(np.isnan(values[-1]) for values in found.values())


def test_chance_counts_each_querys_own_candidates():
  rows, queries, rules, artists = _example()
  hiding = ragged.Ragged.from_lists([[i % 5] for i in range(len(rows))])
  lists = ragged.Ragged.from_lists(artists)
  rules = {"other": relevance.Relevance.of(lists, hiding=hiding)}
  found = ranking.measure(rows, queries, queries, rules).by_chance["other"]
  for q, query in enumerate(queries):
    left = [s for s in queries if s != query and s % 5 != query % 5]
    alike = sum(artists[s] == artists[query] for s in left)
    share = alike / len(left) if alike else np.nan
    np.testing.assert_allclose(found["r_precision"][q], share)


def test_few_candidates_give_short_lists_without_the_query():
  rows = np.eye(4)
  songs = np.arange(4)
  nearest = ranking.measure(rows, songs, songs, {}).nearest
  assert nearest.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]


@_quick
@given(
  st.lists(st.sets(st.integers(0, 9), max_size=4), min_size=1, max_size=8),
  st.integers(1, 2),
)
def test_songs_are_relevant_where_their_sets_meet_but_not_to_themselves(
  sets, least
):
  lists = ragged.Ragged.from_lists([sorted(one) for one in sets])
  rule = relevance.Relevance.of(lists, at_least=least)
  queries = np.arange(0, len(sets), 2)
  candidates = np.arange(len(sets))[::-1].copy()
  relevant, hidden = rule.pairs(queries, candidates)
  expected = [[q != c and len(sets[q] & sets[c]) >= least for c in candidates]
              for q in queries]  # fmt: skip
  np.testing.assert_array_equal(relevant.toarray() > 0, expected)
  np.testing.assert_array_equal(
    hidden.toarray() > 0, queries[:, None] == candidates[None, :]
  )


def test_songs_of_the_same_album_are_hidden_where_asked_for():
  artists = ragged.Ragged.from_lists([[0], [0], [0], [1]])
  albums = ragged.Ragged.from_lists([[5], [5], [6], [5]])
  rule = relevance.Relevance.of(artists, hiding=albums)
  relevant, hidden = rule.pairs(np.arange(4), np.arange(4))
  assert relevant.toarray()[0].tolist() == [0, 0, 1, 0]
  assert (hidden.toarray()[0] > 0).tolist() == [True, True, False, True]


def test_values_of_more_songs_than_allowed_are_dropped():
  lists = ragged.Ragged.from_lists([[0, 1], [1], [1, 2], []])
  found = relevance.without_large(lists, 2)
  assert [found[i].tolist() for i in range(4)] == [[0], [], [2], []]
