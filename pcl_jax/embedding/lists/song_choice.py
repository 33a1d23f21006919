"""Chooses the songs of a list: the best ones that fit together."""

import collections
from collections.abc import Callable
import dataclasses
import functools

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
    self._artists, self._seconds = artists, seconds.astype(np.float64)
    self._left_s = limits.max_seconds
    self._per_artist = limits.per_artist
    self._counts: collections.Counter[int] = collections.Counter()

  @functools.cached_property
  def _lists(self) -> tuple[list[int], list[int], list[float]]:
    """Artists, their ends and lengths, of which single ones are looked up."""
    artists, ends = self._artists.values, self._artists.offsets
    return artists.tolist(), ends.tolist(), self._seconds.tolist()

  def take(self, place: int) -> bool:
    """Takes a song if it fits."""
    artists, ends, seconds = self._lists
    if seconds[place] > self._left_s:
      return False
    if self._per_artist is not None:
      theirs = artists[ends[place] : ends[place + 1]]
      if any(self._counts[one] >= self._per_artist for one in theirs):
        return False
      self._counts.update(theirs)
    self._left_s -= seconds[place]
    return True

  def fitting(self) -> Bool[np.ndarray, " pool"]:
    """Tells which songs fit; one that does not now never will."""
    fits = ~(self._seconds > self._left_s)
    if self._per_artist is not None:
      counts = self._counts.items()
      full = [one for one, count in counts if count >= self._per_artist]
      closed = np.isin(self._artists.values, full)
      fits[self._artists.list_index()[closed]] = False
    return fits


def _best_first(room: _Room, pool: search.Found, k: int) -> list[int]:
  """Takes songs down the ranking; returns their places in the pool."""
  taken: list[int] = []
  for place in range(len(pool.rows)):
    if len(taken) == k:
      break
    if room.take(place):
      taken.append(place)
  return taken


def _by_relevance(
  room: _Room,
  pool: search.Found,
  k: int,
  unit: Float[np.ndarray, "pool d"],
  diversity: float,
) -> list[int]:
  """Takes songs by marginal relevance; returns their places in the pool."""
  values = (1 - diversity) * pool.scores.astype(np.float64)
  alike, found = np.full(len(values), -1.0), values
  left, taken = np.ones(len(values), bool), []
  while len(taken) < k and left.any():
    place = int(np.argmax(np.where(left, found, -np.inf)))
    if not room.take(place):
      # All others without room, too: there may be a library of them.
      left &= room.fitting()
      continue
    taken.append(place)
    left[place] = False
    alike = np.maximum(alike, unit @ unit[place])
    found = values - diversity * alike
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
    if limits.diversity:
      own = unit[pool.rows]
      taken = _by_relevance(room, pool, k, own, limits.diversity)
    else:
      taken = _best_first(room, pool, k)
    if len(taken) == k or len(pool.rows) < size:
      return search.Found(pool.rows[taken], pool.scores[taken])
    size *= 4
