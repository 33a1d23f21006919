"""Finds songs that sound alike: other encodings, levels, cuts of a recording.

The features of two songs are laid over each other at the shift where their
loudness agrees best, and correlated; those of one recording correlate nearly
completely, whatever its codec and level.
"""

from jaxtyping import Float, Int
import numpy as np

from pcl_jax.data import song_store
from pcl_jax.embedding import search
from pcl_jax.evaluation import mel_baselines

CORRELATION = 0.9  # From here on two songs are near duplicates.
_BANDS = song_store.MEL_BANDS
_COMPARED = 3  # Songs of the most similar spectrum are compared with each.
_LEAST_COSINE = 0.7  # Of their spectra; others are not compared.
_MOST_SHIFT = 1250  # Frames: 20 s.


def _spectra(
  statistics: Float[np.ndarray, "songs statistics"],
) -> Float[np.ndarray, "songs statistics"]:
  """Returns means without the level, and deviations, over time."""
  means, deviations = statistics[:, :_BANDS], statistics[:, _BANDS:]
  return np.concatenate(
    [means - means.mean(axis=1, keepdims=True), deviations], axis=1
  )


def _shift(
  first: Float[np.ndarray, " frames"], second: Float[np.ndarray, " others"]
) -> int:
  """Returns how many frames later the second begins in the first."""
  size = 1 << int(len(first) + len(second) - 1).bit_length()
  curves = (np.fft.rfft(one - one.mean(), size) for one in (first, second))
  product = next(curves) * np.conj(next(curves))
  matches = np.fft.irfft(product, size)
  shifts = np.arange(-min(len(second) - 1, _MOST_SHIFT), 1)
  shifts = np.append(shifts, np.arange(1, min(len(first), _MOST_SHIFT)))
  return int(shifts[np.argmax(matches[shifts])])


def correlation(
  first: Float[np.ndarray, "frames bands"],
  second: Float[np.ndarray, "others bands"],
) -> float:
  """Returns the correlation of two songs' features at their best shift.

  Each band is taken without its mean over time, so that levels and equalisers
  do not count. It is 0 if the songs overlap by less than half of the shorter
  one, or if one of them does not change.
  """
  first, second = first.astype(np.float32), second.astype(np.float32)
  shift = _shift(first.mean(axis=1), second.mean(axis=1))
  mine, other = first[max(shift, 0) :], second[max(-shift, 0) :]
  both = min(len(mine), len(other))
  if 2 * both < min(len(first), len(second)):
    return 0.0
  mine, other = (one[:both] - one[:both].mean(axis=0) for one in (mine, other))
  power = float((mine**2).sum()) * float((other**2).sum())
  return float((mine * other).sum()) / power**0.5 if power else 0.0


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
  centre, scale = theirs.mean(axis=0), theirs.std(axis=0).clip(1e-6)
  places, cosines = search.top_k(
    (mine - centre) / scale, (theirs - centre) / scale, k
  )
  pairs = []
  for song, row, cosine in zip(queries, places, cosines, strict=True):
    for other in learned[row[cosine >= _LEAST_COSINE]].tolist():
      features = store.read_song(int(song)), others.read_song(other)
      if correlation(*features) >= CORRELATION:
        pairs.append((int(song), other))
        break
  return np.array(pairs, np.int64).reshape(-1, 2)
