"""Tests of pcl_jax.embedding.tables.search."""

import tracemalloc

import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import ragged
from pcl_jax.embedding.tables import search
from pcl_jax.evaluation.retrieval import playlist_continuation

pytestmark = pytest.mark.usefixtures("quick_compilation")


def _by_sorting(queries, candidates, k, excluded):
  """Ranks every candidate by numpy in float64."""
  scores = queries.astype(float) @ candidates.astype(float).T
  scores /= np.linalg.norm(queries, axis=1)[:, None]
  scores /= np.linalg.norm(candidates, axis=1)[None, :]
  for row, column in enumerate(excluded):
    if column >= 0:
      scores[row, column] = -np.inf
  order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
  return order, np.take_along_axis(scores, order, axis=1)


@pytest.mark.parametrize("count", [0, 1, 300, 5000])
@pytest.mark.parametrize("k", [1, 10, 400])
def test_the_best_scores_are_those_of_a_full_sort(count, k):
  rng = np.random.default_rng(count + k)
  for scores in (rng.normal(size=count), rng.integers(0, 4, count)):
    scores = scores.astype(np.float32)
    expected = np.argsort(-scores, kind="stable")[:k]
    np.testing.assert_array_equal(search.best(scores, k), expected)


def test_one_query_finds_what_many_do_and_no_hidden_row():
  rng = np.random.default_rng(0)
  rows = rng.normal(size=(3000, 16)).astype(np.float32)
  rows[[70, 2999, 5]] = rows[1234]  # Of equal rows the lower ones come first.
  unit, hidden = search.unit(rows), np.array([1234, 17])
  found = search.nearest_rows(unit, 3 * rows[1234], 20, hidden)
  assert found.rows[:3].tolist() == [5, 70, 2999]
  assert len(set(found.scores[:3].tolist())) == 1
  cosines = unit.astype(float) @ unit[1234]
  cosines[hidden] = -np.inf
  expected = np.argsort(-cosines, kind="stable")[:20]
  np.testing.assert_allclose(found.scores, cosines[expected], atol=1e-6)
  assert sorted(found.rows.tolist()) == sorted(expected.tolist())
  most = search.nearest_rows(unit, rows[0], 5000, hidden)
  assert len(most.rows) == 2998 and not set(hidden) & set(most.rows)


@pytest.mark.parametrize(
  ("n", "m", "k", "tiles"),
  [
    (1, 40, 5, (1024, 64)),
    (7, 200, 5, (3, 16)),  # Several tiles of each kind.
    (2, 3, 7, (2, 2)),  # More are asked for than there are.
  ],
)
def test_the_nearest_are_those_of_a_full_sort(n, m, k, tiles):
  rng = np.random.default_rng(n)
  queries = rng.normal(size=(n, 8)).astype(np.float32)
  candidates = rng.normal(size=(m, 8)).astype(np.float32)
  excluded = rng.integers(-1, m, n).astype(np.int32)
  indices, scores = search.top_k(
    queries,
    candidates,
    k,
    excluded=excluded,
    query_tile=tiles[0],
    candidate_tile=tiles[1],
  )
  assert indices.shape == scores.shape == (n, k)
  expected, expected_scores = _by_sorting(queries, candidates, k, excluded)
  for row in range(n):
    # Every candidate but the excluded one can be found.
    count = min(k, m - (excluded[row] >= 0))
    np.testing.assert_array_equal(indices[row, :count], expected[row, :count])
    np.testing.assert_allclose(
      scores[row, :count], expected_scores[row, :count], atol=1e-6
    )
    assert (indices[row, count:] == search.NONE).all()
    assert np.isneginf(scores[row, count:]).all()


@pytest.mark.parametrize("candidate_tile", [24, 8192])
def test_ties_go_to_the_lower_index(candidate_tile):
  # Rows of one 1 among zeros: all cosines are exactly 0 or 1.
  axis = np.random.default_rng(0).integers(0, 4, 512)
  candidates = np.eye(4, dtype=np.float32)[axis]
  indices, scores = search.top_k(
    np.eye(4, dtype=np.float32), candidates, 3, candidate_tile=candidate_tile
  )
  for row in range(4):
    assert indices[row].tolist() == np.flatnonzero(axis == row)[:3].tolist()
  np.testing.assert_array_equal(scores, np.ones((4, 3), np.float32))


