"""Tests of pcl_jax.evaluation.playlist_continuation."""

from hypothesis import strategies as st
import numpy as np
import pytest

from pcl_jax.data import catalogue as catalogues
from pcl_jax.evaluation import playlist_continuation as continuation

_seeds = st.integers(0, 2**32 - 1)
PUBLISHED = ("recall", "average_precision", "ndcg_published")


@pytest.fixture(scope="module")
def golden(request):
  path = request.path.parent / "golden" / "playlist_continuation.npz"
  with np.load(path) as file:
    return dict(file)


def _golden_problem(golden):
  rows = catalogues.find_rows(golden["song_ids"], golden["playlist_songs"])
  assert (rows >= 0).all()
  lists = catalogues.Ragged(rows.astype(np.int32), golden["playlist_ptr"])
  return continuation.pose(lists, golden["split"])


def test_lists_and_measures_are_those_of_the_published_code(golden):
  k, problem = int(golden["k"]), _golden_problem(golden)
  found, rows = [], []
  lists = continuation.continue_playlists(golden["embeddings"], problem, k)
  for i, (songs, distinct) in enumerate(lists):
    songs = songs[: continuation.published_length(distinct, k)]
    found.append(golden["song_ids"][songs])
    judged = continuation.judge(songs, problem.targets[i], k)
    rows.append([judged[name] for name in PUBLISHED])
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
