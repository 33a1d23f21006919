"""All songs in the memory of the devices, which cut the patches themselves.

For data sets that fit: the host then gives a step nothing but the numbers of
its songs and frames. Each device holds all songs, whatever it cuts, so that a
batch needs no exchange between devices.
"""

from collections.abc import Iterator, Mapping
import os
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float16, Int
import numpy as np

from pcl_jax.audio import melspectrogram
from pcl_jax.audio import song_patches
from pcl_jax.common import errors
from pcl_jax.data import song_store

_SHARE = 0.5  # Of the free memory; the rest is for training.
_CHUNK = 1 << 16  # Frames of one copy to the devices, 6 MB.
_MOST_FRAMES = 2**31 - 1  # They are numbered in int32.
_FRAME_BYTES = 2 * song_store.MEL_BANDS
_TPU_FRAME_BYTES = 2 * 128  # A TPU fills the last axis up.


def needed_bytes(
  store: song_store.SongStore,
  tables: Mapping[str, np.ndarray],
  mesh: jax.sharding.Mesh,
) -> int:
  """Returns what songs and tables take of the memory of each device."""
  is_tpu = mesh.devices.flat[0].platform == "tpu"
  frame_bytes = _TPU_FRAME_BYTES if is_tpu else _FRAME_BYTES
  frames = _chunks(store) * _CHUNK
  return frames * frame_bytes + sum(one.nbytes for one in tables.values())


def check_memory(
  store: song_store.SongStore,
  tables: Mapping[str, np.ndarray],
  mesh: jax.sharding.Mesh,
) -> None:
  """Refuses songs that would take more than half of a device's free memory.

  A device that does not tell its memory is taken to have its share of that of
  the host.

  Raises:
    InputError: says how much is needed, and how much there is.
  """
  needed = needed_bytes(store, tables, mesh)
  free = min(map(_free_bytes, mesh.local_devices))
  room = min(int(free * _SHARE), _MOST_FRAMES * _FRAME_BYTES)
  if needed > room:
    raise errors.InputError(
      f"config.data.order is 'resident' and the songs of {store.path} take "
      f"{needed / 1e9:.2f} GB of the memory of each device. Of the "
      f"{free / 1e9:.2f} GB that {mesh.local_devices[0].device_kind} has free, "
      f"{room / 1e9:.2f} GB may be taken. Give 'shuffled', which trains with "
      "the same batches and leaves the songs on the disk."
    )


def _free_bytes(device: Any) -> int:
  found = device.memory_stats() or {}
  if "bytes_limit" in found:
    return found["bytes_limit"] - found.get("bytes_in_use", 0)
  host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  return host // jax.local_device_count()


def _chunks(store: song_store.SongStore) -> int:
  """Returns how many chunks hold all songs, and a patch more behind them."""
  frames = int(store.frames.sum(dtype=np.int64)) + song_patches.FRAMES
  return -(-frames // _CHUNK)


def _read_chunks(
  store: song_store.SongStore,
) -> Iterator[Float16[np.ndarray, "frames bands"]]:
  """Yields all songs, one behind the other, in parts of one size."""
  shape = _CHUNK, song_store.MEL_BANDS
  chunk, filled = np.full(shape, melspectrogram.SILENCE, np.float16), 0
  for song in range(len(store)):
    left = store.read_song(song)
    while len(left):
      part, left = np.split(left, [_CHUNK - filled])
      chunk[filled : filled + len(part)] = part
      filled += len(part)
      if filled == _CHUNK:
        yield chunk
        # Another, since the one before may be on its way yet.
        chunk = np.full(shape, melspectrogram.SILENCE, np.float16)
        filled = 0
  yield chunk
  if filled + song_patches.FRAMES > _CHUNK:
    yield np.full(shape, melspectrogram.SILENCE, np.float16)


class ResidentSongs:
  """The songs of a store, and tables with a row for each, on all devices."""

  def __init__(
    self,
    store: song_store.SongStore,
    tables: Mapping[str, np.ndarray],
    mesh: jax.sharding.Mesh,
  ):
    """Copies everything to each device of a mesh, song by song.

    Raises:
      InputError: a record is missing or damaged.
    """
    everywhere = jax.NamedSharding(mesh, jax.P())
    split = jax.NamedSharding(mesh, jax.P("data"))

    def put(array: np.ndarray) -> jax.Array:
      return jax.make_array_from_process_local_data(
        everywhere, array, array.shape
      )

    shape = _chunks(store) * _CHUNK, song_store.MEL_BANDS
    frames = jax.jit(
      lambda: jnp.zeros(shape, jnp.float16), out_shardings=everywhere
    )()
    # In place, so that there is never a second copy of all songs.
    write = jax.jit(
      lambda frames, chunk, first: lax.dynamic_update_slice(
        frames, chunk, (first, 0)
      ),
      donate_argnums=0,
      out_shardings=everywhere,
    )
    for i, chunk in enumerate(_read_chunks(store)):
      frames = write(frames, put(chunk), np.int32(i * _CHUNK))
    lengths = store.frames.astype(np.int32)
    firsts = np.cumsum(store.frames, dtype=np.int64) - store.frames
    self._held = (
      frames,
      put(firsts.astype(np.int32)),
      put(lengths),
      {name: put(np.asarray(table)) for name, table in tables.items()},
    )
    on_each = jax.shard_map(
      _cut,
      mesh=mesh,
      in_specs=(jax.P(), jax.P("data"), jax.P("data")),
      out_specs=jax.P("data"),
    )
    self._cut = jax.jit(on_each, out_shardings=split)

  def cut(
    self, songs: Int[Array, " patches"], starts: Int[Array, " patches"]
  ) -> dict[str, jax.Array]:
    """Returns the batch of some songs and first frames, on the devices.

    All are split over the mesh, as is the batch: `audio`, float16 [patches,
    256, 48], with silence behind the end of a song, and rows of each table.
    """
    return self._cut(self._held, songs, starts)


def _cut(held, songs, starts):
  """Cuts the rows of one device."""
  frames, firsts, lengths, tables = held
  size = song_patches.FRAMES, song_store.MEL_BANDS

  def rows_of(table):
    return jnp.take(table, songs, axis=0, mode="clip")

  patches = jax.vmap(lambda at: lax.dynamic_slice(frames, (at, 0), size))(
    rows_of(firsts) + starts
  )
  left = rows_of(lengths) - starts
  is_song = lax.broadcasted_iota(jnp.int32, patches.shape, 1) < left.reshape(
    -1, 1, 1
  )
  silence = jnp.float16(melspectrogram.SILENCE)
  return {"audio": jnp.where(is_song, patches, silence)} | {
    name: rows_of(table) for name, table in tables.items()
  }
