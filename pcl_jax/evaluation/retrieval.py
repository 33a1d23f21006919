"""Retrieval: are the nearest songs those that share a genre or an artist?"""

from jaxtyping import Bool, Float, Int
import numpy as np

from pcl_jax.data import catalogue as catalogues

_MIN_NORM = 1e-8


def cosines(
  queries: Float[np.ndarray, "queries d"],
  candidates: Float[np.ndarray, "candidates d"],
) -> Float[np.ndarray, "queries candidates"]:
  """Returns the cosine of each query with each candidate."""

  def unit(x):
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.maximum(norms, _MIN_NORM)

  return unit(queries) @ unit(candidates).T


def share_a_value(
  lists: catalogues.Ragged,
  queries: Int[np.ndarray, " queries"],
  candidates: Int[np.ndarray, " candidates"],
) -> Bool[np.ndarray, "queries candidates"]:
  """Tells which candidates share a value with which query; never itself.

  Args:
    lists: values (artists, genres) of every song.
    queries: songs.
    candidates: songs.
  """
  size = int(lists.values.max(initial=-1)) + 1
  has = np.zeros((len(lists), size), np.float32)
  has[lists.owners(), lists.values] = 1.0
  shared = has[queries] @ has[candidates].T > 0
  return shared & (queries[:, None] != candidates[None, :])


def _order(
  scores: Float[np.ndarray, "queries candidates"],
  excluded: Bool[np.ndarray, "queries candidates"],
) -> Int[np.ndarray, "queries candidates"]:
  """Ranks candidates, best first, ties by their place, excluded ones last."""
  return np.argsort(-np.where(excluded, -np.inf, scores), axis=1, kind="stable")


def precision_at(
  k: int,
  scores: Float[np.ndarray, "queries candidates"],
  relevant: Bool[np.ndarray, "queries candidates"],
  excluded: Bool[np.ndarray, "queries candidates"],
) -> Float[np.ndarray, " queries"]:
  """Computes the share of relevant songs among the k best, per query.

  Args:
    k: how many are looked at; at most the candidates that are not excluded.
    scores: higher is nearer.
    relevant: what should be found.
    excluded: what may not be found: the query itself.

  Returns:
    Precision at k, [queries]; nan for a query without any relevant candidate.
  """
  relevant = relevant & ~excluded
  best = _order(scores, excluded)[:, :k]
  found = np.take_along_axis(relevant, best, axis=1).mean(axis=1)
  return np.where(relevant.any(axis=1), found, np.nan)


def average_precision(
  scores: Float[np.ndarray, "queries candidates"],
  relevant: Bool[np.ndarray, "queries candidates"],
  excluded: Bool[np.ndarray, "queries candidates"],
) -> Float[np.ndarray, " queries"]:
  """Computes the average precision over the whole ranking, per query.

  Args:
    scores: higher is nearer.
    relevant: what should be found.
    excluded: what may not be found: the query itself.

  Returns:
    Mean of the precisions at the relevant ranks, [queries]; nan for a query
    without any relevant candidate.
  """
  relevant = relevant & ~excluded
  hits = np.take_along_axis(relevant, _order(scores, excluded), axis=1)
  precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
  total = hits.sum(axis=1)
  mean = (precision * hits).sum(axis=1) / np.maximum(total, 1)
  return np.where(total > 0, mean, np.nan)
