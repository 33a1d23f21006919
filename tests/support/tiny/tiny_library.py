"""A tiny library of audio files, for tests."""

import json
import pathlib
import shutil

import lmdb
import mutagen
import numpy as np
import soundfile

from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import song_store

SMALL = {
  "min_s": 0.0,
  "threads": 2,
  "dims": 4,
  "genre_dims": 4,
  "test_share": 0.2,
  "validation_share": 0.2,
}
FLAGS = [
  "--min_s=0",
  "--dims=4",
  "--genre_dims=4",
  "--test_share=0.2",
  "--validation_share=0.2",
]


def write_song(
  path: pathlib.Path,
  hz: float = 440.0,
  *,
  seconds: float = 0.4,
  rate_hz: int = 16_000,
  **tags: str | list[str],
) -> pathlib.Path:
  """Writes a tone; tags are named as mutagen's easy ones."""
  path.parent.mkdir(parents=True, exist_ok=True)
  time_s = np.arange(round(seconds * rate_hz)) / rate_hz
  soundfile.write(path, 0.5 * np.sin(2 * np.pi * hz * time_s), rate_hz)
  if tags:
    file = mutagen.File(path, easy=True)
    file.update(tags)
    file.save()
  return path


def make(
  folder: pathlib.Path, *, artists: int = 4, songs: int = 5
) -> pathlib.Path:
  """Makes a library without tags and playlists: a folder for each artist."""
  for artist in range(artists):
    for song in range(songs):
      number = artist * songs + song
      path = folder / f"Artist {artist}" / f"{song}.wav"
      write_song(path, 200.0 + 40 * number)
  return folder


def read_json(path: pathlib.Path):
  """Reads a json file of a data set."""
  return json.loads(path.read_text(encoding="utf-8"))


def read_records(store: pathlib.Path) -> dict[bytes, bytes]:
  """Returns all keys and values of a song store."""
  copy = store.with_name("copy")  # LMDB opens it once.
  shutil.copytree(store, copy)
  with lmdb.open(str(copy), readonly=True, lock=False) as env:
    with env.begin() as txn:
      found = dict(txn.cursor())
  shutil.rmtree(copy)
  return found


def features(data: pathlib.Path) -> dict[int, bytes]:
  """Returns the feature of each song of a data set, by its id."""
  store = song_store.SongStore(data / "songs.lmdb")
  return {
    int(song_id): store.read_song(i).tobytes()
    for i, song_id in enumerate(store.song_ids)
  }


def is_whole(data: pathlib.Path) -> bool:
  """Checks that a data set's parts belong together, and its features."""
  report = read_json(data / "library.json")
  assert len(dataset.DataSet(data).store) == report["songs"]
  assert len(features(data)) == report["songs"]
  assert {path.name for path in data.iterdir()} == {
    "songs.lmdb",
    "kakao_meta",
    "skipped.json",
    "song_ids.json",
    "song_files.jsonl",
    "library.json",
    "catalogue.npz",
    "data_split.json",
  }
  return True


def ids_of(data: pathlib.Path) -> dict[str, int]:
  """Returns path -> id of a data set."""
  return read_json(data / "song_ids.json")["ids"]


def parts_of(data: pathlib.Path) -> dict[int, int]:
  """Returns id -> part of the split of a data set."""
  made = catalogues.load(data)
  return dict(zip(made.song_ids.tolist(), made.split.tolist(), strict=True))
