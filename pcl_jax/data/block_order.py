"""Order of reading for slow disks: sequential blocks, in random order.

Songs are cut into blocks of neighbours in the song store. Blocks are read one
after another, each from its beginning to its end, in an order drawn anew each
epoch. What was read waits in memory; once it makes up so many batches, batches
are drawn from it at random. The published code reads 600 blocks and keeps 50
batches. All of it is decided in the plan, before anything is read, so that a
batch is a function of seed, epoch and step in this order too.
"""

import dataclasses

from jaxtyping import Int
import numpy as np


@dataclasses.dataclass(frozen=True)
class Blocks:
  """How an epoch is read in blocks.

  Attributes:
    count: number of blocks; at most one per song is made.
    cached_batches: batches that are held before one is drawn.
  """

  count: int = 600
  cached_batches: int = 50


@dataclasses.dataclass(frozen=True)
class Reads:
  """In which order the patches of a plan are read.

  Attributes:
    slots: places in the flattened plan, in the order of reading, int64
      [steps * patches].
    ends: how many of them are read before a step is complete, int64 [steps].
  """

  slots: Int[np.ndarray, " total"]
  ends: Int[np.ndarray, " steps"]


def read_times(
  songs: Int[np.ndarray, " songs"],
  rows: int,
  blocks: Blocks,
  rng: np.random.Generator,
) -> Int[np.ndarray, " rows"]:
  """Draws when each song's block is read.

  Args:
    songs: rows of the catalogue to be read.
    rows: number of rows of the catalogue.
    blocks: how many.
    rng: draws.

  Returns:
    Place of its block in the order of reading, int32 [rows]; -1 for rows that
    are not read.
  """
  ordered = np.unique(songs)
  count = min(blocks.count, max(len(ordered), 1))
  block = np.arange(len(ordered), dtype=np.int64) * count // len(ordered)
  times = np.full(rows, -1, np.int32)
  times[ordered] = rng.permutation(count)[block]
  return times


def draw_order(
  ready: Int[np.ndarray, " items"],
  batch_size: int,
  cached_batches: int,
  rng: np.random.Generator,
) -> Int[np.ndarray, " items"]:
  """Orders items for batches: each is drawn from what has been read by then.

  Args:
    ready: when an item has been read, [items].
    batch_size: items in a batch.
    cached_batches: batches' worth of items held before one is drawn.
    rng: draws.

  Returns:
    All items once, batch after batch.
  """
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


def reads_of(
  songs: Int[np.ndarray, "steps patches"], times: Int[np.ndarray, " rows"]
) -> Reads:
  """Returns in which order the patches of a plan are read.

  Args:
    songs: of the plan.
    times: when each song's block is read, as `read_times` returns it.
  """
  flat = songs.ravel()
  slots = np.lexsort((flat, times[flat]))
  complete = np.maximum.accumulate(times[songs].max(axis=1, initial=-1))
  ends = np.searchsorted(times[flat][slots], complete, side="right")
  return Reads(slots, ends.astype(np.int64))
