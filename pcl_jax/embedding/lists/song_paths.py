"""A path of songs that leads from one song to another in small steps."""

from jaxtyping import Bool, Float, Int
import numpy as np

from pcl_jax.common import errors
from pcl_jax.embedding.tables import search

_PER_STEP = 32  # Songs that a step is chosen from.
_LEAST_SINE = 1e-3  # Of angles that float32 tells from none.


def _waypoints(
  first: Float[np.ndarray, " d"], last: Float[np.ndarray, " d"], count: int
) -> Float[np.ndarray, "count d"]:
  """Returns unit vectors, evenly spaced on the arc between two others."""
  cosine = float(np.clip(first @ last, -1, 1))
  angle = np.arccos(cosine)
  shares = np.arange(1, count + 1)[:, None] / (count + 1)
  if np.sin(angle) < _LEAST_SINE:
    if cosine < 0:
      raise errors.InputError(
        "the vectors of the first and the last song are opposite, and no "
        "shortest path leads from one to the other: give other songs."
      )
    return np.repeat(first[None], count, axis=0)
  ends = np.sin((1 - shares) * angle) * first + np.sin(shares * angle) * last
  return (ends / np.sin(angle)).astype(np.float32)


def _layers(
  unit: Float[np.ndarray, "songs d"],
  waypoints: Float[np.ndarray, "count d"],
  places: Int[np.ndarray, " allowed"],
) -> list[list[int]]:
  """Returns the songs that each step is chosen from, each song in one only.

  The waypoints take turns: each takes the nearest song that none has taken.
  """
  most = min(_PER_STEP * len(waypoints), len(places))
  nearest = []
  for waypoint in waypoints:
    scores = (unit @ waypoint)[places]
    nearest.append(iter(places[search.best(scores, most)].tolist()))
  layers: list[list[int]] = [[] for _ in waypoints]
  seen: set[int] = set()
  for _ in range(_PER_STEP):
    for layer, rows in zip(layers, nearest, strict=True):
      row = next((one for one in rows if one not in seen), None)
      if row is not None:
        layer.append(row)
        seen.add(row)
  return layers


def between(
  unit: Float[np.ndarray, "songs d"],
  first: int,
  last: int,
  k: int,
  allowed: Bool[np.ndarray, " songs"] | None = None,
) -> Int[np.ndarray, " k"]:
  """Finds a path of k songs, which no song is in twice.

  Evenly spaced points lie on the arc between the two songs; each step is one of
  the 32 songs nearest to its point, such that the sum of the squared distances
  from song to song is the least.

  Args:
    unit: vector of each song, of length one.
    first: row of the song that the path begins with.
    last: row of the song that it ends with.
    k: how many songs, with these two.
    allowed: the songs that may lie between them; all if None.

  Raises:
    InputError: the two songs are one, or there are too few others.
  """
  if first == last:
    raise errors.InputError(
      "the path begins and ends with the same song: give two songs."
    )
  free = np.ones(len(unit), bool) if allowed is None else allowed.copy()
  free[[first, last]] = False
  places = np.flatnonzero(free)
  if not 2 <= k <= len(places) + 2:
    raise errors.InputError(
      f"-k is {k}, and a path has at least its two ends and at most the "
      f"{len(places)} songs that may lie between them in addition: give 2 to "
      f"{len(places) + 2}."
    )
  layers = [[first], [last]]
  if k > 2:
    waypoints = _waypoints(unit[first], unit[last], k - 2)
    layers[1:1] = _layers(unit, waypoints, places)
  return np.array(_least_steps(unit, layers), np.int64)


def _least_steps(
  unit: Float[np.ndarray, "songs d"], layers: list[list[int]]
) -> list[int]:
  """Takes a song of each layer so that the squared steps are least in sum."""
  cost = np.zeros(len(layers[0]))
  came_from = []
  for before, after in zip(layers, layers[1:], strict=False):
    steps = 2 - 2 * (unit[before] @ unit[after].T).astype(np.float64)
    total = cost[:, None] + steps
    came_from.append(total.argmin(axis=0))
    cost = total.min(axis=0)
  place = int(cost.argmin())
  found = [layers[-1][place]]
  for layer, previous in zip(layers[-2::-1], came_from[::-1], strict=True):
    place = int(previous[place])
    found.append(layer[place])
  return found[::-1]
