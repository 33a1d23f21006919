"""Loader: a plan and a song store to batches on the devices, in threads."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import functools
import math
import mmap
import types
import weakref

import jax
from jaxtyping import Float16
import numpy as np

from pcl_jax.audio import song_patches
from pcl_jax.common import prefetch
from pcl_jax.common import usable_cores
from pcl_jax.data import false_negatives
from pcl_jax.data import plans
from pcl_jax.data import read_order
from pcl_jax.data import resident_songs
from pcl_jax.data import song_store

_MOST_THREADS = 4  # Each holds a batch ready.
_NOTHING = types.MappingProxyType({})


def default_threads() -> int:
  """Returns one thread per usable core, four at most."""
  return min(usable_cores.count(), _MOST_THREADS)


def _local_rows(sharding: jax.sharding.Sharding, rows: int) -> slice:
  """Returns which of a batch's rows this process's devices hold."""
  indices = sharding.addressable_devices_indices_map((rows,)).values()
  spans = [index[0].indices(rows) for index in indices]
  return slice(min(s[0] for s in spans), max(s[1] for s in spans))


class BatchMemory:
  """Memory of patches that nobody uses any more, for the next ones.

  New memory would have to be cleared by the system first.
  """

  def __init__(self):
    """Holds nothing yet."""
    self._free: list[mmap.mmap] = []

  def patches(self, count: int) -> Float16[np.ndarray, "count frames bands"]:
    """Returns memory for patches, always of one number, with anything in it.

    It begins with a page, so that a CPU device can take it without a copy.
    """
    shape = (count, song_patches.FRAMES, song_patches.BANDS)
    try:
      memory = self._free.pop()
    except IndexError:
      flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
      memory = mmap.mmap(-1, 2 * math.prod(shape), flags)
      with contextlib.suppress(OSError):  # A system may have no large pages.
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(memory, np.float16)
    # Views of views refer to this array. JAX lets go of it when the device has
    # its own copy or, on a CPU, when the batch is deleted.
    weakref.finalize(whole, self._free.append, memory).atexit = False
    return whole.reshape(shape)


def _read_batch(store, tables, plan, step, rows, memory, cache=None):
  """Reads rows of a step: `audio` and those of each table."""
  songs = plan.songs[step, rows]
  patches = memory.patches(len(songs))
  if cache is not None:
    cache.take(step, patches)
  else:
    store.read_patches(songs, plan.starts[step, rows], patches)
  return {"audio": patches} | {
    name: np.asarray(table[songs]) for name, table in tables.items()
  }


def _put(arrays, sharding, rows) -> dict[str, jax.Array]:
  """Begins to copy this process's rows, of `rows` in all, to its devices."""
  if sharding.is_fully_addressable:  # All at once, in half the time.
    return jax.device_put(arrays, sharding)
  return {
    name: jax.make_array_from_process_local_data(
      sharding, array, (rows, *array.shape[1:])
    )
    for name, array in arrays.items()
  }


def _reading(store, tables, plan, rows, first_step, resident):
  """Returns the function that gives the arrays of a step on the host."""
  if resident is not None:
    return lambda step: {
      "row": plan.songs[step, rows],
      "start": plan.starts[step, rows],
    }
  cache, memory = None, BatchMemory()
  if plan.reads is not None:
    cache = read_order.BlockCache(store, plan, rows, first_step)
  return lambda step: _read_batch(
    store, tables, plan, step, rows, memory, cache
  )


def _describe_stall(store: song_store.SongStore, stall_s: float) -> str:
  songs = ", ".join(map(str, store.being_read())) or "none"
  return (
    f"no batch has come for {stall_s:g} s (config.data.stall_s): the readers "
    f"of {store.path} are at song(s) {songs}. The stacks of all threads are "
    "above. Look at the disk or the network file system of the data set; the "
    "same command line goes on from the last checkpoint."
  )


def load(
  store: song_store.SongStore,
  tables: Mapping[str, np.ndarray],
  plan: plans.Plan,
  sharding: jax.sharding.Sharding,
  *,
  threads: int,
  shared: Mapping[str, false_negatives.SharedLists] = _NOTHING,
  resident: resident_songs.ResidentSongs | None = None,
  first_step: int = 0,
  stall_s: float = 300.0,
  is_stopped: Callable[[], bool] = bool,
) -> Iterator[dict[str, jax.Array]]:
  """Yields the batches of a plan in order, already on the devices.

  Whole batches are read ahead in threads; which thread reads what does not
  change them. A failed read is raised by the batch it belongs to. A plan with
  an order of reading is read by one thread, in that order. Of resident songs
  the devices cut the same batches, and one thread prepares their numbers.

  Args:
    store: holds the patches.
    tables: name -> array with a row for each song of the catalogue.
    plan: the epoch.
    sharding: how the batch is split over its first axis.
    threads: readers, and one less than the batches held ready; 0 for
      `default_threads`.
    shared: name -> lists, whose entries are added to the batches on all
      devices.
    resident: the songs of the store and the tables, if devices hold them.
    first_step: where to start.
    stall_s: how long a batch may take before the run is stopped.
    is_stopped: asked while a batch is waited for; ends all where it is true.

  Raises:
    InputError: a record is missing or damaged.
    RunError: a batch took longer than `stall_s`.
  """
  threads = threads or default_threads()
  total = plan.songs.shape[1]
  rows = _local_rows(sharding, total)
  everywhere = jax.NamedSharding(sharding.mesh, jax.P())
  if plan.reads is not None or resident is not None:
    threads = 1
  read = _reading(store, tables, plan, rows, first_step, resident)

  def produce(step: int) -> dict[str, jax.Array]:
    # The copy to the device starts here, not in the training loop.
    batch = _put(read(step), sharding, total)
    for name, lists in shared.items():
      entries = lists.entries(plan.songs[step])
      batch |= _put({name: entries}, everywhere, len(entries))
    return batch

  batches = prefetch.in_order(
    produce,
    range(first_step, len(plan)),
    threads=threads,
    stall_s=stall_s,
    describe_stall=functools.partial(_describe_stall, store, stall_s),
    is_stopped=is_stopped,
  )
  with contextlib.closing(batches):
    for batch in batches:
      if resident is not None:
        # Not in the thread: all hosts must start programs in the same order.
        batch |= resident.cut(batch.pop("row"), batch.pop("start"))
      yield batch
