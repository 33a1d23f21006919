"""The encoder of a run, compiled: patches, songs and files to vectors."""

from collections.abc import Callable
import functools
import os

from flax import nnx
import jax
from jaxtyping import Float, Int
import numpy as np

from pcl_jax.audio import decode
from pcl_jax.audio import song_patches
from pcl_jax.data import song_store
from pcl_jax.models import audio_encoder

LAYERS = ("features", "projection")
BATCH_PATCHES = 64


@functools.lru_cache(maxsize=8)
def _compiled(graphdef: nnx.GraphDef, output: int) -> Callable:
  """Compiles networks of one architecture once, whatever their weights."""

  @jax.jit
  def embed(variables, patches):
    return nnx.merge(graphdef, *variables)(patches, False)[output]

  return embed


def make_embedder(
  encoder: audio_encoder.AudioEncoder, layer: str = "features"
) -> Callable:
  """Compiles an encoder in evaluation mode.

  Args:
    encoder: the audio encoder.
    layer: one of `LAYERS`.

  Returns:
    A function of patches [n, 256, 48] to vectors [n, features].
  """
  graphdef, params, stats = nnx.split(encoder, nnx.Param, nnx.BatchStat)
  embed = _compiled(graphdef, LAYERS.index(layer))
  return lambda patches: embed((params, stats), patches)


def vector_length(encoder: audio_encoder.AudioEncoder, layer: str) -> int:
  """Returns the length of the vectors of a layer.

  Args:
    encoder: the audio encoder.
    layer: one of `LAYERS`.
  """
  shape = (1, song_patches.FRAMES, song_patches.BANDS)
  outputs = nnx.eval_shape(
    lambda mel: encoder(mel, False), jax.ShapeDtypeStruct(shape, np.float16)
  )
  return outputs[LAYERS.index(layer)].shape[1]


def embed_songs(
  encoder: audio_encoder.AudioEncoder,
  store: song_store.SongStore,
  songs: Int[np.ndarray, " songs"],
  *,
  batch_patches: int = BATCH_PATCHES,
) -> Float[np.ndarray, "songs features"]:
  """Embeds songs of a store.

  Args:
    encoder: the audio encoder.
    store: holds the songs.
    songs: positions in the store.
    batch_patches: patches encoded at once, of any songs.

  Returns:
    Mean over the features of each song's whole, non-overlapping patches (a
    shorter song is padded with silence), float32 [songs, features].
  """
  embedder = make_embedder(encoder)
  song_index, starts = song_patches.patch_grid(store.frames[songs])
  batches = song_patches.read_batches(
    lambda some, *where: store.read_patches(songs[some], *where),
    song_index,
    starts,
    batch_patches,
  )
  found = song_patches.encoded(embedder, batches)
  return song_patches.mean_vectors(found, len(songs))[0]


def embed_file(
  embedder: Callable, path: str | os.PathLike[str], batch_patches: int
) -> Float[np.ndarray, " features"]:
  """Embeds an audio file.

  Args:
    embedder: of `make_embedder`.
    path: of the file.
    batch_patches: patches encoded at once.

  Returns:
    Mean over the vectors of its whole patches, float32 [features].

  Raises:
    InputError: the file cannot be read.
  """
  pieces = song_patches.whole_patches(decode.feature_blocks(path))
  batches = song_patches.gathered(
    ((0, piece.patches) for piece in pieces), batch_patches
  )
  found = song_patches.encoded(embedder, batches)
  return song_patches.mean_vectors(found, 1)[0][0]
