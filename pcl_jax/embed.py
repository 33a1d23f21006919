"""Embeddings of whole songs: the mean over the features of their patches."""

from collections.abc import Callable

from flax import nnx
import jax
from jaxtyping import Float, Int
import numpy as np

from pcl_jax.data import plan as plans
from pcl_jax.data import song_store
from pcl_jax.models import audio


def patch_grid(
  frames: Int[np.ndarray, " songs"],
) -> tuple[Int[np.ndarray, " patches"], Int[np.ndarray, " patches"]]:
  """Lays whole patches over songs, end to end; a short song has one.

  Args:
    frames: length of each song.

  Returns:
    Which song each patch is of (its place in `frames`), and its first frame.
  """
  counts = np.maximum(frames // plans.PATCH_FRAMES, 1).astype(np.int64)
  owners = np.repeat(np.arange(len(frames)), counts)
  first = np.repeat(np.cumsum(counts) - counts, counts)
  starts = (np.arange(len(owners)) - first) * plans.PATCH_FRAMES
  return owners.astype(np.int32), starts.astype(np.int32)


def make_embedder(encoder: audio.AudioEncoder) -> Callable:
  """Compiles an encoder in evaluation mode.

  Returns:
    A function of patches [n, 256, 48] to features [n, features].
  """
  graphdef, params, stats = nnx.split(encoder, nnx.Param, nnx.BatchStat)

  @jax.jit
  def features(variables, patches):
    return nnx.merge(graphdef, *variables)(patches, False)[0]

  return lambda patches: features((params, stats), patches)


def embed_songs(
  encoder: audio.AudioEncoder,
  store: song_store.SongStore,
  songs: Int[np.ndarray, " songs"],
  *,
  batch_patches: int = 64,
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
  owners, starts = patch_grid(store.frames[songs])
  out = np.zeros((len(songs), encoder.backbone.features), np.float64)
  shape = (batch_patches, plans.PATCH_FRAMES, song_store.MEL_BANDS)
  patches = np.zeros(shape, np.float16)
  for begin in range(0, len(owners), batch_patches):
    some = slice(begin, begin + batch_patches)
    count = len(owners[some])
    # The last batch keeps what an earlier one left behind its own patches, so
    # that there is one shape and one compilation.
    store.read_patches(songs[owners[some]], starts[some], patches[:count])
    features = np.asarray(embedder(patches))[:count]
    np.add.at(out, owners[some], features)
  counts = np.bincount(owners, minlength=len(songs))
  return (out / counts[:, None]).astype(np.float32)


def mean_std_mel(
  store: song_store.SongStore, songs: Int[np.ndarray, " songs"]
) -> Float[np.ndarray, "songs statistics"]:
  """Returns mean and standard deviation of each band over time: a baseline.

  Args:
    store: holds the songs.
    songs: positions in the store.

  Returns:
    48 means, then 48 standard deviations of the feature of each song, float32
    [songs, 96].
  """
  rows = np.zeros((len(songs), 2 * song_store.MEL_BANDS), np.float32)
  for row, song in enumerate(songs.tolist()):
    feature = store.read_song(song).astype(np.float64)
    rows[row] = np.concatenate([feature.mean(axis=0), feature.std(axis=0)])
  return rows


def mean_mel(
  store: song_store.SongStore, songs: Int[np.ndarray, " songs"]
) -> Float[np.ndarray, "songs bands"]:
  """Returns each song's mean feature over time, [songs, 48]: a baseline.

  Args:
    store: holds the songs.
    songs: positions in the store.
  """
  means = [
    store.read_song(song).mean(axis=0, dtype=np.float64)
    for song in songs.tolist()
  ]
  return np.array(means, np.float32)
