"""What it costs a device to cut a batch from songs that lie in its memory.

The songs take more than 4 GB, which is more numbers than 32 bits can count, and
what is cut from their end is compared with what was put there.
"""

import time

import jax
import numpy as np

from benchmarks.accelerator import part_context
from pcl_jax.audio import song_patches
from pcl_jax.common import errors
from pcl_jax.data import resident_songs
from pcl_jax.training import train_step

_PERIOD = 2039  # Frames; whole numbers up to it are exact in float16.


class _Songs:
  """Stands for a song store: the song number and the frame decide a feature."""

  def __init__(self, songs: int, frames: int):
    self.frames = np.full(songs, frames, np.int32)
    numbers = np.arange(frames + _PERIOD) % _PERIOD
    self._pattern = np.repeat(numbers.astype(np.float16)[:, None], 48, axis=1)

  def __len__(self) -> int:
    return len(self.frames)

  def read_song(self, song: int) -> np.ndarray:
    first = song % _PERIOD
    return self._pattern[first : first + self.frames[song]]


def measure(context: part_context.Context) -> None:
  """Copies songs to the device, cuts batches, and checks what was cut."""
  store = _Songs(60, 1000) if context.tiny else _Songs(600, 100_000)
  mesh = train_step.make_mesh(jax.devices()[:1])
  tables = {"cf": np.zeros((len(store), 301), np.float32)}
  rows = 8 if context.tiny else 768
  (songs, starts), there = _numbers(store, mesh, rows)
  begin = time.perf_counter()
  held = resident_songs.ResidentSongs(store, tables, mesh)
  cut = np.asarray(held.cut(*there)["audio"])[..., 0]
  first_s = time.perf_counter() - begin
  wanted = songs[:, None] + starts[:, None] + np.arange(song_patches.FRAMES)
  if not np.array_equal(cut, wanted % _PERIOD):
    raise errors.RunError("the device has cut other patches than were asked.")
  seconds = part_context.time_calls(
    lambda: held.cut(*there), jax.block_until_ready, 5, inner=50
  )
  gigabytes = resident_songs.needed_bytes(store, tables, mesh) / 1e9
  context.record(
    f"{rows} patches of {gigabytes:.2f} GB",
    first_s=first_s,
    **part_context.in_ms(seconds),
  )


def _numbers(store, mesh, rows):
  """Returns songs and first frames, and both on the device."""
  rng = np.random.default_rng(0)
  songs = rng.integers(0, len(store), rows).astype(np.int32)
  songs[-4:] = len(store) - 1
  starts = rng.integers(
    0, store.frames[0] - song_patches.FRAMES + 1, rows
  ).astype(np.int32)
  starts[-1] = store.frames[0] - song_patches.FRAMES
  split = jax.NamedSharding(mesh, jax.P("data"))
  return (songs, starts), jax.device_put((songs, starts), split)
