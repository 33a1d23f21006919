"""WARP matrix factorisation, many entries at a time.

The score of a song for a playlist is u . v + b_v. For an entry (playlist, song)
songs are drawn until one that is not in the playlist scores more than the
entry's song less one; then both are pushed apart, with the weight log(rank),
where the rank is estimated as (songs - 1) / draws (Weston, Bengio, Usunier,
"WSABIE", IJCAI 2011). Adagrad has one accumulator a coordinate.

A step serves as many entries as there are lanes. A lane keeps its entry over
several steps until it is done, then takes the next, so that an entry which
needs 40 draws holds up no other. Of lanes that would write to the same row of
a table only the first writes; the others draw again in the next step. Each
update is then exactly that of the sequential algorithm, and no sum depends on
the order in which a device adds.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

MAX_LANES = 1024
MIN_LANES = 4
DRAWS_A_STEP = 8
SEGMENT_ENTRIES = 1 << 18  # Entries of one call, between two progress reports.
_MAX_WEIGHT = 10.0  # log(rank) of large catalogues is cut off here.
_WAITING_SHARE = 0.25  # Of the lanes of a step that meet another in a row.


@dataclasses.dataclass(frozen=True)
class Entries:
  """The ones of a playlist x song matrix, by playlist, then song.

  Attributes:
    playlists: playlist of each entry, int32 [entries], ascending.
    songs: song of each entry, int32 [entries], ascending in a playlist.
    offsets: entries of playlist i are offsets[i]:offsets[i + 1], int32.
    num_songs: columns of the matrix.
  """

  playlists: np.ndarray
  songs: np.ndarray
  offsets: np.ndarray
  num_songs: int

  @classmethod
  def from_pairs(cls, playlists: np.ndarray, songs: np.ndarray) -> "Entries":
    """Sorts pairs of playlist and song, both numbered from 0; drops repeats."""
    num_songs = int(songs.max(initial=-1)) + 1
    keys = np.unique(playlists.astype(np.int64) * num_songs + songs)
    playlists, songs = np.divmod(keys, max(num_songs, 1))
    lengths = np.bincount(playlists)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return cls(
      playlists.astype(np.int32),
      songs.astype(np.int32),
      offsets.astype(np.int32),
      num_songs,
    )

  def __len__(self) -> int:
    return len(self.songs)

  @property
  def num_playlists(self) -> int:
    """Rows of the matrix."""
    return len(self.offsets) - 1

  def lanes(self) -> int:
    """Returns how many entries a step should serve.

    Two entries drawn at random share a row with the probability sum(p^2), p
    being the rows' shares of all entries. The lanes are the largest power of
    two for which few of them wait for one another.
    """
    sums = [
      float(np.sum((np.bincount(rows) / len(self)) ** 2))
      for rows in (self.playlists, self.songs)
    ]
    wanted = max(_WAITING_SHARE / max(sums), MIN_LANES)
    return int(min(2 ** int(np.log2(wanted)), MAX_LANES))


class Tables(NamedTuple):
  """What is learned: factors, a bias last, and Adagrad's sums of squares.

  A playlist's last coordinate is 1 and fixed, so that the score is one product.
  """

  playlists: jax.Array  # [playlists, dims + 1]
  playlist_squares: jax.Array
  songs: jax.Array  # [songs, dims + 1]
  song_squares: jax.Array


class _Lanes(NamedTuple):
  """The state of a segment that is being worked through."""

  tables: Tables
  slot: jax.Array  # Position in the segment of each lane's entry, [lanes].
  drawn: jax.Array  # Songs drawn for it so far, [lanes].
  next_slot: jax.Array
  loss: jax.Array  # Sum over the entries done.
  step: jax.Array


def random_factors(rows: int, dims: int, seed: int | list[int]) -> np.ndarray:
  """Draws initial factors, uniform in +-0.5 / dims, float32 [rows, dims]."""
  drawn = np.random.default_rng(seed).random((rows, dims), dtype=np.float32)
  return (drawn - np.float32(0.5)) / np.float32(dims)


def first_tables(
  entries: Entries, song_factors: np.ndarray, seed: int | list[int]
) -> Tables:
  """Returns the tables before the first epoch.

  Args:
    entries: the matrix.
    song_factors: initial factors of its songs, float32 [songs, dims].
    seed: the seed of the playlists' factors.
  """
  dims = song_factors.shape[1]
  factors = random_factors(entries.num_playlists, dims, seed)
  playlists = np.pad(factors, ((0, 0), (0, 1)), constant_values=1.0)
  songs = np.pad(song_factors, ((0, 0), (0, 1)))
  ones = functools.partial(jnp.ones_like, dtype=jnp.float32)
  # Copies: the tables are donated, a view of a numpy array must not be.
  playlists, songs = jnp.array(playlists), jnp.array(songs)
  return Tables(playlists, ones(playlists), songs, ones(songs))


def rank_weights(num_songs: int, max_negatives: int) -> np.ndarray:
  """Returns log(max(1, floor((songs - 1) / n))), at most 10, for n = 0..max.

  Args:
    num_songs: columns of the matrix.
    max_negatives: largest number of draws; entry 0 is not used.
  """
  ranks = (num_songs - 1) // np.maximum(np.arange(max_negatives + 1), 1)
  return np.minimum(np.log(np.maximum(ranks, 1)), _MAX_WEIGHT).astype(
    np.float32
  )


def draw_songs(
  key: jax.Array, shape: tuple[int, ...], num_songs: int
) -> jax.Array:
  """Draws songs uniformly, int32; off by less than songs / 2^32 of a share."""
  bits = jax.random.bits(key, shape, jnp.uint32)
  return (bits % jnp.uint32(num_songs)).astype(jnp.int32)


def _contains(songs, start, end, wanted, halvings):
  """Looks numbers up in ascending runs songs[start:end]; bool, as `wanted`."""

  def halve(_, bounds):
    low, high = bounds
    middle = (low + high) // 2
    above = (low < high) & (songs[middle] < wanted)
    return jnp.where(above, middle + 1, low), jnp.where(above, high, middle)

  low = jnp.broadcast_to(start, wanted.shape)
  high = jnp.broadcast_to(end, wanted.shape)
  low, _ = lax.fori_loop(0, halvings, halve, (low, high))
  return (low < end) & (songs[jnp.minimum(low, len(songs) - 1)] == wanted)


def _is_first(rows):
  """Marks the first occurrence of each number; bool, as `rows`."""
  order = jnp.argsort(rows, stable=True)
  ordered = rows[order]
  first = jnp.concatenate([jnp.array([True]), ordered[1:] != ordered[:-1]])
  return jnp.zeros(rows.shape, bool).at[order].set(first, unique_indices=True)


def _writers(found, playlist, song, rival, num_playlists, num_songs):
  """Chooses lanes that share no row; returns who writes and their rows.

  The first lane that found a rival always writes, so every step gets on.
  """
  lane = jnp.arange(len(found), dtype=jnp.int32)
  # Lanes without an update get rows of their own behind the tables' end.
  playlist = jnp.where(found, playlist, num_playlists + lane)
  songs = jnp.where(
    found[:, None],
    jnp.stack([song, rival], 1),
    num_songs + 2 * lane[:, None] + jnp.arange(2, dtype=jnp.int32)[None],
  )
  alone = _is_first(songs.reshape(-1)).reshape(-1, 2).all(1)
  writes = found & alone & _is_first(playlist)
  playlist = jnp.where(writes, playlist, num_playlists + lane)
  song = jnp.where(writes, song, num_songs + 2 * lane)
  rival = jnp.where(writes, rival, num_songs + 2 * lane + 1)
  return writes, playlist, jnp.concatenate([song, rival])


def _adagrad(table, squares, rows, values, gradient, rate):
  """Updates different rows; those behind the end are dropped."""
  sums = squares.at[rows].get(mode="fill", fill_value=1.0)
  put = {"mode": "drop", "unique_indices": True}
  table = table.at[rows].set(values - rate * gradient / jnp.sqrt(sums), **put)
  return table, squares.at[rows].set(sums + gradient * gradient, **put)


def _draw(state, matrix, entry, active, key, static):
  """Draws songs for each lane's entry; returns the first that is a rival.

  Returns:
    found [lanes], draws until then [lanes], the rival [lanes], the rows of
    playlist, song and rival [lanes, dims + 1] and the hinge [lanes].
  """
  draws, max_negatives, halvings = static
  playlists, songs, offsets, _ = matrix
  tables = state.tables
  playlist, song = playlists[entry], songs[entry]
  drawn = draw_songs(key, (len(entry), draws), tables.songs.shape[0])
  u, v = tables.playlists[playlist], tables.songs[song]
  rivals = tables.songs[drawn]
  score = jnp.sum(u * v, 1)
  scores = jnp.einsum("lnd,ld->ln", rivals, u, precision="highest")
  number = state.drawn[:, None] + jnp.arange(1, draws + 1)[None]
  start, end = offsets[playlist][:, None], offsets[playlist + 1][:, None]
  is_rival = (
    (scores > score[:, None] - 1.0)
    & (number <= max_negatives)
    & active[:, None]
    & ~_contains(songs, start, end, drawn, halvings)
  )
  first = jnp.argmax(is_rival, 1)[:, None]
  pick = functools.partial(jnp.take_along_axis, indices=first, axis=1)
  w = jnp.take_along_axis(rivals, first[:, :, None], 1)[:, 0]
  hinge = 1.0 - score + pick(scores)[:, 0]
  return (
    is_rival.any(1),
    pick(number)[:, 0],
    pick(drawn)[:, 0],
    (u, v, w),
    hinge,
  )


def _step(state, matrix, order, count, key, rate, static):
  """Draws, updates, and gives the lanes that are done their next entries."""
  draws, max_negatives, _ = static
  playlists, songs, _, weights = matrix
  tables = state.tables
  active = state.slot < count
  entry = order[jnp.minimum(state.slot, count - 1)]
  key = jax.random.fold_in(key, state.step)
  found, number, rival, (u, v, w), hinge = _draw(
    state, matrix, entry, active, key, static
  )
  writes, playlist_rows, song_rows = _writers(
    found,
    playlists[entry],
    songs[entry],
    rival,
    tables.playlists.shape[0],
    tables.songs.shape[0],
  )
  weight = weights[jnp.minimum(number, max_negatives)][:, None]
  of_playlist = (weight * (w - v)).at[:, -1].set(0.0)
  of_song = weight * u
  tables = Tables(
    *_adagrad(*tables[:2], playlist_rows, u, of_playlist, rate),
    *_adagrad(
      *tables[2:],
      song_rows,
      jnp.concatenate([v, w]),
      jnp.concatenate([-of_song, of_song]),
      rate,
    ),
  )
  drawn = jnp.where(found, state.drawn, state.drawn + draws)
  done = active & (writes | (drawn >= max_negatives))
  following = state.next_slot + jnp.cumsum(done, dtype=jnp.int32) - 1
  return _Lanes(
    tables,
    jnp.where(done, following, state.slot),
    jnp.where(done, 0, drawn),
    state.next_slot + done.sum(dtype=jnp.int32),
    state.loss + jnp.sum(jnp.where(writes, weight[:, 0] * hinge, 0.0)),
    state.step + 1,
  )


@functools.partial(
  jax.jit, donate_argnames="tables", static_argnames=("lanes", "static")
)
def _run_segment(tables, matrix, order, count, key, rate, *, lanes, static):
  """Works through order[:count]; returns the tables and the sum of the loss."""
  state = _Lanes(
    tables,
    jnp.arange(lanes, dtype=jnp.int32),
    jnp.zeros(lanes, jnp.int32),
    jnp.int32(lanes),
    jnp.float32(0.0),
    jnp.int32(0),
  )
  state = lax.while_loop(
    lambda state: (state.slot < count).any(),
    lambda state: _step(state, matrix, order, count, key, rate, static),
    state,
  )
  return state.tables, state.loss


class Trainer:
  """Runs epochs over a matrix; each is a function of tables, seed and epoch."""

  def __init__(
    self,
    entries: Entries,
    *,
    max_negatives: int,
    rate: float,
    seed: int,
    lanes: int | None = None,
  ):
    """Puts the matrix on the device.

    Args:
      entries: the matrix.
      max_negatives: songs drawn for an entry before it is given up.
      rate: Adagrad's learning rate.
      seed: the seed of the order of the entries and of the draws.
      lanes: entries a step serves; chosen by the data if not given. With 1
        this is the sequential algorithm.
    """
    self._num_entries, self._seed, self._rate = len(entries), seed, rate
    self.lanes = entries.lanes() if lanes is None else lanes
    weights = rank_weights(entries.num_songs, max_negatives)
    arrays = (entries.playlists, entries.songs, entries.offsets, weights)
    self._matrix = tuple(map(jnp.asarray, arrays))
    longest = int(np.diff(entries.offsets).max())
    draws = min(DRAWS_A_STEP, max_negatives)
    self._static = (draws, max_negatives, longest.bit_length())

  def run_epoch(
    self,
    tables: Tables,
    epoch: int,
    report: Callable[[int, float], None] = lambda entries, loss: None,
  ) -> tuple[Tables, float]:
    """Serves every entry once, in random order.

    Args:
      tables: consumed; use those returned.
      epoch: the number of the epoch, from 0.
      report: called now and then with the entries served since the last call
        and their mean loss.

    Returns:
      The tables, and the mean over the entries of weight times hinge, 0 where
      no rival was found.
    """
    order = np.random.default_rng([self._seed, epoch]).permutation(
      self._num_entries
    )
    key = jax.random.fold_in(jax.random.key(self._seed), epoch)
    size = min(self._num_entries, SEGMENT_ENTRIES)
    total = 0.0
    for number, start in enumerate(range(0, self._num_entries, size)):
      segment = order[start : start + size].astype(np.int32)
      tables, loss = _run_segment(
        tables,
        self._matrix,
        jnp.asarray(np.resize(segment, size)),
        jnp.int32(len(segment)),
        jax.random.fold_in(key, number),
        jnp.float32(self._rate),
        lanes=self.lanes,
        static=self._static,
      )
      total += float(loss)
      report(len(segment), float(loss) / len(segment))
    return tables, total / self._num_entries
