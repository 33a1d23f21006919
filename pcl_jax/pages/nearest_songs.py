"""The songs nearest to each song, and which sub-genres are taken for others."""

import dataclasses

from jaxtyping import Float, Int
import numpy as np

from pcl_jax.embedding.tables import search
from pcl_jax.evaluation.retrieval import precision_at_k

SHOWN = 10  # Neighbours of a song.
OTHER = "all others"
NO_GENRE = "none known"
_MOST_GENRES = 20


@dataclasses.dataclass(frozen=True)
class Neighbours:
  """The songs nearest to each song, best first.

  Attributes:
    rows: their rows, [songs, k].
    cosines: their cosines with the song, [songs, k].
  """

  rows: Int[np.ndarray, "songs k"]
  cosines: Float[np.ndarray, "songs k"]


def find(vectors: Float[np.ndarray, "songs d"]) -> Neighbours:
  """Finds the `SHOWN` songs nearest to each song, or fewer if there are fewer.

  Args:
    vectors: finite vectors of the songs, [songs, d].
  """
  k = min(SHOWN, len(vectors) - 1)
  if k < 1:
    empty = np.zeros((len(vectors), 0))
    return Neighbours(empty.astype(np.int32), empty.astype(np.float32))
  rows = np.asarray(vectors, np.float32)
  songs = np.arange(len(rows), dtype=np.int32)
  return Neighbours(*search.top_k(rows, rows, k, excluded=songs))


def confusion(
  found: Neighbours,
  genres: list[list[str]],
  queries: Int[np.ndarray, " queries"],
) -> tuple[list[str], Float[np.ndarray, "genres genres"]]:
  """Returns which sub-genres the nearest songs of a sub-genre have.

  A song of several sub-genres counts for each in equal parts.

  Args:
    found: the neighbours of all songs; the nearest five are counted.
    genres: names of the sub-genres of each song.
    queries: rows of the songs whose neighbours are counted.

  Returns:
    Names of the sub-genres, the most frequent among the queries first, and the
    share of the neighbours of sub-genre i that have sub-genre j, [i, j]; a row
    sums to 1. Rare sub-genres are together in one, `OTHER`.
  """
  given = [some or [NO_GENRE] for some in genres]
  counts: dict[str, int] = {}
  for query in queries.tolist():
    for name in given[query]:
      counts[name] = counts.get(name, 0) + 1
  order = sorted(counts, key=lambda name: (-counts[name], name))
  names = order[:_MOST_GENRES]
  place = {name: i for i, name in enumerate(names)}
  rest = {name for some in given for name in some} - place.keys()
  if rest:
    place |= dict.fromkeys(rest, len(names))
    names = [*names, OTHER]
  matrix = np.zeros((len(names), len(names)))
  for query in queries.tolist():
    for other in found.rows[query, : precision_at_k.NEAREST].tolist():
      share = 1 / (len(given[query]) * len(given[other]))
      for name in given[query]:
        for there in given[other]:
          matrix[place[name], place[there]] += share
  total = matrix.sum(axis=1, keepdims=True)
  return names, matrix / np.where(total > 0, total, 1)
