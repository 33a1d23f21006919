"""Tests of pcl_jax.evaluation.mel_baselines."""

import numpy as np

from pcl_jax.evaluation import mel_baselines
from tests.support.tiny import tiny_data

SONGS = np.array([7, 0, 30, 30], np.int32)


def test_mean_and_standard_deviation_of_the_mel_stand_side_by_side(tmp_path):
  catalogue = tiny_data.tiny_catalogue()
  store = tiny_data.tiny_store(tmp_path / "songs.lmdb", catalogue, (100, 400))
  songs = [store.read_song(song).astype(np.float64) for song in SONGS.tolist()]
  means = mel_baselines.mean_mel(store, SONGS)
  assert means.dtype == np.float32
  np.testing.assert_allclose(
    means, [one.mean(axis=0) for one in songs], rtol=1e-6
  )
  found = mel_baselines.mean_std_mel(store, SONGS)
  assert found.shape == (4, 96)
  np.testing.assert_array_equal(found[:, :48], means)
  np.testing.assert_allclose(
    found[:, 48:], [one.std(axis=0) for one in songs], rtol=1e-6
  )


def test_a_song_is_read_once_for_all_who_ask(tmp_path, monkeypatch):
  catalogue = tiny_data.tiny_catalogue()
  store = tiny_data.tiny_store(tmp_path / "songs.lmdb", catalogue, 100)
  read, asked = store.read_song, []
  monkeypatch.setattr(store, "read_song", lambda i: asked.append(i) or read(i))
  mel_baselines.mean_mel(store, SONGS)
  both = mel_baselines.mean_std_mel(store, np.arange(40))
  assert sorted(asked) == list(range(40))
  changed = both.copy()
  both += 1  # Of no consequence for others.
  found = mel_baselines.mean_std_mel(store, np.arange(40))
  np.testing.assert_array_equal(found, changed)
