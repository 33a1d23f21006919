"""Tests of pcl_jax.evaluation.retrieval.playlist_continuation."""

import tracemalloc

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
from sklearn import metrics

from pcl_jax.data import catalogues
from pcl_jax.data import ragged
from pcl_jax.evaluation.retrieval import playlist_continuation

pytestmark = pytest.mark.usefixtures("quick_compilation")

_seeds = st.integers(0, 2**32 - 1)
_quick = settings(deadline=None, max_examples=10)
PUBLISHED = ("recall", "average_precision", "ndcg_published")


@pytest.fixture
def golden(golden_dir):
  with np.load(golden_dir / "playlist_continuation.npz") as file:
    return dict(file)


def _golden_problem(golden):
  rows = catalogues.find_rows(golden["song_ids"], golden["playlist_songs"])
  assert (rows >= 0).all()
  lists = ragged.Ragged(rows.astype(np.int32), golden["playlist_ptr"])
  return playlist_continuation.split_playlists(lists, golden["split"])


def test_lists_and_measures_are_those_of_the_published_code(golden):
  k, problem = int(golden["k"]), _golden_problem(golden)
  found, rows = [], []
  lists = playlist_continuation.continue_playlists(
    golden["embeddings"], problem, k
  )
  for i, (songs, distinct) in enumerate(lists):
    songs = songs[: playlist_continuation.published_length(distinct, k)]
    found.append(golden["song_ids"][songs])
    scored = playlist_continuation.score(songs, problem.targets[i], k)
    rows.append([scored[name] for name in PUBLISHED])
  assert len(found) == len(golden["top_ptr"]) - 1
  np.testing.assert_array_equal(
    np.cumsum([0, *map(len, found)]), golden["top_ptr"]
  )
  np.testing.assert_array_equal(np.concatenate(found), golden["top_lists"])
  np.testing.assert_allclose(
    rows, golden["per_playlist_recall_ap_ndcgref"], rtol=1e-9
  )
  np.testing.assert_allclose(
    np.mean(rows, axis=0), golden["mean_recall_map_ndcgref"], rtol=1e-9
  )


def _random_problem(seed: int, songs: int = 30, playlists: int = 12):
  rng = np.random.default_rng(seed)
  split = rng.integers(0, 3, songs).astype(np.int8)
  split[:3] = [0, 1, 2]
  lists = ragged.Ragged.from_lists(
    [
      rng.choice(songs, int(rng.integers(1, 9)), replace=False).tolist()
      for _ in range(playlists - 1)
    ]
    + [[0, 1, 2]]
  )
  return rng.standard_normal((songs, 5)), split, lists


@_quick
@given(_seeds)
def test_context_and_targets_part_each_playlist(seed):
  _, split, lists = _random_problem(seed)
  problem = playlist_continuation.split_playlists(lists, split)
  np.testing.assert_array_equal(problem.candidates, np.flatnonzero(split == 2))
  kept = 0
  for i in range(len(lists)):
    songs = lists[i]
    context, targets = songs[split[songs] < 2], songs[split[songs] == 2]
    if len(context) and len(targets):
      assert problem.playlists[kept] == i
      np.testing.assert_array_equal(problem.contexts[kept], context)
      np.testing.assert_array_equal(problem.targets[kept], targets)
      kept += 1
  assert kept == len(problem.playlists)


def _continue_by_hand(rows, context, candidates, k):
  """Votes and mean cosines of one playlist, song by song."""
  unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
  votes = dict.fromkeys(candidates.tolist(), 0)
  for song in context:
    order = np.argsort(-(unit[candidates] @ unit[song]), kind="stable")
    for other in candidates[order[:k]].tolist():
      votes[other] += 1
  mean = unit[context].mean(axis=0)
  found = [song for song in votes if votes[song]]
  found.sort(key=lambda song: (-votes[song], -float(unit[song] @ mean)))
  return found[:k], len(found)


@pytest.mark.parametrize("k", [1, 4, 12])  # Each compiles its own shapes.
def test_a_continuation_ranks_by_votes_then_by_mean_cosine(k):
  rows, split, lists = _random_problem(k)
  problem = playlist_continuation.split_playlists(lists, split)
  found = playlist_continuation.continue_playlists(rows, problem, k)
  for i, (songs, distinct) in enumerate(found):
    expected = _continue_by_hand(
      rows, problem.contexts[i], problem.candidates, k
    )
    assert (songs.tolist(), distinct) == expected


