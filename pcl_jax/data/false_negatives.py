"""Which songs of a batch stand together in a playlist, or share other things.

The paper's loss treats such pairs as negatives; they may be left out, or be
positives. A device cannot hold the lists of all songs, but only few lists hold
two songs of one batch; these are numbered from 0 for each batch.
"""

from collections.abc import Sequence
import dataclasses

from jaxtyping import Int
import numpy as np
import scipy.sparse

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import ragged

KINDS = ("playlist", "artist", "album")
_LEAST_ENTRIES = 1024
_MOST_COUNTED = 4096  # Songs of a batch among which pairs are counted.


@dataclasses.dataclass(frozen=True)
class SharedLists:
  """The lists that each song of a catalogue stands in."""

  lists: ragged.Ragged

  @classmethod
  def of(
    cls, catalogue: catalogues.Catalogue, kinds: Sequence[str]
  ) -> "SharedLists | None":
    """Gathers lists of some of `KINDS`; returns None for no kind.

    Raises:
      InputError: a kind is unknown, or the catalogue has nothing of it.
    """
    found = [_members(catalogue, kind) for kind in kinds]
    if not found:
      return None
    songs = np.concatenate([members.values for members in found])
    lengths = np.concatenate([members.lengths for members in found])
    by_list = ragged.Ragged.from_lengths(songs, lengths)
    return cls(by_list.transposed(len(catalogue)))

  @classmethod
  def of_pairs(
    cls, catalogue: catalogues.Catalogue, pair_method: str
  ) -> "SharedLists":
    """Gathers the lists that one of `catalogues.PAIR_METHODS` draws from."""
    by_list = catalogue.pair_lists(pair_method)
    return cls(by_list.transposed(len(catalogue)))

  def entries(self, songs: Int[np.ndarray, " rows"]) -> Int[np.ndarray, "2 n"]:
    """Returns the rows of a batch of songs and the lists that several share.

    Returns:
      Row and list of each entry, int32 [2, n]; lists are numbered from 0 and
      fewer than n / 2. n is a power of two, so that few shapes are compiled;
      what fills it up has the row `len(songs)`.
    """
    chosen = self.lists.select(songs)
    rows, lists = chosen.list_index(), chosen.values
    numbers, inverse, counts = np.unique(
      lists, return_inverse=True, return_counts=True
    )
    # A song may be in the batch twice: its pair with itself need not be right.
    shared = counts > 1
    renumbered = np.cumsum(shared) - 1
    kept = shared[inverse] if len(numbers) else np.zeros(0, bool)
    size = max(_LEAST_ENTRIES, 1 << int(kept.sum()).bit_length())
    out = np.zeros((2, size), np.int32)
    out[0] = len(songs)
    out[0, : kept.sum()] = rows[kept]
    out[1, : kept.sum()] = renumbered[inverse[kept]]
    return out

  def share(self, songs: Int[np.ndarray, " rows"]) -> float:
    """Returns the share of pairs of different songs of a batch in one list."""
    songs = np.unique(songs[:_MOST_COUNTED])
    chosen = self.lists.select(songs)
    ones = np.ones(len(chosen.values), np.int32)
    shape = (len(songs), int(chosen.values.max(initial=0)) + 1)
    matrix = scipy.sparse.csr_matrix(
      (ones, chosen.values, chosen.offsets), shape=shape
    )
    pairs = len(songs) * (len(songs) - 1)
    together = matrix @ matrix.T
    own = int(np.count_nonzero(together.diagonal()))
    return (together.nnz - own) / max(pairs, 1)


def _members(catalogue: catalogues.Catalogue, kind: str) -> ragged.Ragged:
  """Returns the songs of each list of a kind."""
  if kind not in KINDS:
    raise errors.InputError(
      f"config.loss_params.exclude_sharing has {kind!r}; it holds any of "
      f"{', '.join(KINDS)}, or nothing."
    )
  members = catalogue.pair_lists(kind.title())
  if not len(members.values):
    raise errors.InputError(
      f"config.loss_params.exclude_sharing has {kind!r} and the data set "
      f"has no {kind}s: leave it out."
    )
  return members
