"""Ranks all candidates of each query by cosine, and measures the ranking.

Scores, ranks and relevance are computed for some queries at a time, so that
memory grows with the number of candidates and not with its square.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Float32, Int, Integer, UInt64
import numpy as np
import scipy.sparse

from pcl_jax.embedding.tables import search
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
NEAREST = 10  # Length of the lists whose hubs are counted.
_TILE_BYTES = 1 << 29  # Scores and keys of a tile of queries.
_PER_SCORE = 24  # Bytes: the score, its key, the sorted key, what is between.


_products = jax.jit(search.cosines)
_Columns = dict[str, dict[str, Float[np.ndarray, " queries"]]]


class Ranked(NamedTuple):
  """What the rankings of queries are worth."""

  columns: _Columns  # Rule -> `MEASURES`; nan where nothing is relevant.
  by_chance: _Columns  # The same for a random order, on average.
  # Places among the candidates of each query's nearest ones, best first.
  nearest: Int[np.ndarray, "queries k"]


def sorting_keys(
  scores: Float32[np.ndarray, "queries candidates"],
) -> UInt64[np.ndarray, "queries candidates"]:
  """Returns numbers that sort as the ranking: best first, ties by their place.

  The upper half of a number contains the score's bits, changed so that they
  ascend as the score falls; the lower half is the candidate's place. Sorting
  them takes half the time of a stable argsort of the scores.
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
) -> list[Int[np.ndarray, " _"]]:
  """Returns the ranks of each query's relevant candidates, ascending, from 1.

  Args:
    keys: keys of the scores.
    ranked: the same keys, sorted along the candidates.
    relevant: [queries, candidates], not zero where a candidate is relevant.
    hidden: not zero where a candidate is not ranked; no candidate is both.
  """
  found = []
  for i in range(len(keys)):
    mine = relevant.indices[relevant.indptr[i] : relevant.indptr[i + 1]]
    gone = hidden.indices[hidden.indptr[i] : hidden.indptr[i + 1]]
    ranks = np.sort(np.searchsorted(ranked[i], keys[i, mine]))
    before = np.sort(np.searchsorted(ranked[i], keys[i, gone]))
    found.append(ranks - np.searchsorted(before, ranks) + 1)
  return found


def measures_of(
  ranks: Sequence[Int[np.ndarray, " _"]],
) -> dict[str, Float[np.ndarray, " queries"]]:
  """Computes `MEASURES` of each query from the ranks of what is relevant.

  Args:
    ranks: ranks of each query's relevant candidates, ascending, from 1.

  Returns:
    By name, [queries]; nan for a query without any relevant candidate.
  """
  counts = np.fromiter(map(len, ranks), np.int64, len(ranks))
  place = np.concatenate([np.zeros(0, np.int64), *ranks])
  query = np.repeat(np.arange(len(ranks)), counts)
  number = np.arange(len(place)) + 1 - (np.cumsum(counts) - counts)[query]

  def total(values: np.ndarray) -> np.ndarray:
    sums = np.bincount(query, values, minlength=len(ranks))
    return np.where(counts, sums, np.nan)

  ideal = np.cumsum(1 / np.log2(np.arange(2, 12)))
  found = {
    "average_precision": total(number / place) / np.maximum(counts, 1),
    "precision_at_5": total(place <= 5) / 5,
    "r_precision": total(place <= counts[query]) / np.maximum(counts, 1),
  }
  for k in (1, 5, 10):
    found[f"recall_at_{k}"] = total(place <= k) / np.maximum(counts, 1)
  gains = total(np.where(place <= 10, 1 / np.log2(place + 1), 0.0))
  found["ndcg_at_10"] = gains / ideal[np.clip(counts, 1, 10) - 1]
  found["reciprocal_rank"] = total(np.where(number == 1, 1 / place, 0.0))
  return found


def _first_rank(relevant: int, candidates: int) -> float:
  """Returns the mean of 1 / rank of the first relevant one, by chance."""
  ranks = np.arange(1, candidates - relevant + 2)
  # Whether none of the ranks before is relevant; then, whether this one is.
  others = (candidates - relevant - ranks[:-1] + 1) / (
    candidates - ranks[:-1] + 1
  )
  none_yet = np.concatenate([[1.0], np.cumprod(others)])
  return float((none_yet * relevant / (candidates - ranks + 1) / ranks).sum())


