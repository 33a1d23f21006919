"""Tests of pcl_jax.evaluation.audit.near_duplicates."""

import numpy as np
import pytest

from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from pcl_jax.evaluation.audit import near_duplicates
from tests.support import coded_music

pytestmark = pytest.mark.usefixtures("quick_compilation")


def _store(path, features):
  writer = song_writer.SongWriter(path)
  writer.add(
    (i, feature.astype(np.float16)) for i, feature in enumerate(features)
  )
  writer.finish({"kind": "features of a test"})
  return song_store.SongStore(path)


def test_another_encoding_of_a_learned_song_is_found(tmp_path):
  songs = [coded_music.music(i) for i in range(8)]
  songs += [
    coded_music.coded(songs[2]),
    coded_music.music(20),
    coded_music.coded(songs[5]),
  ]
  store = _store(tmp_path / "songs.lmdb", songs)
  tests, learned = np.array([8, 9, 10]), np.arange(8)
  found = near_duplicates.find(store, tests, store, learned)
  assert found.tolist() == [[8, 2], [10, 5]]
  nothing = near_duplicates.find(store, tests, store, np.zeros(0, np.int64))
  assert nothing.shape == (0, 2)


def test_pairs_of_similar_spectra_are_compared_within_a_store(tmp_path):
  songs = [coded_music.music(i) for i in range(8)]
  songs += [coded_music.coded(songs[2]), coded_music.coded(songs[5])]
  store = _store(tmp_path / "songs.lmdb", songs)
  pairs = near_duplicates.candidates(store, 2)
  assert {(2, 8), (5, 9)} <= set(map(tuple, pairs.tolist()))
  assert (pairs[:, 0] < pairs[:, 1]).all() and len(pairs) < 20
