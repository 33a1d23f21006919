"""Patches read in blocks, held until their batch is due."""

from jaxtyping import Float16
import numpy as np

from pcl_jax.data import plans
from pcl_jax.data import song_store

_PATCHES_PER_READ = 256


class BlockCache:
  """Reads the patches of a plan in its own order; gives them batch by batch.

  Not safe for several threads: the reads are one sequence.

  Attributes:
    capacity: most patches that are held at once.
  """

  def __init__(
    self,
    store: song_store.SongStore,
    plan: plans.Plan,
    rows: slice,
    first_step: int = 0,
  ):
    """Decides what will be read when; reads nothing yet.

    Args:
      store: holds the patches.
      plan: with `reads`.
      rows: of each batch, those that are wanted here.
      first_step: the first batch that will be asked for.
    """
    steps, patches = plan.songs.shape
    step, row = np.divmod(plan.reads.slots, patches)
    wanted = (step >= first_step) & (row >= rows.start) & (row < rows.stop)
    self._store, self._plan, self._rows = store, plan, rows
    self._slots = plan.reads.slots[wanted]
    self._ends = np.concatenate([[0], np.cumsum(wanted)])[plan.reads.ends]
    given = (np.arange(steps) - first_step) * (rows.stop - rows.start)
    held = (self._ends - given)[first_step:]
    self.capacity = int(held.max(initial=0))
    shape = (self.capacity, plans.PATCH_FRAMES, song_store.MEL_BANDS)
    self._patches = np.empty(shape, np.float16)
    self._free = np.arange(self.capacity)
    self._place = np.full(plan.songs.size, -1, np.int32)
    self._done = 0

  def _fetch(self, end: int) -> None:
    """Reads on, until so many patches have been read."""
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

    Args:
      step: of the plan.
      out: float16 [rows, 256, 48], overwritten.

    Raises:
      InputError: a record that is read on the way is damaged.
    """
    self._fetch(int(self._ends[step]))
    first = step * self._plan.songs.shape[1]
    slots = np.arange(first + self._rows.start, first + self._rows.stop)
    places = self._place[slots]
    np.take(self._patches, places, axis=0, out=out)
    self._free = np.concatenate([self._free, places])
