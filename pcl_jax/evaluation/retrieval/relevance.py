"""Says which songs are alike: those that share an artist, an album, a genre."""

import dataclasses

from jaxtyping import Integer
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
  """Drops values of more than `most` songs, such as `various artists`."""
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
  """The rule by which a candidate is relevant to a query.

  Attributes:
    shared: 1 where a song has a value, [songs, values].
    at_least: number of values that both must have.
    hiding: 1 where a song has a value, [songs, values]; a candidate that shares
      one of these with the query is not ranked at all. None for no such rule.
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
    """Returns which candidates are relevant, and which are hidden.

    Args:
      queries: songs.
      candidates: songs, none twice.

    Returns:
      Two sparse matrices [queries, candidates], 1 where a candidate is
      relevant, and where it is hidden; the query itself always is, and no
      candidate is both.
    """
    place_of = np.full(self.shared.shape[0], -1)
    place_of[candidates] = np.arange(len(candidates))
    rows = np.flatnonzero(place_of[queries] >= 0)
    hidden = scipy.sparse.csr_array(
      (np.ones(len(rows), np.int32), (rows, place_of[queries[rows]])),
      shape=(len(queries), len(candidates)),
    )
    if self.hiding is not None:
      hidden = hidden + _shares(self.hiding, queries, candidates, 1)
      hidden.data[:] = 1
    relevant = _shares(self.shared, queries, candidates, self.at_least)
    relevant = relevant - relevant.multiply(hidden)
    relevant.eliminate_zeros()
    return relevant, hidden


def _shares(
  matrix: scipy.sparse.csr_array,
  queries: np.ndarray,
  candidates: np.ndarray,
  at_least: int,
) -> scipy.sparse.csr_array:
  """Returns 1 where a query and a candidate share so many values."""
  common = scipy.sparse.csr_array(matrix[queries] @ matrix[candidates].T)
  common.data = (common.data >= at_least).astype(np.int32)
  common.eliminate_zeros()
  return common
