"""Tests of pcl_jax.embedding.song_encoder, and of what pcl_jax.load gives."""

import dataclasses
from unittest import mock

from flax import nnx
import jax.numpy as jnp
import numpy as np
import pytest

from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.data import song_store
from pcl_jax.embedding import song_encoder
from pcl_jax.models import audio_encoder
from pcl_jax.models import compiled_encoder
from tests.support import quick_backbone
from tests.support.tiny import tiny_data

CATALOGUE = tiny_data.tiny_catalogue()
SONGS = np.array([7, 0, 30, 59, 16, 30, 41], np.int32)  # One of them twice.


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> song_store.SongStore:
  path = tmp_path_factory.mktemp("embed") / "songs.lmdb"
  return tiny_data.tiny_store(path, CATALOGUE, frames=(100, 900))


@pytest.fixture
def encoder(monkeypatch) -> audio_encoder.AudioEncoder:
  """An encoder whose running statistics are not those of a new one."""
  quick_backbone.register(monkeypatch)
  made = audio_encoder.AudioEncoder(
    quick_backbone.NAME, width=2, rngs=nnx.Rngs(0)
  )
  made.backbone.norm.mean[...] = jnp.linspace(-1, 1, 48)
  made.backbone.norm.var[...] = jnp.linspace(0.5, 2, 48)
  return made


def _features_by_hand(encoder, song: np.ndarray) -> np.ndarray:
  """Embeds a song patch by patch, one after another."""
  if len(song) < 256:
    silence = np.full((256 - len(song), 48), melspectrogram.SILENCE)
    song = np.concatenate([song, silence])
  patches = [song[i : i + 256] for i in range(0, len(song) // 256 * 256, 256)]
  features = [
    encoder(jnp.asarray(patch[None], jnp.float32), False)[0][0]
    for patch in patches
  ]
  return np.mean(np.array(features, np.float64), axis=0)


def test_an_embedding_is_the_mean_over_the_features_of_the_patches(
  store, encoder
):
  # Songs shorter than a patch, of one patch, and of more.
  assert set(np.digitize(store.frames[SONGS], (256, 512))) == {0, 1, 2}
  found = song_encoder.embed_songs(encoder, store, SONGS)
  assert found.dtype == np.float32
  assert found.shape == (7, 16)
  for row, song in zip(found, SONGS.tolist(), strict=True):
    expected = _features_by_hand(encoder, store.read_song(song))
    np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_patches", [1, 5])
def test_embeddings_do_not_depend_on_what_is_encoded_together(
  store, encoder, batch_patches
):
  together = song_encoder.embed_songs(encoder, store, SONGS)
  np.testing.assert_allclose(
    song_encoder.embed_songs(
      encoder, store, SONGS, batch_patches=batch_patches
    ),
    together,
    rtol=1e-5,
  )
  alone = song_encoder.embed_songs(encoder, store, SONGS[2:3])
  np.testing.assert_allclose(alone[0], together[2], rtol=1e-5)


def test_embedding_leaves_the_running_statistics_alone(store, encoder):
  before = np.array(encoder.backbone.norm.mean[...])
  song_encoder.embed_songs(encoder, store, SONGS)
  np.testing.assert_array_equal(encoder.backbone.norm.mean[...], before)


def test_one_shape_is_compiled_however_many_patches_there_are(store, encoder):
  shapes = []
  make = compiled_encoder.make_embedder

  def watched(encoder):
    features = make(encoder)
    return lambda patches: shapes.append(patches.shape) or features(patches)

  with mock.patch.object(compiled_encoder, "make_embedder", watched):
    song_encoder.embed_songs(encoder, store, SONGS, batch_patches=5)
  assert len(shapes) > 1
  assert set(shapes) == {(5, 256, 48)}


def test_a_damaged_song_is_named(tmp_path, encoder):
  catalogue = dataclasses.replace(CATALOGUE)
  store = tiny_data.tiny_store(tmp_path / "songs.lmdb", catalogue)
  store.frames[30] += 1  # What is on file is then too short.
  for call in (
    lambda: song_encoder.embed_songs(encoder, store, SONGS),
    lambda: song_encoder.embed_songs(encoder, store, SONGS[2:3]),
  ):
    with pytest.raises(errors.InputError, match=f"song {store.song_ids[30]} "):
      call()
