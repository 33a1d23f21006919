"""An epoch as arrays: which songs are read in which step, and from where.

A plan is a pure function of the seed and the epoch. It is decided before
anything is read, so it does not depend on threads, devices or hosts, and a
resumed run reads on where it stopped.

All planners take `frames`, the length of every song of the catalogue, int32
[songs]; `batch_size`, how many songs or pairs are in a global batch (a pair has
two patches); the `seed` of the run and the `epoch`, from 0. The last incomplete
batch is dropped. A song enters an epoch once, or as often as `passes` says,
int [songs].
"""

from collections.abc import Sequence
import dataclasses

from jaxtyping import Bool, Int
import numpy as np

from pcl_jax.audio import song_patches
from pcl_jax.data import pairs
from pcl_jax.data import ragged

# What follows the seed and the epoch in the seed of each draw.
_SONGS, _PAIRS, _STARTS, BLOCKS = 0, 1, 2, 3
_LATER_PASSES = 16  # Of pairs: this and the number of the pass.
BY_LENGTH = 0  # In place of a number of patches of a song.
MOST_PASSES = 256  # 17 minutes: longer songs would be most of an epoch.


@dataclasses.dataclass(frozen=True)
class Reads:
  """In which order the patches of a plan are read."""

  slots: Int[np.ndarray, " total"]  # Places in the flattened plan.
  ends: Int[np.ndarray, " steps"]  # How many are read to complete a step.


@dataclasses.dataclass(frozen=True)
class Plan:
  """The batches of an epoch: for each patch, its song and first frame.

  Of two views or of pairs, the first half of a step holds the anchors and the
  second half, in the same order, their positives.
  """

  songs: Int[np.ndarray, "steps patches"]  # Rows of the catalogue, int32.
  starts: Int[np.ndarray, "steps patches"]  # First frames, int32.
  reads: Reads | None = None  # None where the order does not matter.

  def __len__(self) -> int:
    return len(self.songs)


def joined(parts: Sequence[Plan], steps: int) -> Plan:
  """Lays plans one after another and keeps the first so many steps."""
  songs = np.concatenate([one.songs for one in parts])[:steps]
  starts = np.concatenate([one.starts for one in parts])[:steps]
  if parts[0].reads is None:
    return Plan(songs, starts)
  before = np.cumsum([0, *(one.songs.size for one in parts[:-1])])
  both = list(zip(parts, before.tolist(), strict=True))
  slots = np.concatenate([one.reads.slots + start for one, start in both])
  ends = np.concatenate([one.reads.ends + start for one, start in both])[:steps]
  kept = slots < songs.size
  counts = np.concatenate([[0], np.cumsum(kept)])
  return Plan(songs, starts, Reads(slots[kept], counts[ends]))


def generator(seed: int, epoch: int, purpose: int) -> np.random.Generator:
  """Returns the generator of one purpose in one epoch."""
  return np.random.Generator(np.random.PCG64([seed, epoch, purpose]))


def passes_of(
  frames: Int[np.ndarray, " songs"], patches_per_song: int
) -> Int[np.ndarray, " songs"] | None:
  """Returns how often each song enters an epoch; None for once.

  With `BY_LENGTH`, as often as patches lie in it side by side, at least once
  and at most `MOST_PASSES` times.
  """
  if patches_per_song == 1:
    return None
  if patches_per_song != BY_LENGTH:
    return np.full(len(frames), patches_per_song)
  whole = np.rint(frames / song_patches.FRAMES).astype(np.int64)
  return np.clip(whole, 1, MOST_PASSES)


def _draw_order(songs, passes, seed, epoch):
  """Shuffles songs, each as often as its passes."""
  if passes is not None:
    songs = np.repeat(songs, passes[songs])
  return generator(seed, epoch, _SONGS).permutation(songs)


def draw_starts(
  frames: Int[np.ndarray, "*shape"], rng: np.random.Generator
) -> Int[np.ndarray, "*shape"]:
  """Draws patch starts, uniform over 0..frames - 256; 0 for shorter songs."""
  last = np.maximum(frames.astype(np.int64) - song_patches.FRAMES, 0)
  return rng.integers(0, last + 1).astype(np.int32)


