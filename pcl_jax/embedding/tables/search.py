"""The nearest vectors by cosine, exact, and the continuation of playlists."""

from collections.abc import Callable, Iterator
import dataclasses
import functools
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from pcl_jax.common import errors

NONE = -1  # Index of no candidate.
NEIGHBOURS = 100  # How many songs each song of a playlist lists.
_MIN_NORM = 1e-8
_BLOCK = 256  # Scores whose highest one is looked at first.
SPARE = 64  # Rows, besides k, whose cosines are computed again.
_RANKED = 1 << 14  # Rows whose cosines are computed again at once.
_KEPT_BYTES = 2 << 30  # Candidates of up to this size stay on the device.

_Best = tuple[Float[Array, "queries k"], Int[Array, "queries k"]]


@dataclasses.dataclass(frozen=True)
class Found:
  """Songs, best first."""

  rows: Int[np.ndarray, " found"]  # Among the vectors that were searched.
  # The cosine with the query, or the mean cosine with the playlist.
  scores: Float[np.ndarray, " found"]
  # How many songs of the playlist list it; None for a query.
  lists: Int[np.ndarray, " found"] | None = None


def unit(rows: Any) -> Any:
  """Returns rows of length one; rows of zeros stay. For numpy and jax."""
  norms = (rows * rows).sum(axis=1, keepdims=True) ** 0.5
  return rows / norms.clip(_MIN_NORM)


_unit = jax.jit(unit)


