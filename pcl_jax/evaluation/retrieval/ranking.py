"""Retrieval: does the ranking of all candidates put what is alike first?

Scores, ranks and relevance are made for some queries at a time, so that memory
grows with the number of candidates and not with its square.
"""

from collections.abc import Iterator, Mapping
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Integer, UInt64
import numpy as np
import scipy.sparse

from pcl_jax.evaluation.retrieval import relevance

MEASURES = (
  "average_precision",
  "precision_at_5",
  "r_precision",
  "recall_at_1",
  "recall_at_5",
  "recall_at_10",
  "ndcg_at_10",
  "reciprocal_rank",
)
NEAREST = 10  # Songs of a list whose hubs are counted.
_MIN_NORM = 1e-8
_TILE_BYTES = 1 << 29  # Of scores and keys of a tile of queries.
_PER_SCORE = 24  # Bytes: the score, its key, the sorted key, what is between.


@dataclasses.dataclass(frozen=True)
class Ranks:
  """Where the relevant candidates of some queries stand.

  Attributes:
    ranks: from 1, ascending for each query, hidden candidates not counted.
    offsets: query i has ranks[offsets[i]:offsets[i + 1]].
  """

  ranks: Int[np.ndarray, " total"]
  offsets: Int[np.ndarray, " ends"]

  @property
  def counts(self) -> Int[np.ndarray, " queries"]:
    """Relevant candidates of each query."""
    return np.diff(self.offsets)

  @property
  def owners(self) -> Int[np.ndarray, " total"]:
    """The query of each rank."""
    return np.repeat(np.arange(len(self.counts)), self.counts)

  def sums(self, values: np.ndarray) -> Float[np.ndarray, " queries"]:
    """Adds what belongs to the same query; [total] -> [queries]."""
    sums = np.bincount(self.owners, values, minlength=len(self.counts))
    return sums.astype(np.float64)  # Without values they are integers.


