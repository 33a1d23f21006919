"""Looks new songs up in a known library: precision at 5."""

from typing import Any

from jaxtyping import Float, Int
import numpy as np

from pcl_jax.data import catalogues
from pcl_jax.data import ragged
from pcl_jax.embedding import search
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
  lists = {
    "sub-genre": relevance.sub_genres(catalogue),
    "artist": catalogue.artists,
  }
  rows = embeddings.astype(np.float32)
  found, _ = search.top_k(rows[queries], rows, NEAREST, excluded=queries)
  results = {}
  for name, values in lists.items():
    shares = _precisions(values, queries, found)
    shares = shares[~np.isnan(shares)]
    if len(shares):
      results[name] = {
        "precision_at_5": float(shares.mean()),
        "interval_95": list(bootstrap.bootstrap_interval(shares)),
        "queries": len(shares),
      }
  return results