def test_context_songs_are_taken_some_at_a_time(monkeypatch):
  rng = np.random.default_rng(0)
  rows = rng.standard_normal((2000, 256), np.float32)
  split = np.full(2000, catalogues.TRAIN, np.int8)
  split[:40] = catalogues.TEST
  lists = ragged.Ragged.from_lists([[1, 50, 60], [0, *range(40, 2000)]])
  problem = playlist_continuation.split_playlists(lists, split)
  expected = list(playlist_continuation.continue_playlists(rows, problem, 4))
  monkeypatch.setattr(
    playlist_continuation, "_MOST_AT_ONCE", 200, raising=False
  )
  tracemalloc.start()
  found = playlist_continuation.continue_playlists(rows, problem, 4)
  first = next(found)
  most = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert most < rows.nbytes
  for one, other in zip([first, *found], expected, strict=True):
    np.testing.assert_array_equal(one[0], other[0])
    assert one[1] == other[1]


@_quick
@given(_seeds, st.integers(1, 8))
def test_ndcg_is_the_usual_one_and_the_published_one_knows_only_hits(seed, k):
  rng = np.random.default_rng(seed)
  songs = rng.permutation(20)
  targets = rng.choice(20, int(rng.integers(1, 10)), replace=False)
  found = playlist_continuation.score(songs[:k], targets, k)
  relevance = np.isin(songs, targets)[None].astype(float)
  scores = np.arange(20, 0, -1.0)[None]
  assert found["ndcg"] == pytest.approx(
    metrics.ndcg_score(relevance, scores, k=k)
  )
  if k > 1:
    assert found["ndcg_published"] == pytest.approx(
      metrics.ndcg_score(relevance[:, :k], scores[:, :k])
    )


def test_one_hit_of_ten_at_the_top_is_1_as_published_and_22_percent_as_usual():
  found = playlist_continuation.score(
    np.arange(100), np.arange(0, 1000, 100), 100
  )
  assert found["ndcg_published"] == 1.0
  assert found["ndcg"] == pytest.approx(0.22, abs=0.005)
  assert found["recall"] == found["r_precision"] == 0.1
  assert found["average_precision"] == pytest.approx(0.1)


def test_the_published_list_is_one_short_where_songs_run_out():
  assert playlist_continuation.published_length(101) == 100
  assert playlist_continuation.published_length(100) == 99
  assert playlist_continuation.published_length(3, k=5) == 2


@_quick
@given(_seeds, st.integers(1, 8))
def test_popularity_does_not_count_the_playlist_in_question(seed, k):
  _, split, lists = _random_problem(seed)
  problem = playlist_continuation.split_playlists(lists, split)
  counts = np.bincount(lists.values, minlength=len(split))
  found = playlist_continuation.by_popularity(problem, counts, k)
  for i, (songs, _) in enumerate(found):
    others = [lists[j] for j in range(len(lists)) if j != problem.playlists[i]]
    mine = np.bincount(np.concatenate(others), minlength=len(split))
    expected = sorted(
      problem.candidates.tolist(), key=lambda song: (-mine[song], song)
    )
    assert songs.tolist() == expected[:k]


def test_random_continuations_find_the_share_that_they_draw():
  songs, k = 400, 40
  split = np.full(songs, catalogues.TEST, np.int8)
  split[:10] = catalogues.TRAIN
  rng = np.random.default_rng(0)
  lists = ragged.Ragged.from_lists(
    [[0, *rng.choice(np.arange(10, songs), 20, replace=False).tolist()]
     for _ in range(300)]
  )  # fmt: skip
  problem = playlist_continuation.split_playlists(lists, split)
  counts = np.bincount(lists.values, minlength=songs)
  drawn = playlist_continuation.at_random(problem, np.random.default_rng(0), k)
  table = playlist_continuation.score_playlists(problem, drawn, counts, k)
  # 40 of 390 candidates; 6000 targets, so a standard error of 0.004.
  assert table["recall"].mean() == pytest.approx(40 / 390, abs=0.016)


def test_bands_part_the_playlists_and_their_targets():
  rows, split, lists = _random_problem(1, playlists=40)
  problem = playlist_continuation.split_playlists(lists, split)
  counts = np.bincount(lists.values, minlength=len(split))
  found = playlist_continuation.continue_playlists(rows, problem, 4)
  table = playlist_continuation.score_playlists(problem, found, counts, 4)
  contexts = [name for name in table if name.startswith("recall_context_")]
  assert contexts == [
    f"recall_context_{band}" for band in ("1-5", "6-20", "21-50", "51+")
  ]
  within = np.stack([table[name] for name in contexts])
  assert ((~np.isnan(within)).sum(axis=0) == 1).all()
  np.testing.assert_array_equal(np.nansum(within, axis=0), table["recall"])
  bands = {"0": (0, 0), "1-5": (1, 5), "6-20": (6, 20), "21+": (21, 10**9)}
  lists_found = list(playlist_continuation.continue_playlists(rows, problem, 4))
  for band, (low, high) in bands.items():
    for i, value in enumerate(table[f"recall_popularity_{band}"]):
      targets = problem.targets[i]
      others = counts[targets] - 1
      mine = targets[(others >= low) & (others <= high)]
      if len(mine):
        assert value == np.isin(mine, lists_found[i][0]).mean()
      else:
        assert np.isnan(value)