def unit_row(row: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
  """Returns a vector of length one, float32; one of zeros stays."""
  return unit(np.asarray(row, np.float32)[None])[0]


def cosines(
  queries: Float[Array, "queries d"], candidates: Float[Array, "c d"]
) -> Float[Array, "queries c"]:
  """Returns the cosines of rows of length one; to be compiled."""
  return jnp.matmul(queries, candidates.T, precision=lax.Precision.HIGHEST)


@jax.jit
def _merge(
  queries: Float[Array, "queries d"],
  candidates: Float[Array, "c d"],
  first: Int[Array, ""],
  hidden: Bool[Array, " c"],
  excluded: Int[Array, " queries"],
  best: _Best,
) -> _Best:
  """Adds a tile of candidates, from index `first` on, to the best so far."""
  scores = cosines(queries, candidates)
  index = first + jnp.arange(len(candidates), dtype=jnp.int32)
  hidden = hidden[None, :] | (index[None, :] == excluded[:, None])
  scores = jnp.where(hidden, -jnp.inf, scores)
  # Earlier tiles stand first: top_k then prefers the lower index in a tie.
  scores = jnp.concatenate([best[0], scores], axis=1)
  index = jnp.broadcast_to(index[None, :], hidden.shape)
  index = jnp.concatenate([best[1], jnp.where(hidden, NONE, index)], axis=1)
  scores, at = lax.top_k(scores, best[0].shape[1])
  return scores, jnp.take_along_axis(index, at, axis=1)


def _tiles(
  rows: Float[np.ndarray, "n d"], name: str, size: int
) -> Iterator[tuple[int, Float[Array, "size d"]]]:
  """Yields the first index and the unit rows of each tile."""
  for first in range(0, len(rows), size):
    tile = np.zeros((size, rows.shape[1]), np.float32)
    part = rows[first : first + size]
    tile[: len(part)] = part
    finite = np.isfinite(tile).all(axis=1)
    if not finite.all():
      raise errors.InputError(
        f"row {first + int(np.argmin(finite))} of the {name} has values that "
        "are not finite numbers, so that nothing is near it: leave it out."
      )
    yield first, _unit(tile)


def _unseen(
  count: int, size: int, hidden: Int[np.ndarray, " hidden"] | None
) -> Bool[np.ndarray, " more"]:
  """Tells which rows may not be found: hidden ones, those that fill a tile."""
  unseen = np.ones(count + size, bool)
  unseen[:count] = False
  if hidden is not None:
    unseen[hidden] = True
  return unseen


def top_k(
  queries: Float[np.ndarray, "n d"],
  candidates: Float[np.ndarray, "m d"],
  k: int,
  *,
  excluded: Int[np.ndarray, " n"] | None = None,
  hidden: Int[np.ndarray, " hidden"] | None = None,
  query_tile: int = 1024,
  candidate_tile: int = 8192,
) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
  """Finds the candidates of the highest cosine with each query, exactly.

  One tile of the scores is held at a time. A row of length zero has the cosine
  0 with everything. `excluded` has the index of the candidate that each query
  may not find, or -1; `hidden` has those of candidates that none may find.

  Returns:
    Indices int32 [n, k] of the candidates, best first, ties by the lower index,
    and their cosines, float32 [n, k]. Where fewer than k candidates may be
    found, the rest is filled with the index -1 and the cosine -inf.

  Raises:
    InputError: a row has values that are not finite.
  """
  if k < 1:
    raise ValueError(f"k is {k}; it is at least 1")
  n, m = len(queries), len(candidates)
  indices = np.full((n, k), NONE, np.int32)
  scores = np.full((n, k), -np.inf, np.float32)
  if excluded is None:
    excluded = np.full(n, NONE, np.int32)
  # One row at least, so that a tile has a size where there is nothing.
  query_tile, width = min(query_tile, max(n, 1)), min(candidate_tile, max(m, 1))
  unseen = _unseen(m, width, hidden)
  tiles = functools.partial(_tiles, candidates, "candidates", width)
  if candidates.size * 4 <= _KEPT_BYTES and n > query_tile:
    kept = list(tiles())
    tiles = functools.partial(iter, kept)
  for start in range(0, n, query_tile):
    ((_, unit),) = _tiles(queries[start:][:query_tile], "queries", query_tile)
    count = min(query_tile, n - start)
    without = np.full(query_tile, NONE, np.int32)
    without[:count] = excluded[start:][:count]
    best = (
      jnp.full((query_tile, k), -jnp.inf, jnp.float32),
      jnp.full((query_tile, k), NONE, jnp.int32),
    )
    for first, tile in tiles():
      best = _merge(unit, tile, first, unseen[first:][:width], without, best)
    scores[start:][:count] = np.asarray(best[0])[:count]
    indices[start:][:count] = np.asarray(best[1])[:count]
  return indices, scores


def best(
  scores: Float[np.ndarray, " rows"], k: int
) -> Int[np.ndarray, " found"]:
  """Returns the rows of the k highest scores, best first.

  Ties go to the lower row. Of fewer scores than k, all are returned.
  """
  count = len(scores)
  rows = np.arange(count)
  blocks = count // _BLOCK
  if k < count:
    if k < blocks:  # The k-th highest of all is at least that of the blocks.
      some = scores[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
    else:
      some = scores
    least = np.partition(some, len(some) - k)[len(some) - k]
    rows = np.flatnonzero(scores >= least)
  return rows[np.lexsort((rows, -scores[rows]))[:k]]


def nearest_rows(
  unit: Float[np.ndarray, "rows d"],
  query: Float[np.ndarray, " d"],
  k: int,
  hidden: Int[np.ndarray, " hidden"] | None = None,
) -> Found:
  """Finds the rows of the highest cosine with one query, exactly.

  It is a matrix-vector product and reads each row once: quicker than `top_k`
  for one query. Equal rows have equal cosines, and the lower one comes first.

  Args:
    unit: vectors of length one.
    query: a vector of any length.
    k: how many.
    hidden: rows that may not be found.
  """
  query = unit_row(query)
  return nearest_scored(unit, query, unit @ query, k, hidden)


def nearest_scored(
  unit: Float[np.ndarray, "rows d"],
  query: Float[np.ndarray, " d"],
  scores: Float[np.ndarray, " rows"],
  k: int,
  hidden: Int[np.ndarray, " hidden"] | None = None,
) -> Found:
  """Finds what `nearest_rows` does, where the rows' products are known.

  The hidden rows' scores are overwritten.
  """
  if hidden is not None:
    scores[hidden] = -np.inf
  rows = best(scores, k + SPARE)
  return ranked(unit, rows[scores[rows] > -np.inf], query, k)


def ranked(
  unit: Float[np.ndarray, "rows d"],
  rows: Int[np.ndarray, " some"],
  query: Float[np.ndarray, " d"],
  k: int,
) -> Found:
  """Ranks a few rows by their cosines with a query of length one.

  Equal rows have equal cosines, and the lower one comes first.
  """
  exact = np.empty(len(rows), np.float64)
  for first in range(0, len(rows), _RANKED):
    part = slice(first, first + _RANKED)
    # In this order of adding, unlike in a product's, the row's place is without
    # influence on the last bit.
    exact[part] = (unit[rows[part]].astype(np.float64) * query).sum(axis=1)
  order = np.lexsort((rows, -exact))[:k]
  return Found(rows[order], exact[order].astype(np.float32))


def rank_by_votes(
  lists: Int[np.ndarray, "..."],
  mean_cosines: Callable[[np.ndarray], Float[np.ndarray, " found"]],
  k: int,
) -> tuple[Found, int]:
  """Ranks what the songs of a playlist list: the paper's rule.

  A candidate ranks by how many lists hold it, then by its mean cosine with the
  playlist, then by its index.

  Returns:
    The best k, and how many distinct candidates the lists hold.
  """
  found, counts = np.unique(lists, return_counts=True)
  distinct = len(found)
  if distinct > k:
    # Those with fewer votes than the k-th come after it: no cosine is needed.
    enough = counts >= np.partition(counts, distinct - k)[distinct - k]
    found, counts = found[enough], counts[enough]
  scores = mean_cosines(found)
  order = np.lexsort((found, -scores, -counts))[:k]
  return Found(found[order], scores[order], counts[order]), distinct


def continue_playlist(
  vectors: Float[np.ndarray, "songs d"],
  members: Int[np.ndarray, " members"],
  k: int,
  *,
  most: int | None = None,
) -> Found:
  """Finds the songs that go best with a playlist.

  Each member, a row of the vectors, lists its 100 nearest songs outside of the
  playlist (k, if that is more), and `rank_by_votes` ranks them. There may be
  fewer than k. With `most`, so many are returned of the same ranking.
  """
  length = min(max(NEIGHBOURS, k), len(vectors) - len(members))
  lists, _ = top_k(vectors[members], vectors, max(length, 1), hidden=members)
  centre = unit(vectors[members]).mean(axis=0)
  found, _ = rank_by_votes(
    lists[lists != NONE],
    lambda some: unit(vectors[some]) @ centre,
    most or k,
  )
  return found
