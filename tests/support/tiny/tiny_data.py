"""A small catalogue and its song store, made from a seed, for any test."""

import os

import numpy as np

from pcl_jax.audio import channel_mix
from pcl_jax.audio import melspectrogram
from pcl_jax.data import catalogues
from pcl_jax.data import ragged
from pcl_jax.data import song_store
from pcl_jax.data import song_writer

CLUSTERS = 4
MIN_SONGS = 40  # Below, a pair method may find no validation pair.
_SPLIT_SHARES = (0.6, 0.8)  # Train up to the first, validation to the second.


def _songs_by_cluster(
  rng: np.random.Generator, songs: int, lists: int, length: int
) -> list[list[int]]:
  """Draws lists of songs, nine in ten of them out of one cluster."""
  found = []
  for number in range(lists):
    likely = np.arange(songs) % CLUSTERS == number % CLUSTERS
    weights = np.where(likely, 0.9 / likely.sum(), 0.1 / (~likely).sum())
    drawn = rng.choice(songs, length, replace=False, p=weights / weights.sum())
    found.append([int(i) for i in drawn])
  return found


def _validation_pairs(lists: ragged.Ragged, split: np.ndarray) -> np.ndarray:
  """Pairs neighbours among each list's validation songs, int32 [pairs, 2]."""
  pairs = []
  for i in range(len(lists)):
    rows = lists[i]
    rows = rows[split[rows] == catalogues.VALIDATION]
    pairs.append(rows[: len(rows) // 2 * 2].reshape(-1, 2))
  return np.concatenate(pairs).astype(np.int32)


def tiny_catalogue(
  songs: int = 60, seed: int = 0, playlists: int | None = None
) -> catalogues.Catalogue:
  """Makes a catalogue in which song i belongs to cluster i % CLUSTERS.

  A song has one or two artists and two or three genre codes, its last code
  being that of its cluster; nine in ten songs of a playlist are of one cluster.
  Of six playlists four stand in train.json, one in val.json, one in test.json.

  Args:
    songs: how many, at least MIN_SONGS; 60 % are for training, 20 % for
      validation and 20 % for testing.
    seed: of all draws.
    playlists: how many; half as many as songs if not given.

  Returns:
    The catalogue, with validation pairs for every pair method.
  """
  if songs < MIN_SONGS:
    raise ValueError(f"songs is {songs}; it is at least {MIN_SONGS}")
  rng = np.random.default_rng([seed, songs])
  playlists = songs // 2 if playlists is None else playlists
  place = rng.permutation(songs) / songs
  split = np.digitize(place, _SPLIT_SHARES).astype(np.int8)
  sub_genres = 2 * CLUSTERS
  genres = [
    [*(1 + rng.choice(sub_genres, rng.integers(1, 3), replace=False)),
     1 + sub_genres + i % CLUSTERS]
    for i in range(songs)
  ]  # fmt: skip
  artists = [
    rng.choice(songs // 5, rng.integers(1, 3), replace=False)
    for _ in range(songs)
  ]
  from_lists = ragged.Ragged.from_lists
  without_pairs = catalogues.Catalogue(
    song_ids=(10 + np.cumsum(rng.integers(1, 6, songs))).astype(np.uint32),
    split=split,
    artists=from_lists([list(map(int, one)) for one in artists]),
    genres=from_lists([list(map(int, one)) for one in genres]),
    albums=rng.integers(-1, songs // 4, songs).astype(np.int32),
    playlists=from_lists(_songs_by_cluster(rng, songs, playlists, length=9)),
    playlist_files=np.resize([0, 0, 1, 0, 0, 2], playlists).astype(np.int8),
    genre_codes=np.array([f"GN{i:04d}" for i in range(sub_genres + CLUSTERS)]),
    validation_pairs={},
  )
  for method in catalogues.PAIR_METHODS:
    lists = without_pairs.pair_lists(method)
    without_pairs.validation_pairs[method] = _validation_pairs(lists, split)
  return without_pairs


def tiny_store(
  path: str | os.PathLike[str],
  catalogue: catalogues.Catalogue,
  frames: int | tuple[int, int] = (260, 420),
  seed: int = 0,
  channels: str = channel_mix.MEAN,
) -> song_store.SongStore:
  """Writes a song store of random features for the songs of a catalogue.

  Args:
    path: where the store will be.
    catalogue: its songs are stored.
    frames: length of every song, or the range it is drawn from (end excluded).
    seed: of the lengths and the features.
    channels: what the store says that was taken of several.

  Returns:
    The store, opened.
  """
  rng = np.random.default_rng(seed)
  low, high = (frames, frames + 1) if isinstance(frames, int) else frames
  writer = song_writer.SongWriter(path)
  songs = []
  for song_id in catalogue.song_ids.tolist():
    shape = (int(rng.integers(low, high)), song_store.MEL_BANDS)
    feature = rng.uniform(melspectrogram.SILENCE, 1.0, shape)
    songs.append((song_id, feature.astype(np.float16)))
  writer.add(songs)
  writer.finish({"kind": "random features of a test", "seed": seed}, channels)
  return song_store.SongStore(path)
