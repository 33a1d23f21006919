"""Which songs are like which: those that share an artist, an album, a genre."""

import dataclasses

from jaxtyping import Int, Integer
import numpy as np
import scipy.sparse

from pcl_jax.data import catalogues
from pcl_jax.data import ragged


def sub_genres(catalogue: catalogues.Catalogue) -> ragged.Ragged:
  """Returns the sub-genres of each song: codes that do not end in 00."""
  names = np.concatenate([["00"], catalogue.genre_codes])
  detailed = ~np.char.endswith(names, "00")
  return catalogue.genres.keep(detailed[catalogue.genres.values])


def without_large(lists: ragged.Ragged, most: int) -> ragged.Ragged:
  """Drops values that more than `most` songs have.

  `Various artists` and the like are no artist: those who share it need not be
  alike.
  """
  counts = np.bincount(lists.values, minlength=1)
  return lists.keep(counts[lists.values] <= most)


def as_matrix(lists: ragged.Ragged) -> scipy.sparse.csr_array:
  """Returns 1 where a song has a value, int32 [songs, values]."""
  size = int(lists.values.max(initial=-1)) + 1
  ones = np.ones(len(lists.values), np.int32)
  made = scipy.sparse.csr_array(
    (ones, lists.values, lists.offsets), shape=(len(lists), max(size, 1))
  )
  made.sum_duplicates()
  made.data[:] = 1
  return made


@dataclasses.dataclass(frozen=True)
class Relevance:
  """When a candidate answers a query.

  Attributes:
    shared: 1 where a song has a value, [songs, values].
    at_least: values that both must have.
    hiding: candidates that share one of these values with the query may not be
      found at all, [songs, values]; None for no such rule.
  """

  shared: scipy.sparse.csr_array
  at_least: int = 1
  hiding: scipy.sparse.csr_array | None = None

  @classmethod
  def of(
    cls,
    lists: ragged.Ragged,
    *,
    at_least: int = 1,
    hiding: ragged.Ragged | None = None,
  ) -> "Relevance":
    """Makes the rule from lists of each song's values."""
    hidden = None if hiding is None else as_matrix(hiding)
    return cls(as_matrix(lists), at_least, hidden)

  def pairs(
    self,
    queries: Integer[np.ndarray, " queries"],
    candidates: Integer[np.ndarray, " candidates"],
  ) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]:
    """Returns which candidates answer, and which may not be found.

    Args:
      queries: songs.
      candidates: songs, none twice.

    Returns:
      Two sparse matrices [queries, candidates], true where a candidate is
      relevant, and where it is hidden; the query itself always is, and what
      is hidden is not relevant.
    """
    hidden = _itself(queries, candidates)
    if self.hiding is not None:
      hidden = hidden + _shares(self.hiding, queries, candidates, 1)
      hidden.data[:] = 1
    relevant = _shares(self.shared, queries, candidates, self.at_least)
    relevant = relevant - relevant.multiply(hidden)
    relevant.eliminate_zeros()
    return relevant, hidden


def _shares(
  matrix: scipy.sparse.csr_array,
  queries: Integer[np.ndarray, " queries"],
  candidates: Integer[np.ndarray, " candidates"],
  at_least: int,
) -> scipy.sparse.csr_array:
  common = scipy.sparse.csr_array(matrix[queries] @ matrix[candidates].T)
  common.data = (common.data >= at_least).astype(np.int32)
  common.eliminate_zeros()
  return common


def _itself(
  queries: Integer[np.ndarray, " queries"],
  candidates: Integer[np.ndarray, " candidates"],
) -> scipy.sparse.csr_array:
  order = np.argsort(candidates, kind="stable")
  place = catalogues.find_rows(candidates[order], queries)
  rows = np.flatnonzero(place >= 0)
  columns: Int[np.ndarray, " n"] = order[place[rows]]
  ones = np.ones(len(rows), np.int32)
  shape = (len(queries), len(candidates))
  return scipy.sparse.csr_array((ones, (rows, columns)), shape=shape)