def _draw_second_starts(frames, firsts, double_window, rng):
  """Draws the start of a second patch of each song, as of `of_two_patches`."""
  last = np.maximum(frames.astype(np.int64) - song_patches.FRAMES, 0)
  lowest = np.maximum(firsts - double_window, 0)
  highest = np.minimum(firsts + double_window, last)
  before = np.maximum(firsts - song_patches.FRAMES - lowest + 1, 0)
  behind = firsts + song_patches.FRAMES
  after = np.maximum(highest - behind + 1, 0)
  apart = before + after
  drawn = rng.integers(0, np.where(apart > 0, apart, highest - lowest + 1))
  second = np.where(drawn < before, lowest + drawn, behind + drawn - before)
  return np.where(apart > 0, second, lowest + drawn).astype(np.int32)


def _steps(items: np.ndarray, batch_size: int) -> np.ndarray:
  """Cuts items into batches, int32."""
  steps = len(items) // batch_size
  shape = steps, batch_size, *items.shape[1:]
  return items[: steps * batch_size].reshape(shape).astype(np.int32)


def of_songs(
  songs: Int[np.ndarray, " songs"],
  frames: Int[np.ndarray, " all"],
  batch_size: int,
  *,
  passes: Int[np.ndarray, " all"] | None = None,
  seed: int,
  epoch: int,
) -> Plan:
  """Plans one patch of each of some rows, in random order (cross-modal)."""
  taken = _steps(_draw_order(songs, passes, seed, epoch), batch_size)
  starts = draw_starts(frames[taken], generator(seed, epoch, _STARTS))
  return Plan(taken, starts)


def of_two_patches(
  songs: Int[np.ndarray, " songs"],
  frames: Int[np.ndarray, " all"],
  batch_size: int,
  *,
  double_window: int,
  passes: Int[np.ndarray, " all"] | None = None,
  seed: int,
  epoch: int,
) -> Plan:
  """Plans two patches of each of some rows (self-supervised).

  The second starts at most `double_window` frames from the first and does not
  overlap it; where the song leaves no such place, it may overlap.
  """
  taken = _steps(_draw_order(songs, passes, seed, epoch), batch_size)
  rng = generator(seed, epoch, _STARTS)
  firsts = draw_starts(frames[taken], rng)
  seconds = _draw_second_starts(frames[taken], firsts, double_window, rng)
  return Plan(
    np.concatenate([taken, taken], axis=1),
    np.concatenate([firsts, seconds], axis=1),
  )


def of_fixed_pairs(
  drawn: Int[np.ndarray, "pairs 2"],
  frames: Int[np.ndarray, " all"],
  batch_size: int,
  *,
  seed: int,
  epoch: int,
) -> Plan:
  """Plans one patch of each song of given pairs, in their order."""
  taken = _steps(drawn, batch_size)
  songs = np.concatenate([taken[..., 0], taken[..., 1]], axis=1)
  starts = draw_starts(frames[songs], generator(seed, epoch, _STARTS))
  return Plan(songs, starts)


def of_pairs(
  lists: ragged.Ragged,
  available: Bool[np.ndarray, " songs"],
  frames: Int[np.ndarray, " all"],
  batch_size: int,
  *,
  once: bool,
  passes: Int[np.ndarray, " songs"] | None = None,
  seed: int,
  epoch: int,
) -> Plan:
  """Plans pairs drawn by `pairs.draw_pairs` (intra-modal and hybrid).

  With `passes`, pairs are drawn once more from the songs that have another
  pass, until none has, and all of them are shuffled.
  """
  rng = generator(seed, epoch, _PAIRS)
  drawn = pairs.draw_pairs(lists, available, once=once, rng=rng)
  if passes is not None:
    parts = [drawn]
    for number in range(1, int(passes[available].max(initial=1))):
      rng = generator(seed, epoch, _LATER_PASSES + number)
      left = available & (passes > number)
      parts.append(pairs.draw_pairs(lists, left, once=once, rng=rng))
    drawn = np.concatenate(parts)
    drawn = drawn[generator(seed, epoch, _SONGS).permutation(len(drawn))]
  return of_fixed_pairs(drawn, frames, batch_size, seed=seed, epoch=epoch)
