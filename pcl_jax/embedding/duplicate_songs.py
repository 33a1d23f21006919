"""Finds songs that are one recording: other encodings, levels, trims of it.

Pairs whose vectors are near are laid over each other, feature on feature.
"""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float, Int
import numpy as np
import scipy.sparse
from scipy.sparse import csgraph
import tqdm

from pcl_jax.audio import alignment
from pcl_jax.common import errors
from pcl_jax.embedding.tables import search

CORRELATION = 0.9  # From here on two songs are one recording.
_CACHED_BYTES = 1 << 28  # Of features that are held: 12 hours.
_Features = Callable[[int], Float[np.ndarray, "frames bands"]]


class Duplicate(NamedTuple):
  """Two songs that are one recording.

  Attributes:
    first: row of a song.
    second: row of the other one, the higher.
    correlation: of their features where they lie over each other.
    shift: how many frames later the second begins in the first.
  """

  first: int
  second: int
  correlation: float
  shift: int


def candidates(
  unit: Float[np.ndarray, "songs d"], k: int, least: float
) -> Int[np.ndarray, "pairs 2"]:
  """Returns pairs of songs, one of which is among the k nearest of the other.

  Args:
    unit: vector of each song, of length one; songs of zeros are in no pair.
    k: how many neighbours of each song are taken.
    least: the least cosine.

  Returns:
    Rows, the lower one first, in ascending order; each pair once.
  """
  count = len(unit)
  if count < 2:
    return np.zeros((0, 2), np.int64)
  rows = np.arange(count, dtype=np.int32)
  others, cosines = search.top_k(unit, unit, min(k, count - 1), excluded=rows)
  near = (cosines >= least) & unit.any(axis=1)[:, None]
  pairs = np.stack([np.nonzero(near)[0], others[near]], axis=1)
  return np.unique(np.sort(pairs, axis=1), axis=0).astype(np.int64)


def _bytes(features: dict[int, np.ndarray]) -> int:
  return sum(one.nbytes for one in features.values())


def confirm(
  pairs: Int[np.ndarray, "pairs 2"],
  feature: _Features,
  *,
  least: float = CORRELATION,
) -> tuple[list[Duplicate], dict[int, str]]:
  """Lays the songs of each pair over each other.

  Args:
    pairs: as `candidates` returns them.
    feature: reads the feature of a song by its row, [frames, bands]; raises
      InputError or OSError where it cannot.
    least: the least correlation of one recording.

  Returns:
    The pairs that are one recording, and why songs could not be read, by row.
  """
  unread: dict[int, str] = {}
  held: dict[int, np.ndarray] = {}  # The last ones used are the last here.

  def read(row: int) -> np.ndarray | None:
    if row in unread:
      return None
    try:
      held[row] = held.pop(row) if row in held else feature(row)
    except (errors.InputError, OSError) as error:
      unread[row] = getattr(error, "reason", str(error))
      return None
    while len(held) > 1 and _bytes(held) > _CACHED_BYTES:
      del held[next(iter(held))]
    return held[row]

  found = []
  for first, second in tqdm.tqdm(pairs.tolist(), "pairs", disable=None):
    features = read(first), read(second)
    if all(one is not None for one in features):
      result = alignment.align(*features)
      if result.correlation >= least:
        found.append(Duplicate(first, second, *result))
  return found, unread


def groups(
  pairs: Int[np.ndarray, "pairs 2"], count: int
) -> list[Int[np.ndarray, " members"]]:
  """Returns the groups of songs that pairs connect, without songs alone.

  Args:
    pairs: rows of songs.
    count: how many songs there are.
  """
  edges = scipy.sparse.coo_array(
    (np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (count, count)
  )
  _, labels = csgraph.connected_components(edges, directed=False)
  order = np.argsort(labels, kind="stable")
  cuts = np.flatnonzero(np.diff(labels[order])) + 1
  found = [one for one in np.split(order, cuts) if len(one) > 1]
  return sorted(found, key=lambda one: one[0])
