"""Who is paired with whom: two of one playlist, artist, genre or album."""

from jaxtyping import Bool, Int
import numpy as np

from pcl_jax.data import ragged

# A song is used once an epoch with these; with Artist it may be used again in
# the list of another of its artists.
ONCE_AN_EPOCH = {
  "Playlist": True,
  "Artist": False,
  "Genre": True,
  "Album": True,
}


def draw_pairs(
  lists: ragged.Ragged,
  available: Bool[np.ndarray, " songs"],
  *,
  once: bool,
  rng: np.random.Generator,
) -> Int[np.ndarray, "pairs 2"]:
  """Draws pairs of songs that share a list.

  The lists are shuffled and walked through; of each, an even number of the
  songs still available is drawn and cut into pairs. No list holds a song twice;
  with `once`, a song is used up by its first pair.

  Returns:
    Rows of songs, int32 [pairs, 2], in random order.
  """
  kept = lists.keep(available[lists.values])
  rank = rng.permutation(len(lists))
  songs = kept.values[_shuffle(rank[kept.list_index()], len(lists), rng)]
  lengths = np.zeros(len(lists), np.int64)
  lengths[rank] = kept.lengths
  if once:
    taken = _take_unused(songs, lengths, available)
  else:
    places = ragged.Ragged.from_lengths(songs, lengths).places()
    taken = songs[places < np.repeat(lengths // 2 * 2, lengths)]
  pairs = taken.reshape(-1, 2)
  return pairs[rng.permutation(len(pairs))]


def _shuffle(rank, ranks, rng):
  """Orders places by rank, and at random within a rank."""
  # Rank, random bits and the place are packed into one number, which is sorted:
  # many times faster than sorting by two keys, and as no two are alike the
  # result does not depend on how a machine sorts.
  place_bits, rank_bits = len(rank).bit_length(), ranks.bit_length()
  random_bits = 64 - rank_bits - place_bits
  keys = rank.astype(np.uint64) << np.uint64(64 - rank_bits)
  keys |= rng.integers(
    0, 1 << random_bits, len(rank), dtype=np.uint64
  ) << np.uint64(place_bits)
  keys |= np.arange(len(rank), dtype=np.uint64)
  keys.sort()
  return (keys & np.uint64((1 << place_bits) - 1)).astype(np.int64)


def _take_unused(songs, lengths, available):
  """Walks through the lists; takes an even number of unused songs of each."""
  free = available.copy()
  parts = [songs[:0]]
  stop = 0
  # A song left over in one list is free in the next, so lists depend on one
  # another and the walk is a loop; it does no work per song.
  for length in lengths.tolist():
    start, stop = stop, stop + length
    unused = songs[start:stop]
    unused = unused[free[unused]]
    even = unused[: len(unused) // 2 * 2]
    free[even] = False
    parts.append(even)
  return np.concatenate(parts)
