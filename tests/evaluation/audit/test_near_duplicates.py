"""Tests of pcl_jax.evaluation.audit.near_duplicates."""

import numpy as np
import pytest

from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from pcl_jax.evaluation.audit import near_duplicates

pytestmark = pytest.mark.usefixtures("quick_compilation")


def _music(seed: int, frames: int = 600) -> np.ndarray:
  """A feature whose bands rise and fall, with a spectrum of its own."""
  rng = np.random.default_rng(seed)
  steps = rng.standard_normal((frames, 48)) + rng.standard_normal((frames, 1))
  smooth = np.apply_along_axis(np.convolve, 0, steps, np.ones(9) / 9, "same")
  return 2 + rng.uniform(0, 1, 48) + smooth


def _coded(feature: np.ndarray) -> np.ndarray:
  """The same music, cut, quieter, with other bands and the noise of a codec."""
  rng = np.random.default_rng(99)
  noise = 0.05 * rng.standard_normal(feature[37:].shape)
  return feature[37:] - 0.4 + rng.uniform(-0.2, 0.2, 48) + noise


def _store(path, features):
  writer = song_writer.SongWriter(path)
  writer.add(
    (i, feature.astype(np.float16)) for i, feature in enumerate(features)
  )
  writer.finish({"kind": "features of a test"})
  return song_store.SongStore(path)


def test_one_recording_correlates_whatever_its_cut_and_level_are():
  first, other = _music(0), _music(1)
  assert near_duplicates.correlation(first, first) == pytest.approx(1)
  for one, two in ((first, _coded(first)), (_coded(first), first)):
    assert near_duplicates.correlation(one, two) > 0.97
  assert near_duplicates.correlation(first, other) < 0.5
  assert near_duplicates.correlation(first, np.ones((600, 48))) == 0.0
  # The end of one song is the beginning of another: no near duplicate.
  long = np.concatenate([first[-100:], other])
  assert near_duplicates.correlation(first, long) < 0.5


def test_another_encoding_of_a_learned_song_is_found(tmp_path):
  songs = [_music(i) for i in range(8)]
  songs += [_coded(songs[2]), _music(20), _coded(songs[5])]
  store = _store(tmp_path / "songs.lmdb", songs)
  tests, learned = np.array([8, 9, 10]), np.arange(8)
  found = near_duplicates.find(store, tests, store, learned)
  assert found.tolist() == [[8, 2], [10, 5]]
  nothing = near_duplicates.find(store, tests, store, np.zeros(0, np.int64))
  assert nothing.shape == (0, 2)
