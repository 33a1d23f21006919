"""Looks new songs up in a known library: precision at 5."""

import itertools
from typing import Any

from jaxtyping import Float, Int
import numpy as np
import scipy.sparse

from pcl_jax.data import catalogues
from pcl_jax.data import ragged
from pcl_jax.embedding.tables import search
from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation.retrieval import relevance

NEAREST = 5


def _precisions(
  lists: ragged.Ragged,
  queries: Int[np.ndarray, " queries"],
  found: Int[np.ndarray, "queries k"],
) -> Float[np.ndarray, " queries"]:
  """Returns the share of found songs that share a value with the query.

  Args:
    lists: values of every song.
    queries: songs.
    found: songs, -1 for none.

  Returns:
    [queries]; nan for a query that shares a value with no other song.
  """
  has = relevance.as_matrix(lists)
  several = np.asarray(has.sum(axis=0)).ravel() >= 2
  findable = has[queries] @ several.astype(np.int32) > 0
  every = np.repeat(queries, found.shape[1])
  common = has[every].multiply(has[np.maximum(found, 0).ravel()]).sum(axis=1)
  hits = (np.asarray(common).reshape(found.shape) > 0) & (found >= 0)
  # Where there are fewer than k other songs, of all that there are.
  shares = hits.sum(axis=1) / np.maximum((found >= 0).sum(axis=1), 1)
  return np.where(findable, shares, np.nan)


def _shares_by_chance(
  lists: ragged.Ragged, queries: Int[np.ndarray, " queries"]
) -> Float[np.ndarray, " queries"]:
  """Returns the share of all other songs that share a value with the query."""
  has = relevance.as_matrix(lists)
  # Songs of the same values are counted together: few differ.
  names = [
    has.indices[a:b].tobytes() for a, b in itertools.pairwise(has.indptr)
  ]
  first: dict[bytes, int] = {}
  kind = np.array([first.setdefault(name, len(first)) for name in names])
  songs = np.zeros(len(first), np.int64)
  songs[kind[::-1]] = np.arange(len(has.indptr) - 1)[::-1]
  kinds = has[songs]
  counts = np.bincount(kind)
  common = scipy.sparse.csr_array(kinds[np.unique(kind[queries])] @ kinds.T)
  common.data[:] = 1
  alike = np.zeros(len(first), np.int64)
  alike[np.unique(kind[queries])] = common @ counts
  others = alike[kind[queries]] - 1  # Without the query.
  return np.where(others > 0, others / max(len(kind) - 1, 1), np.nan)


def by_chance(catalogue: catalogues.Catalogue) -> dict[str, Any]:
  """Returns what songs at random give, on average, as `precisions`."""
  queries = catalogue.rows_of(catalogues.TEST)
  shares = {
    name: _shares_by_chance(lists, queries)
    for name, lists in _lists(catalogue).items()
  }
  return _summary(shares)


def precisions(
  catalogue: catalogues.Catalogue, embeddings: Float[np.ndarray, "songs d"]
) -> dict[str, Any]:
  """Measures how often the nearest songs share a sub-genre or an artist.

  Args:
    catalogue: the songs.
    embeddings: vectors of all songs, [songs, d].

  Returns:
    For `sub-genre` and `artist`: the mean precision at 5 over the test songs,
    its 95 % bootstrap interval, and the number of queries, which are the test
    songs that share something with another song.
  """
  queries = catalogue.rows_of(catalogues.TEST)
  rows = np.asarray(embeddings, np.float32)
  found, _ = search.top_k(rows[queries], rows, NEAREST, excluded=queries)
  shares = {
    name: _precisions(lists, queries, found)
    for name, lists in _lists(catalogue).items()
  }
  return _summary(shares)


def _lists(catalogue: catalogues.Catalogue) -> dict[str, ragged.Ragged]:
  return {
    "sub-genre": relevance.sub_genres(catalogue),
    "artist": catalogue.artists,
  }


def _summary(
  by_name: dict[str, Float[np.ndarray, " queries"]],
) -> dict[str, Any]:
  results = {}
  for name, shares in by_name.items():
    shares = shares[~np.isnan(shares)]
    if len(shares):
      results[name] = {
        "precision_at_5": float(shares.mean()),
        "interval_95": list(bootstrap.bootstrap_interval(shares)),
        "queries": len(shares),
      }
  return results
