"""Which songs of a batch stand together in a playlist, or share other things.

The loss treats such pairs as negatives although they are positives. A device
cannot hold the lists of all songs, but only few lists hold two songs of one
batch; these are numbered from 0 for each batch.
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
    """Gathers lists of some kinds; returns None for no kind.

    Args:
      catalogue: the catalogue of the data set.
      kinds: any of `KINDS`.

    Raises:
      InputError: a kind is unknown, or the catalogue has nothing of it.
    """
    songs, lists, count = [], [], 0
    for kind in kinds:
      members = _members(catalogue, kind)
      if not len(members.values):
        raise errors.InputError(
          f"config.loss_params.exclude_sharing has {kind!r} and the data set "
          f"has no {kind}s: leave it out."
        )
      songs.append(members.values)
      lists.append(members.list_index() + count)
      count += len(members)
    if not count:
      return None
    by_list = ragged.Ragged.from_pairs(
      np.concatenate(lists), np.concatenate(songs), count
    )
    return cls(by_list.transposed(len(catalogue)))

  def entries(self, songs: Int[np.ndarray, " rows"]) -> Int[np.ndarray, "2 n"]:
    """Returns the rows of a batch and the lists that several of them share.

    Args:
      songs: rows of the catalogue, one for each row of the batch.

    Returns:
      Row and list of each entry, int32 [2, n]; lists are numbered from 0 and
      fewer than n / 2. n is a power of two, so that few shapes are compiled;
      what fills it up has the row `len(songs)`.
    """
    rows, lists = self._entries_of(songs)
    numbers, inverse, counts = np.unique(
      lists, return_inverse=True, return_counts=True
    )
    # A song may stand in the batch twice; with itself it shares what it likes.
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
    """Returns which share of the pairs of different songs have a list.

    Args:
      songs: rows of the catalogue in a batch; only the first few thousand
        count.
    """
    songs = np.unique(songs[:_MOST_COUNTED])
    rows, lists = self._entries_of(songs)
    ones = np.ones(len(rows), np.int32)
    shape = (len(songs), int(lists.max(initial=0)) + 1)
    matrix = scipy.sparse.csr_matrix((ones, (rows, lists)), shape=shape)
    pairs = len(songs) * (len(songs) - 1)
    together = matrix @ matrix.T
    own = int(np.count_nonzero(together.diagonal()))
    return (together.nnz - own) / max(pairs, 1)

  def _entries_of(self, songs):
    """Returns row and list of each entry of some songs, both [entries]."""
    chosen = self.lists.select(songs)
    return chosen.list_index(), chosen.values


def _members(catalogue: catalogues.Catalogue, kind: str) -> ragged.Ragged:
  """Returns the songs of each list of a kind."""
  if kind == "playlist":
    return catalogue.pair_lists("Playlist")
  if kind == "artist":
    return catalogue.pair_lists("Artist")
  if kind == "album":
    albums = catalogue.album_lists()
    return albums.transposed(int(albums.values.max(initial=-1)) + 1)
  raise errors.InputError(
    f"config.loss_params.exclude_sharing has {kind!r}; it holds any of "
    f"{', '.join(KINDS)}, or nothing."
  )
