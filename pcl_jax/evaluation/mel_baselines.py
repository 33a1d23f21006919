"""Statistics of the feature over time: what encoders are compared with."""

from jaxtyping import Float, Int
import numpy as np

from pcl_jax.data import song_store


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

  Args:
    store: holds the songs.
    songs: positions in the store.

  Returns:
    48 means, then 48 standard deviations, float32 [songs, 96].
  """
  rows = [mean_and_std(store.read_song(song)) for song in songs.tolist()]
  return np.array(rows, np.float32)


def mean_mel(
  store: song_store.SongStore, songs: Int[np.ndarray, " songs"]
) -> Float[np.ndarray, "songs bands"]:
  """Returns each song's mean feature over time, float32 [songs, 48]."""
  return mean_std_mel(store, songs)[:, : song_store.MEL_BANDS]
