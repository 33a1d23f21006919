"""Puts songs in an order in which each sounds like the one before."""

from jaxtyping import Float, Int
import numpy as np

_MOST_PASSES = 50
_GAIN = 1e-9  # A smaller one is rounding.
_MOST_STARTS = 64  # Songs that an order is tried to begin with.


def distances(
  unit: Float[np.ndarray, "songs d"],
) -> Float[np.ndarray, "songs songs"]:
  """Returns the distances of unit vectors from one another."""
  cosines = (unit @ unit.T).astype(np.float64)
  return np.sqrt(np.clip(2 - 2 * cosines, 0, None))


def _nearest_next(
  steps: Float[np.ndarray, "songs songs"], first: int
) -> list[int]:
  """Goes on to the nearest song that was not visited, from the first on."""
  free = np.ones(len(steps), bool)
  order = [first]
  for _ in range(len(steps) - 1):
    free[order[-1]] = False
    order.append(int(np.where(free, steps[order[-1]], np.inf).argmin()))
  return order


def _turned(
  steps: Float[np.ndarray, "ends ends"], order: Int[np.ndarray, " stops"]
) -> bool:
  """Turns stretches of an order round, in place, where that shortens it."""
  shorter = False
  for i in range(1, len(order) - 1):
    before, here = order[i - 1], order[i]
    ends, after = order[i:-1], order[i + 1 :]
    gains = steps[before, here] + steps[ends, after]
    gains -= steps[before, ends] + steps[here, after]
    j = int(gains.argmax())
    if gains[j] > _GAIN:
      order[i : i + j + 1] = order[i : i + j + 1][::-1]
      shorter = True
  return shorter


def smallest_steps(
  unit: Float[np.ndarray, "songs d"], first: int | None = None
) -> Int[np.ndarray, " songs"]:
  """Orders songs so that the distances from each to the next are small.

  The order begins as nearest neighbours, and stretches of it are turned round
  as long as that shortens it (2-opt). No order that differs by one stretch is
  shorter; the shortest of all is not looked for.

  Args:
    unit: vector of each song, of length one.
    first: the song to begin with; any if None.

  Returns:
    The songs' numbers in the new order.
  """
  count = len(unit)
  if count < 2:
    return np.arange(count)
  steps = distances(unit)
  if first is None:
    starts = np.unique(np.linspace(0, count - 1, _MOST_STARTS).astype(int))
    orders = [_nearest_next(steps, int(one)) for one in starts]
    order = min(orders, key=lambda one: steps[one[:-1], one[1:]].sum())
  else:
    order = _nearest_next(steps, first)
  # An end without distance before the first song and after the last one.
  steps = np.pad(steps, (0, 1))
  ends = [[] if first is not None else [count], [count]]
  ordered = np.array([*ends[0], *order, *ends[1]])
  for _ in range(_MOST_PASSES):
    if not _turned(steps, ordered):
      break
  return ordered[ordered < count]
