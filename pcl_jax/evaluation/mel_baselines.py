"""Statistics of the feature over time: what encoders are compared with."""

import weakref

from jaxtyping import Float, Int
import numpy as np

from pcl_jax.data import song_store

_STATISTICS = 2 * song_store.MEL_BANDS
# Those of the songs of each open store that were asked for; nan for others.
_known: weakref.WeakKeyDictionary[song_store.SongStore, np.ndarray] = (
  weakref.WeakKeyDictionary()
)


def mean_and_std(
  feature: Float[np.ndarray, "frames bands"],
) -> Float[np.ndarray, " statistics"]:
  """Returns the means of all bands, then the standard deviations, float64."""
  feature = feature.astype(np.float64)
  return np.concatenate([feature.mean(axis=0), feature.std(axis=0)])


def mean_std_mel(
  store: song_store.SongStore, songs: Int[np.ndarray, " songs"]
) -> Float[np.ndarray, "songs statistics"]:
  """Returns mean and standard deviation of each band over time.

  A song is read once, as long as its store is open: baselines and audit share
  what is computed here.

  Args:
    store: holds the songs.
    songs: positions in the store.

  Returns:
    48 means, then 48 standard deviations, float32 [songs, 96].
  """
  if store not in _known:
    _known[store] = np.full((len(store), _STATISTICS), np.nan, np.float32)
  known = _known[store]
  for song in np.unique(songs[np.isnan(known[songs, 0])]).tolist():
    known[song] = mean_and_std(store.read_song(song))
  return known[songs]


def mean_mel(
  store: song_store.SongStore, songs: Int[np.ndarray, " songs"]
) -> Float[np.ndarray, "songs bands"]:
  """Returns each song's mean feature over time, float32 [songs, 48]."""
  return mean_std_mel(store, songs)[:, : song_store.MEL_BANDS]
