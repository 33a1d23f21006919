"""Patches and songs per second of embedding."""

from collections.abc import Callable
import functools
import statistics

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator import part_context
from benchmarks.accelerator import random_data
from pcl_jax.audio import song_patches
from pcl_jax.data import song_store
from pcl_jax.embedding import song_encoder
from pcl_jax.models import audio_encoder
from pcl_jax.models import compiled_encoder

_TO_COMPILE_S = 20.0


def _measure_patches(
  context: part_context.Context, label: str, embedder: Callable
) -> None:
  rng = np.random.default_rng(0)
  for size in (8,) if context.tiny else (64, 256, 1024):
    if not context.has(3 if context.tiny else _TO_COMPILE_S, label):
      return
    shape = (size, song_patches.FRAMES, song_store.MEL_BANDS)
    batch = rng.uniform(-2, 1, shape).astype(np.float16)
    here = jax.device_put(batch)
    inside = part_context.time_calls(
      functools.partial(embedder, here), jax.block_until_ready, 5, 5
    )
    across = part_context.time_calls(
      functools.partial(embedder, batch), np.asarray, 5
    )
    context.record(
      f"{label}, batch {size}",
      patches_per_s=size / statistics.median(inside),
      patches_per_s_from_host=size / statistics.median(across),
    )


def measure(context: part_context.Context) -> None:
  """Measures the encoders alone, and songs out of a store."""
  folder = random_data.make(context)
  store = song_store.SongStore(folder / song_store.FILE_NAME)
  songs = np.arange(8 if context.tiny else 2000, dtype=np.int32)
  size = 8 if context.tiny else 256
  for name in ("resnet", "sc_cnn"):
    for dtype in ("float32", "bfloat16"):
      encoder = audio_encoder.AudioEncoder(
        name,
        width=random_data.TINY_WIDTH if context.tiny else None,
        compute_dtype=jnp.dtype(dtype),
        rngs=nnx.Rngs(0),
      )
      label = f"{name} {dtype}"
      embedder = compiled_encoder.make_embedder(encoder)
      _measure_patches(context, label, embedder)
      embed = functools.partial(
        song_encoder.embed_songs, encoder, store, batch_patches=size
      )
      embed(songs[:2])
      seconds = part_context.time_calls(
        functools.partial(embed, songs), np.asarray, 2
      )
      context.record(
        f"{label}, songs of a store, batch {size}",
        songs_per_s=len(songs) / statistics.median(seconds),
      )
