"""Chooses the songs of a list: the best ones that fit together."""

import dataclasses

from jaxtyping import Bool, Float, Int
import numpy as np

from pcl_jax.data import ragged
from pcl_jax.embedding import search

_POOL = 512  # Songs, at least, that are chosen from.
_POOL_OF_K = 20  # Or this many times the songs that are wanted.


@dataclasses.dataclass(frozen=True)
class Limits:
  """What the songs of a list may be together.

  Attributes:
    per_artist: how many songs of one artist there may be; None for any number.
    max_seconds: how long they may last together.
    diversity: from 0, the best songs, to 1, songs as different as can be.
  """

  per_artist: int | None = None
  max_seconds: float = np.inf
  diversity: float = 0.0


class _Pool:
  """The songs that may still be taken, best first."""

  def __init__(
    self,
    rows: Int[np.ndarray, " pool"],
    artists: ragged.Ragged,
    seconds: Float[np.ndarray, " songs"],
    limits: Limits,
  ):
    self._artists = artists.select(rows)
    self._song_of_artist = self._artists.list_index()
    self._seconds = seconds[rows]
    self._left_s = limits.max_seconds
    self._per_artist = limits.per_artist
    self._counts: dict[int, int] = {}
    self.open = self._seconds <= self._left_s

  def take(self, place: int) -> None:
    """Takes a song, and closes those that no longer fit."""
    self.open[place] = False
    self._left_s -= float(self._seconds[place])
    self.open &= self._seconds <= self._left_s
    if self._per_artist is None:
      return
    for artist in self._artists[place].tolist():
      count = self._counts[artist] = self._counts.get(artist, 0) + 1
      if count >= self._per_artist:
        theirs = self._artists.values == artist
        self.open[self._song_of_artist[theirs]] = False


def _greedy(
  scores: Float[np.ndarray, " pool"],
  unit: Float[np.ndarray, "pool d"] | None,
  pool: _Pool,
  k: int,
  diversity: float,
) -> list[int]:
  """Takes songs one after another; returns their places in the pool."""
  taken: list[int] = []
  alike = np.zeros(len(scores)) if unit is None else np.full(len(scores), -1.0)
  while len(taken) < k and pool.open.any():
    values = (1 - diversity) * scores - diversity * alike * bool(taken)
    place = int(np.argmax(np.where(pool.open, values, -np.inf)))
    taken.append(place)
    pool.take(place)
    if unit is not None:
      alike = np.maximum(alike, unit @ unit[place])
  return taken


def choose(
  scores: Float[np.ndarray, " songs"],
  unit: Float[np.ndarray, "songs d"],
  k: int,
  *,
  allowed: Bool[np.ndarray, " songs"],
  artists: ragged.Ragged,
  seconds: Float[np.ndarray, " songs"],
  limits: Limits,
) -> Int[np.ndarray, " chosen"]:
  """Chooses up to k songs, one after another.

  The next song is the one of the highest (1 - diversity) * score - diversity *
  (largest cosine with the songs taken before), as maximal marginal relevance
  has it, among those that keep to the limits. Ties go to the better score, then
  to the lower row. With diversity, the best 512 songs are chosen from, or the
  best 20 k; more only where these do not fill the list.

  Args:
    scores: of each song.
    unit: vector of each song, of length one.
    k: how many songs are wanted.
    allowed: the songs that may be chosen.
    artists: numbers of each song's artists; a song without any is of no artist.
    seconds: length of each song.
    limits: what the songs may be together.

  Returns:
    Rows of the songs in the order they were taken; fewer than k where no other
    song fits.

  References:
    Carbonell and Goldstein, The Use of MMR, Diversity-Based Reranking, SIGIR
    1998.
  """
  places = np.flatnonzero(allowed)
  size = max(_POOL, _POOL_OF_K * k)
  while True:
    rows = places[search.best(scores[places], size)]
    compared = unit[rows] if limits.diversity else None
    taken = _greedy(
      scores[rows].astype(np.float64),
      compared,
      _Pool(rows, artists, seconds, limits),
      k,
      limits.diversity,
    )
    if len(taken) == k or len(rows) == len(places):
      return rows[taken]
    size *= 4