def unit(rows: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
  """Returns rows of length one; a row of zeros stays."""
  norms = np.linalg.norm(rows, axis=1, keepdims=True)
  unit_rows = rows / np.maximum(norms, _MIN_NORM)
  return unit_rows.astype(np.float32, copy=False)


@jax.jit
def _products(
  queries: Float32[Array, "queries d"], candidates: Float32[Array, "c d"]
) -> Float32[Array, "queries c"]:
  return jnp.matmul(queries, candidates.T, precision=jax.lax.Precision.HIGHEST)


def sorting_keys(
  scores: Float32[np.ndarray, "queries candidates"],
) -> UInt64[np.ndarray, "queries candidates"]:
  """Returns numbers that sort as the ranking: best first, ties by their place.

  The upper half of a number is the score's bits, turned so that they ascend
  as the score falls; the lower half is the candidate's place.
  """
  bits = (scores + np.float32(0)).view(np.uint32)  # -0 becomes 0.
  negative = bits >> np.uint32(31) == 1
  falling = np.where(negative, bits, ~(bits | np.uint32(1 << 31)))
  keys = falling.astype(np.uint64) << np.uint64(32)
  return keys | np.arange(scores.shape[1], dtype=np.uint64)


def rank_tile(
  keys: UInt64[np.ndarray, "queries candidates"],
  ranked: UInt64[np.ndarray, "queries candidates"],
  relevant: scipy.sparse.csr_array,
  hidden: scipy.sparse.csr_array,
) -> Ranks:
  """Returns the ranks of the relevant candidates.

  Args:
    keys: of `sorting_keys`.
    ranked: the same, sorted along the candidates.
    relevant: [queries, candidates], not zero where a candidate is to be found.
    hidden: where it may not be found; nothing is both.
  """
  found = []
  for i in range(len(keys)):
    mine = relevant.indices[relevant.indptr[i] : relevant.indptr[i + 1]]
    gone = hidden.indices[hidden.indptr[i] : hidden.indptr[i + 1]]
    ranks = np.sort(np.searchsorted(ranked[i], keys[i, mine]))
    before = np.searchsorted(ranked[i], keys[i, gone])
    found.append(ranks - np.searchsorted(np.sort(before), ranks) + 1)
  counts = np.fromiter(map(len, found), np.int64, len(found))
  offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
  return Ranks(np.concatenate([np.zeros(0, np.int64), *found]), offsets)


def measures_of(ranks: Ranks) -> dict[str, Float[np.ndarray, " queries"]]:
  """Computes `MEASURES` of each query from the ranks of what is relevant.

  Args:
    ranks: of the relevant candidates.

  Returns:
    By name, [queries]; nan for a query without any relevant candidate.
  """
  place, counts = ranks.ranks, ranks.counts
  number = np.arange(len(place)) - ranks.offsets[:-1][ranks.owners] + 1
  with np.errstate(invalid="ignore", divide="ignore"):
    found = {
      "average_precision": ranks.sums(number / place) / counts,
      "precision_at_5": np.where(counts, ranks.sums(place <= 5) / 5, np.nan),
      "r_precision": ranks.sums(place <= counts[ranks.owners]) / counts,
    }
    for k in (1, 5, 10):
      found[f"recall_at_{k}"] = ranks.sums(place <= k) / counts
    gains = ranks.sums(np.where(place <= 10, 1 / np.log2(place + 1), 0.0))
    ideal = np.cumsum(1 / np.log2(np.arange(2, 12)))
    best = np.where(counts, ideal[np.clip(counts, 1, 10) - 1], np.nan)
    found["ndcg_at_10"] = gains / best
    first = np.where(number == 1, 1 / place, 0.0)
    found["reciprocal_rank"] = np.where(counts, ranks.sums(first), np.nan)
  return found


def _tiles(
  queries: Float[np.ndarray, "queries d"],
  candidates: Float[np.ndarray, "candidates d"],
  tile_bytes: int,
) -> Iterator[tuple[slice, UInt64[np.ndarray, "some candidates"]]]:
  """Yields some queries at a time and the keys of all candidates for them."""
  size = max(1, min(len(queries), tile_bytes // _PER_SCORE // len(candidates)))
  rows, others = unit(queries), jnp.asarray(unit(candidates))
  for begin in range(0, len(rows), size):
    some = slice(begin, min(begin + size, len(rows)))
    tile = np.zeros((size, rows.shape[1]), np.float32)  # One compiled shape.
    tile[: some.stop - begin] = rows[some]
    scores = np.asarray(_products(tile, others))[: some.stop - begin]
    yield some, sorting_keys(scores)


def measure(
  embeddings: Float[np.ndarray, "songs d"],
  queries: Integer[np.ndarray, " queries"],
  candidates: Integer[np.ndarray, " candidates"],
  rules: Mapping[str, relevance.Relevance],
  *,
  tile_bytes: int = _TILE_BYTES,
) -> tuple[
  dict[str, dict[str, Float[np.ndarray, " queries"]]],
  Int[np.ndarray, "queries k"],
]:
  """Ranks the candidates of each query by cosine and measures the ranking.

  Args:
    embeddings: of all songs, finite, [songs, d].
    queries: songs.
    candidates: songs, none twice; a query never finds itself.
    rules: name -> what counts as alike.
    tile_bytes: of scores and keys held at once.

  Returns:
    For each rule the `MEASURES` of each query, nan where nothing is relevant;
    and the places (in `candidates`) of each query's 10 nearest, best first,
    fewer where there are fewer.
  """
  columns = {
    name: {one: np.full(len(queries), np.nan) for one in MEASURES}
    for name in rules
  }
  nothing = relevance.Relevance(scipy.sparse.csr_array((len(embeddings), 1)))
  within = int(np.isin(queries, candidates).any())
  k = min(NEAREST, len(candidates) - within)
  nearest = np.zeros((len(queries), k), np.int64)
  tiles = _tiles(embeddings[queries], embeddings[candidates], tile_bytes)
  for some, keys in tiles:
    ranked = np.sort(keys, axis=1)
    for name, rule in rules.items():
      relevant, hidden = rule.pairs(queries[some], candidates)
      found = measures_of(rank_tile(keys, ranked, relevant, hidden))
      for one, values in found.items():
        columns[name][one][some] = values
    _, itself = nothing.pairs(queries[some], candidates)
    nearest[some] = _first(ranked, itself, k)
  return columns, nearest


def _first(
  ranked: UInt64[np.ndarray, "some candidates"],
  hidden: scipy.sparse.csr_array,
  k: int,
) -> Int[np.ndarray, "some k"]:
  """Returns the places of the k best that are not hidden (one at most is)."""
  best = (ranked[:, : k + 1] & np.uint64(0xFFFFFFFF)).astype(np.int64)
  own = np.full(len(ranked), -1)
  own[np.repeat(np.arange(len(ranked)), np.diff(hidden.indptr))] = (
    hidden.indices
  )
  kept = best != own[:, None]
  # Where the query itself is not among the first, the last one goes.
  kept[kept.all(axis=1), k:] = False
  return best[kept].reshape(len(ranked), k)


def occurrences(
  nearest: Int[np.ndarray, "queries k"], candidates: int
) -> Int[np.ndarray, " candidates"]:
  """Counts in how many queries' lists each candidate stands.

  Args:
    nearest: places of each query's nearest candidates.
    candidates: how many there are.
  """
  return np.bincount(nearest.ravel(), minlength=candidates)