def test_the_lengths_of_rows_do_not_matter_and_none_is_near_to_zero():
  rng = np.random.default_rng(0)
  queries = rng.normal(size=(3, 8)).astype(np.float32)
  candidates = rng.normal(size=(40, 8)).astype(np.float32)
  found, scores = search.top_k(queries, candidates, 5)
  lengths = rng.uniform(0.1, 100, (40, 1)).astype(np.float32)
  again, same = search.top_k(7 * queries, lengths * candidates, 5)
  np.testing.assert_array_equal(again, found)
  np.testing.assert_allclose(same, scores, atol=1e-6)
  _, scores = search.top_k(np.zeros((1, 8), np.float32), candidates, 1)
  assert scores.tolist() == [[0.0]]


@pytest.mark.parametrize("which", ["queries", "candidates"])
def test_a_row_that_is_not_finite_is_named(which):
  rows = {
    "queries": np.ones((3, 8), np.float32),
    "candidates": np.ones((40, 8), np.float32),
  }
  rows[which][2, 5] = np.nan
  with pytest.raises(errors.InputError, match=f"row 2 of the {which}"):
    search.top_k(rows["queries"], rows["candidates"], 5)


def test_no_queries_find_nothing():
  indices, scores = search.top_k(
    np.zeros((0, 8), np.float32), np.ones((40, 8), np.float32), 5
  )
  assert indices.shape == scores.shape == (0, 5)


def test_nothing_is_found_among_no_candidates():
  indices, _ = search.top_k(
    np.ones((2, 8), np.float32), np.ones((0, 8), np.float32), 5
  )
  assert (indices == search.NONE).all()


@pytest.mark.parametrize("count", [1, 4])
def test_a_playlist_is_continued_as_evaluation_does(count):
  rng = np.random.default_rng(count)
  vectors = rng.normal(size=(300, 8)).astype(np.float32)
  members = rng.choice(300, count, replace=False)
  found = search.continue_playlist(vectors, members, 20)
  split = np.full(300, catalogues.TEST)
  split[members] = catalogues.TRAIN
  problem = playlist_continuation.Problem(
    playlists=np.zeros(1, np.int64),
    contexts=ragged.Ragged.from_lists([members.tolist()]),
    targets=ragged.Ragged.from_lists([[]]),
    candidates=np.flatnonzero(split == catalogues.TEST),
  )
  ((expected, _),) = playlist_continuation.continue_playlists(vectors, problem)
  np.testing.assert_array_equal(found.rows, expected[:20])
  assert found.lists.tolist() == sorted(found.lists.tolist(), reverse=True)
  unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  mean = (unit[found.rows] @ unit[members].T).mean(axis=1)
  np.testing.assert_allclose(found.scores, mean, rtol=1e-5)


def test_hidden_candidates_are_not_found():
  rng = np.random.default_rng(7)
  rows = rng.normal(size=(50, 8)).astype(np.float32)
  hidden = np.array([3, 16, 49])
  found, scores = search.top_k(rows, rows, 48, hidden=hidden, candidate_tile=16)
  kept = np.delete(np.arange(50), hidden)
  expected, alone = search.top_k(rows, rows[kept], 48)
  np.testing.assert_array_equal(found[:, :47], kept[expected[:, :47]])
  np.testing.assert_allclose(scores[:, :47], alone[:, :47], atol=1e-6)
  assert (found[:, 47:] == search.NONE).all()


def test_a_playlist_of_all_songs_is_continued_by_none():
  vectors = np.random.default_rng(2).normal(size=(20, 4)).astype(np.float32)
  assert not len(search.continue_playlist(vectors, np.arange(20), 5).rows)


def test_a_long_playlist_takes_memory_for_its_songs_not_for_their_square():
  vectors = np.random.default_rng(2).normal(size=(2000, 4)).astype(np.float32)
  members = np.arange(1500)
  tracemalloc.start()
  try:
    search.continue_playlist(vectors, members, 20)
    _, most = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  lists = 8 * len(members) * search.NEIGHBOURS  # An index and a cosine each.
  assert most < 4 * lists < 8 * len(members) ** 2 / 2
