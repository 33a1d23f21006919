"""Order of reading for slow disks: sequential blocks, in random order.

Songs are cut into blocks of neighbours in the song store. Each epoch reads the
blocks in a random order, each block from its beginning to its end. The patches
wait in memory until they make up several batches; then batches are drawn from
them at random. The published code reads 600 blocks and keeps 50 batches. The
plan decides all of this before anything is read, so a batch is a function of
seed, epoch and step in this order too.
"""

import dataclasses

from jaxtyping import Float16
import numpy as np

from pcl_jax.audio import song_patches
from pcl_jax.data import plans
from pcl_jax.data import song_store

_PATCHES_PER_READ = 256


@dataclasses.dataclass(frozen=True)
class Blocks:
  """How an epoch is read in blocks."""

  count: int = 600  # At most one per song is made.
  cached_batches: int = 50  # Held before one is drawn.


def _read_times(songs, rows, blocks, rng):
  """Draws when the block of each of `rows` rows is read; -1 for other rows."""
  ordered = np.unique(songs)
  count = min(blocks.count, max(len(ordered), 1))
  block = np.arange(len(ordered), dtype=np.int64) * count // len(ordered)
  times = np.full(rows, -1, np.int32)
  times[ordered] = rng.permutation(count)[block]
  return times


def _draw_order(ready, batch_size, cached_batches, rng):
  """Orders items, ready at some times, for batches of what is ready by then."""
  arriving = np.argsort(ready, kind="stable")
  _, counts = np.unique(ready, return_counts=True)
  held, parts = arriving[:0], [arriving[:0]]
  for arrived in np.split(arriving, np.cumsum(counts)[:-1]):
    held = rng.permutation(np.concatenate([held, arrived]))
    spare = len(held) - cached_batches * batch_size
    drawn = max(-(-spare // batch_size), 0) * batch_size
    parts.append(held[:drawn])
    held = held[drawn:]
  return np.concatenate([*parts, held])


def reorder(
  plan: plans.Plan,
  blocks: Blocks,
  *,
  rows: int,
  paired: bool,
  seed: int,
  epoch: int,
) -> plans.Plan:
  """Orders the songs or pairs of a plan so that they can be read in blocks.

  The catalogue has `rows` songs; of a `paired` plan, the two halves of a step
  belong together, row by row.

  Returns:
    The same songs with the same starts in other steps, and the order in which
    they are read.
  """
  rng = plans.generator(seed, epoch, plans.BLOCKS)
  steps, patches = plan.songs.shape
  views = 2 if paired else 1

  def items(table):  # [steps, patches] -> [items, views]
    return table.reshape(steps, views, -1).swapaxes(1, 2).reshape(-1, views)

  times = _read_times(plan.songs.ravel(), rows, blocks, rng)
  ready = times[items(plan.songs)].max(axis=1)
  order = _draw_order(ready, patches // views, blocks.cached_batches, rng)

  def ordered(table):
    taken = items(table)[order].reshape(steps, -1, views)
    return taken.swapaxes(1, 2).reshape(steps, patches)

  songs = ordered(plan.songs)
  return plans.Plan(songs, ordered(plan.starts), _reads_of(songs, times))


def _reads_of(songs, times) -> plans.Reads:
  """Returns in which order the patches of a plan's songs are read."""
  flat = songs.ravel()
  slots = np.lexsort((flat, times[flat]))
  complete = np.maximum.accumulate(times[songs].max(axis=1, initial=-1))
  ends = np.searchsorted(times[flat][slots], complete, side="right")
  return plans.Reads(slots, ends.astype(np.int64))


class BlockCache:
  """Reads the patches of a plan in its own order; gives them batch by batch.

  Not safe for several threads: the reads are one sequence. At most `capacity`
  patches are held at once.
  """

  def __init__(
    self,
    store: song_store.SongStore,
    plan: plans.Plan,
    rows: slice,
    first_step: int = 0,
  ):
    """Decides what will be read when, of these rows of each batch of a plan."""
    steps, patches = plan.songs.shape
    step, row = np.divmod(plan.reads.slots, patches)
    wanted = (step >= first_step) & (row >= rows.start) & (row < rows.stop)
    self._store, self._plan, self._rows = store, plan, rows
    self._slots = plan.reads.slots[wanted]
    self._ends = np.concatenate([[0], np.cumsum(wanted)])[plan.reads.ends]
    given = (np.arange(steps) - first_step) * (rows.stop - rows.start)
    held = (self._ends - given)[first_step:]
    self.capacity = int(held.max(initial=0))
    shape = (self.capacity, song_patches.FRAMES, song_store.MEL_BANDS)
    self._patches = np.empty(shape, np.float16)
    self._free = np.arange(self.capacity)
    self._place = np.full(plan.songs.size, -1, np.int32)
    self._done = 0

  def _fetch(self, end: int) -> None:
    """Reads until `end` patches have been read."""
    songs, starts = self._plan.songs.ravel(), self._plan.starts.ravel()
    while self._done < end:
      slots = self._slots[self._done : min(self._done + _PATCHES_PER_READ, end)]
      read = np.empty((len(slots), *self._patches.shape[1:]), np.float16)
      self._store.read_patches(songs[slots], starts[slots], read)
      places, self._free = np.split(self._free, [len(slots)])
      self._patches[places] = read
      self._place[slots] = places
      self._done += len(slots)

  def take(
    self, step: int, out: Float16[np.ndarray, "patches frames bands"]
  ) -> None:
    """Copies a batch into `out` and forgets it; batches are taken in order.

    Raises:
      InputError: a record that is read on the way is damaged.
    """
    self._fetch(int(self._ends[step]))
    first = step * self._plan.songs.shape[1]
    slots = np.arange(first + self._rows.start, first + self._rows.stop)
    places = self._place[slots]
    np.take(self._patches, places, axis=0, out=out)
    self._free = np.concatenate([self._free, places])
