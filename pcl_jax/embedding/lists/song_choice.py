"""Chooses the songs of a list: the best ones that fit together."""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses

from jaxtyping import Bool, Float
import numpy as np

from pcl_jax.data import ragged
from pcl_jax.embedding.tables import search

_POOL = 512  # Songs, at least, that a diverse list is chosen from.
_POOL_OF_K = 20  # Or this many times the songs that are wanted.
_LIMITED_OF_K = 4  # The same of a list with other limits, at first.

# Finds so many songs of the highest scores.
Best = Callable[[int], search.Found]


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


class _Room:
  """What the songs that were taken leave room for."""

  def __init__(
    self,
    artists: ragged.Ragged,
    seconds: Float[np.ndarray, " pool"],
    limits: Limits,
  ):
    """Takes artists and length of each song of a pool."""
    # Lists, since single numbers are looked up.
    self._artists = artists.values.tolist()
    self._ends = artists.offsets.tolist()
    self._seconds = seconds.tolist()
    self._left_s = limits.max_seconds
    self._per_artist = limits.per_artist
    self._counts: collections.Counter[int] = collections.Counter()

  def take(self, place: int) -> bool:
    """Takes a song if it fits."""
    if self._seconds[place] > self._left_s:
      return False
    if self._per_artist is not None:
      theirs = self._artists[self._ends[place] : self._ends[place + 1]]
      if any(self._counts[one] >= self._per_artist for one in theirs):
        return False
      self._counts.update(theirs)
    self._left_s -= self._seconds[place]
    return True


def _by_relevance(
  scores: Float[np.ndarray, " pool"],
  unit: Float[np.ndarray, "pool d"],
  taken: Sequence[int],
  diversity: float,
) -> Iterator[int]:
  """Yields places by marginal relevance, given those `taken` meanwhile."""
  values, alike = (1 - diversity) * scores, np.full(len(scores), -1.0)
  left, seen = np.ones(len(scores), bool), 0
  while left.any():
    for place in taken[seen:]:
      alike = np.maximum(alike, unit @ unit[place])
    seen = len(taken)
    found = values - diversity * alike * bool(taken)
    place = int(np.argmax(np.where(left, found, -np.inf)))
    left[place] = False
    yield place


def _take(
  pool: search.Found,
  unit: Float[np.ndarray, "songs d"],
  room: _Room,
  k: int,
  diversity: float,
) -> list[int]:
  """Takes songs one after another; returns their places in the pool."""
  taken: list[int] = []
  order: Iterable[int] = range(len(pool.rows))
  if diversity:
    scores = pool.scores.astype(np.float64)
    order = _by_relevance(scores, unit[pool.rows], taken, diversity)
  for place in order:
    if len(taken) == k:
      break
    if room.take(place):
      taken.append(place)
  return taken


def of_scores(
  scores: Float[np.ndarray, " songs"], allowed: Bool[np.ndarray, " songs"]
) -> Best:
  """Returns what finds the best songs that are allowed, by their scores."""
  places = np.flatnonzero(allowed)

  def best(count: int) -> search.Found:
    rows = places[search.best(scores[places], count)]
    return search.Found(rows, scores[rows])

  return best


def choose(
  best: Best,
  unit: Float[np.ndarray, "songs d"],
  k: int,
  *,
  artists: ragged.Ragged,
  seconds: Float[np.ndarray, " songs"],
  limits: Limits,
) -> search.Found:
  """Chooses up to k songs, one after another.

  The next song is the one of the highest (1 - diversity) * score - diversity *
  (largest cosine with the songs taken before), as maximal marginal relevance
  has it, among those that keep to the limits. Ties go to the better score, then
  to the lower row. With diversity, the best 512 songs are chosen from, or the
  best 20 k; more only where these do not fill the list.

  Args:
    best: finds so many songs of the highest scores, best first; fewer where
      no more may be chosen.
    unit: vector of each song, of length one.
    k: how many songs are wanted.
    artists: numbers of each song's artists; a song without any is of no artist.
    seconds: length of each song.
    limits: what the songs may be together.

  Returns:
    The songs in the order they were taken; fewer than k where no other fits.

  References:
    Carbonell and Goldstein, The Use of MMR, Diversity-Based Reranking, SIGIR
    1998.
  """
  size = k
  if limits.diversity:
    size = max(_POOL, _POOL_OF_K * k)
  elif limits != Limits():
    size = _LIMITED_OF_K * k
  while True:
    pool = best(size)
    room = _Room(artists.select(pool.rows), seconds[pool.rows], limits)
    taken = _take(pool, unit, room, k, limits.diversity)
    if len(taken) == k or len(pool.rows) < size:
      return search.Found(pool.rows[taken], pool.scores[taken])
    size *= 4