def chance(
  relevant: Int[np.ndarray, " queries"],
  candidates: Int[np.ndarray, " queries"],
) -> dict[str, Float[np.ndarray, " queries"]]:
  """Returns what a random order of the candidates gives on average, exactly.

  Args:
    relevant: number of relevant candidates of each query.
    candidates: number of candidates of each query, those hidden left out.

  Returns:
    `MEASURES` of each query; nan for a query without any relevant candidate.
  """
  kinds, kind = np.unique(
    np.stack([relevant, candidates]), axis=1, return_inverse=True
  )
  r, n = np.maximum(kinds[0], 1), np.maximum(kinds[1], 1)
  harmonic = np.cumsum(1 / np.arange(1, n.max(initial=1) + 1))[n - 1]
  gains = np.cumsum(1 / np.log2(np.arange(2, 12)))
  found = {
    # Given a relevant song in place i, others are before it by chance.
    "average_precision": (
      harmonic + (r - 1) / np.maximum(n - 1, 1) * (n - harmonic)
    )
    / n,
    "precision_at_5": np.minimum(n, 5) * r / n / 5,
    "r_precision": r / n,
    **{f"recall_at_{k}": np.minimum(n, k) / n for k in (1, 5, 10)},
    "ndcg_at_10": gains[np.minimum(n, 10) - 1]
    * r
    / n
    / gains[np.minimum(r, 10) - 1],
    "reciprocal_rank": np.array(
      [_first_rank(*one) for one in zip(r.tolist(), n.tolist(), strict=True)]
    ),
  }
  kind, defined = kind.reshape(-1), relevant > 0
  return {k: np.where(defined, v[kind], np.nan) for k, v in found.items()}


def _tiles(
  queries: Float[np.ndarray, "queries d"],
  candidates: Float[np.ndarray, "candidates d"],
  tile_bytes: int,
) -> Iterator[tuple[slice, UInt64[np.ndarray, "some candidates"]]]:
  """Yields some queries at a time and the keys of all candidates for them."""
  size = max(1, min(len(queries), tile_bytes // _PER_SCORE // len(candidates)))
  rows, others = search.unit(queries), jnp.asarray(search.unit(candidates))
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
) -> Ranked:
  """Ranks the candidates of each query by cosine and measures the ranking.

  Args:
    embeddings: vectors of all songs, finite, [songs, d].
    queries: songs.
    candidates: songs, none twice; a query never finds itself.
    rules: name -> rule by which songs are alike.
    tile_bytes: bytes of scores and keys that are held at once.

  Returns:
    The measures, and the 10 nearest of each query, fewer where there are fewer.
  """
  columns = {
    name: {one: np.full(len(queries), np.nan) for one in MEASURES}
    for name in rules
  }
  counts = {name: np.zeros((2, len(queries)), np.int64) for name in rules}
  k = min(NEAREST, len(candidates) - int(np.isin(queries, candidates).any()))
  nearest = np.zeros((len(queries), k), np.int64)
  place_of = np.full(len(embeddings), -1)
  place_of[candidates] = np.arange(len(candidates))
  tiles = _tiles(embeddings[queries], embeddings[candidates], tile_bytes)
  for some, keys in tiles:
    ranked = np.sort(keys, axis=1)
    for name, rule in rules.items():
      relevant, hidden = rule.pairs(queries[some], candidates)
      counts[name][:, some] = np.diff(relevant.indptr), np.diff(hidden.indptr)
      found = measures_of(rank_tile(keys, ranked, relevant, hidden))
      for one, values in found.items():
        columns[name][one][some] = values
    best = (ranked[:, : k + 1] & np.uint64(0xFFFFFFFF)).astype(np.int64)
    kept = best != place_of[queries[some], None]
    # Where the query itself is not among the first, the last one goes.
    kept[kept.all(axis=1), k:] = False
    nearest[some] = best[kept].reshape(len(best), k)
  by_chance = {
    name: chance(relevant, len(candidates) - hidden)
    for name, (relevant, hidden) in counts.items()
  }
  return Ranked(columns, by_chance, nearest)
