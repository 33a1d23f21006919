"""Finds songs that sound alike: other encodings, levels, cuts of a recording.

The songs of similar spectra are laid over each other, feature on feature.
"""

from jaxtyping import Float, Int
import numpy as np

from pcl_jax.audio import alignment
from pcl_jax.data import song_store
from pcl_jax.embedding import duplicate_songs
from pcl_jax.embedding.tables import search
from pcl_jax.evaluation import mel_baselines

CORRELATION = duplicate_songs.CORRELATION
_BANDS = song_store.MEL_BANDS
_COMPARED = 3  # Songs of the most similar spectrum are compared with each.
_LEAST_COSINE = 0.7  # Of their spectra; others are not compared.


def _spectra(
  statistics: Float[np.ndarray, "songs statistics"],
) -> Float[np.ndarray, "songs statistics"]:
  """Returns means without the level, and deviations, over time."""
  means, deviations = statistics[:, :_BANDS], statistics[:, _BANDS:]
  return np.concatenate(
    [means - means.mean(axis=1, keepdims=True), deviations], axis=1
  )


def _scaled(
  mine: Float[np.ndarray, "songs n"], theirs: Float[np.ndarray, "others n"]
) -> tuple[Float[np.ndarray, "songs n"], Float[np.ndarray, "others n"]]:
  """Returns spectra without mean and deviation of the second ones."""
  centre, scale = theirs.mean(axis=0), theirs.std(axis=0).clip(1e-6)
  return (mine - centre) / scale, (theirs - centre) / scale


def candidates(
  store: song_store.SongStore, k: int, least: float = _LEAST_COSINE
) -> Int[np.ndarray, "pairs 2"]:
  """Returns pairs of a store's songs of similar spectra.

  Args:
    store: the songs.
    k: how many neighbours of each song are taken.
    least: the least cosine of the spectra.

  Returns:
    Positions, as `duplicate_songs.candidates` returns rows.
  """
  songs = np.arange(len(store.song_ids))
  rows = _spectra(mel_baselines.mean_std_mel(store, songs))
  scaled, _ = _scaled(rows, rows)
  unit = search.unit(scaled).astype(np.float32)
  return duplicate_songs.candidates(unit, k, least)


def find(
  store: song_store.SongStore,
  queries: Int[np.ndarray, " queries"],
  others: song_store.SongStore,
  learned: Int[np.ndarray, " learned"],
) -> Int[np.ndarray, "found 2"]:
  """Finds songs of which another store, or the same one, has a near duplicate.

  Args:
    store: store of the songs to look for.
    queries: positions of these songs in it.
    others: store of the songs to look among.
    learned: positions in `others`.

  Returns:
    Positions in `store` and in `others`, one pair for each song that has a near
    duplicate, in the order of the queries.
  """
  k = min(_COMPARED, len(learned))
  if not k or not len(queries):
    return np.zeros((0, 2), np.int64)
  mine = _spectra(mel_baselines.mean_std_mel(store, queries))
  theirs = _spectra(mel_baselines.mean_std_mel(others, learned))
  places, cosines = search.top_k(*_scaled(mine, theirs), k)
  pairs = []
  for song, row, cosine in zip(queries, places, cosines, strict=True):
    for other in learned[row[cosine >= _LEAST_COSINE]].tolist():
      features = store.read_song(int(song)), others.read_song(other)
      if alignment.align(*features).correlation >= CORRELATION:
        pairs.append((int(song), other))
        break
  return np.array(pairs, np.int64).reshape(-1, 2)
