"""The nearest vectors by cosine: exact, in tiles of fixed shape."""

from collections.abc import Iterator
import functools

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from pcl_jax.common import errors

NONE = -1  # Index of no candidate.
_MIN_NORM = 1e-8
_KEPT_BYTES = 2 << 30  # Candidates of up to this size stay on the device.

_Best = tuple[Float[Array, "queries k"], Int[Array, "queries k"]]


@jax.jit
def _unit(rows: Float[Array, "n d"]) -> Float[Array, "n d"]:
  norms = jnp.linalg.norm(rows, axis=1, keepdims=True)
  return rows / jnp.maximum(norms, _MIN_NORM)


@jax.jit
def _merge(
  queries: Float[Array, "queries d"],
  candidates: Float[Array, "c d"],
  first: Int[Array, ""],
  total: Int[Array, ""],
  excluded: Int[Array, " queries"],
  best: _Best,
) -> _Best:
  """Adds a tile of candidates to the best so far.

  Args:
    queries: of length one.
    candidates: of length one; behind the last candidate anything.
    first: index of the first of them.
    total: number of candidates in all tiles.
    excluded: index that each query may not find.
    best: scores, and the indices they belong to, of earlier tiles.
  """
  product = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
  scores = product(queries, candidates.T)
  index = first + jnp.arange(len(candidates), dtype=jnp.int32)
  hidden = (index >= total)[None, :] | (index[None, :] == excluded[:, None])
  scores = jnp.where(hidden, -jnp.inf, scores)
  # Earlier tiles stand first: top_k then prefers the lower index in a tie.
  scores = jnp.concatenate([best[0], scores], axis=1)
  index = jnp.broadcast_to(index[None, :], hidden.shape)
  index = jnp.concatenate([best[1], jnp.where(hidden, NONE, index)], axis=1)
  scores, at = lax.top_k(scores, best[0].shape[1])
  return scores, jnp.take_along_axis(index, at, axis=1)


def _check(rows: Float[np.ndarray, "n d"], name: str, first: int) -> None:
  finite = np.isfinite(rows).all(axis=1)
  if not finite.all():
    raise errors.InputError(
      f"row {first + int(np.argmin(finite))} of the {name} has values that are "
      "not finite numbers, so that nothing is near to it: leave it out."
    )


def _tiles(
  rows: Float[np.ndarray, "n d"], name: str, size: int
) -> Iterator[tuple[int, Float[Array, "size d"]]]:
  """Yields the first index and the unit rows of each tile."""
  for first in range(0, len(rows), size):
    tile = np.zeros((size, rows.shape[1]), np.float32)
    part = rows[first : first + size]
    tile[: len(part)] = part
    _check(tile, name, first)
    yield first, _unit(tile)


def top_k(
  queries: Float[np.ndarray, "n d"],
  candidates: Float[np.ndarray, "m d"],
  k: int,
  *,
  excluded: Int[np.ndarray, " n"] | None = None,
  query_tile: int = 1024,
  candidate_tile: int = 8192,
) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
  """Finds the candidates of the highest cosine with each query, exactly.

  The whole of the scores is never held: one tile of them is, beside the result.
  A row of length zero has the cosine 0 with everything.

  Args:
    queries: any length, [n, d].
    candidates: any length, [m, d].
    k: how many to find; at least 1.
    excluded: for each query the index of a candidate that it may not find, -1
      for none; by default none.
    query_tile: how many queries are compared at once.
    candidate_tile: with how many candidates.

  Returns:
    Indices int32 [n, k] of the candidates, best first, ties by the lower index,
    and their cosines float32 [n, k]. Where there are fewer than k candidates
    to be found, the rest is filled with the index -1 and the cosine -inf.

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
      best = _merge(unit, tile, first, m, without, best)
    scores[start:][:count] = np.asarray(best[0])[:count]
    indices[start:][:count] = np.asarray(best[1])[:count]
  return indices, scores
