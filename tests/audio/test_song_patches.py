"""Tests of pcl_jax.audio.song_patches."""

import itertools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np

from pcl_jax.audio import melspectrogram
from pcl_jax.audio import song_patches


def _song(frames: int, seed: int = 0) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.standard_normal((frames, 48)).astype(np.float16)


@settings(deadline=None)
@given(st.integers(1, 1100), st.lists(st.integers(1, 400), max_size=8))
def test_patches_do_not_depend_on_the_blocks_a_song_comes_in(frames, cuts):
  song = _song(frames)
  pieces = list(song_patches.whole_patches(np.split(song, np.cumsum(cuts))))
  patches = np.concatenate([piece.patches for piece in pieces])
  if frames < 256:
    assert [piece.padded for piece in pieces] == [True]
    np.testing.assert_array_equal(patches[0, :frames], song)
    assert (patches[0, frames:] == melspectrogram.SILENCE).all()
  else:
    assert not any(piece.padded for piece in pieces)
    whole = song[: frames // 256 * 256].reshape(-1, 256, 48)
    np.testing.assert_array_equal(patches, whole)


@settings(deadline=None)
@given(st.lists(st.integers(1, 2000), max_size=6))
def test_whole_patches_are_laid_end_to_end_and_a_short_song_has_one(frames):
  owners, starts = song_patches.patch_grid(np.array(frames, np.int32))
  expected = [
    (song, start)
    for song, length in enumerate(frames)
    for start in range(0, max(length - 255, 1), 256)
  ]
  assert list(zip(owners.tolist(), starts.tolist(), strict=True)) == expected


@settings(deadline=None)
@given(st.lists(st.integers(1, 7), max_size=6), st.integers(1, 5))
def test_batches_hold_all_patches_in_order_and_have_one_shape(counts, size):
  pieces = [
    (owner, np.full((count, 256, 48), owner, np.float16))
    for owner, count in enumerate(counts)
  ]
  batches = list(song_patches.gathered(pieces, size))
  found = [owner for batch in batches for owner in batch.song_index.tolist()]
  assert found == [i for i, count in enumerate(counts) for _ in range(count)]
  for batch in batches:
    assert batch.patches.shape == (size, 256, 48)
    count = len(batch.song_index)
    assert count == size or batch is batches[-1]
    np.testing.assert_array_equal(batch.patches[:count, 7, 7], batch.song_index)
    assert (batch.patches[count:] == melspectrogram.SILENCE).all()


def test_a_song_without_an_end_is_never_held():
  blocks = itertools.repeat(_song(100))
  pieces = ((0, one.patches) for one in song_patches.whole_patches(blocks))
  batches = song_patches.gathered(pieces, 3)
  vectors = song_patches.encoded(lambda patches: patches[:, 0], batches)
  owners, found = next(vectors)
  assert owners.tolist() == [0, 0, 0]
  np.testing.assert_array_equal(found[0], _song(100)[0])


def test_the_next_batch_is_sent_before_the_last_is_waited_for():
  events = []

  class Vectors:
    def __init__(self, number):
      self._number = number

    def __array__(self, dtype=None, copy=None):
      events.append(f"wait {self._number}")
      return np.zeros((2, 1), np.float32)

  def embedder(patches):
    number = int(patches[0, 0, 0])
    events.append(f"send {number}")
    return Vectors(number)

  pieces = [(i, np.full((2, 256, 48), i, np.float16)) for i in range(3)]
  list(song_patches.encoded(embedder, song_patches.gathered(pieces, 2)))
  expected = "send 0, send 1, wait 0, send 2, wait 1, wait 2"
  assert ", ".join(events) == expected


def test_the_mean_is_over_the_patches_of_each_song_in_any_batches():
  vectors = np.arange(12, dtype=np.float32).reshape(6, 2)
  found = [
    (np.array([0, 0, 2]), vectors[:3]),
    (np.array([2, 2, 0]), vectors[3:]),
  ]
  means, counts = song_patches.mean_vectors(found, 4)
  assert counts.tolist() == [3, 0, 3, 0] and means.dtype == np.float32
  np.testing.assert_allclose(means[0], vectors[[0, 1, 5]].mean(axis=0))
  np.testing.assert_allclose(means[2], vectors[[2, 3, 4]].mean(axis=0))
  assert song_patches.mean_vectors([], 2)[0].shape == (2, 0)
