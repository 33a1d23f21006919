"""A tiny data set in Melon's layout, for the tests of the converters."""

from collections.abc import Iterable
import io
import json
import pathlib
import shutil
import tarfile
from typing import Any

import lmdb
import numpy as np

from preprocessing.melon import converter


def song(song_id: int, **fields: Any) -> dict[str, Any]:
  """Returns a record of song_meta.json."""
  return {
    "id": song_id,
    "artist_id_basket": [song_id % 7],
    "album_id": song_id % 5,
    "song_gn_gnr_basket": [f"GN{1 + song_id % 3:02}00"],
    "song_gn_dtl_gnr_basket": [f"GN{1 + song_id % 3:02}01"],
    "song_name": f"song {song_id}",
  } | fields


def playlist(playlist_id: int, songs: list[int]) -> dict[str, Any]:
  """Returns a record of train.json."""
  return {"id": playlist_id, "songs": songs, "plylst_title": "", "tags": []}


def write_meta(
  meta_dir: pathlib.Path, songs: Iterable[dict[str, Any]], **files: Any
) -> pathlib.Path:
  """Writes kakao_meta; `files` are train, val, test and their playlists."""
  meta_dir.mkdir(parents=True, exist_ok=True)
  (meta_dir / "song_meta.json").write_text(json.dumps(list(songs)))
  for name, records in ({"train": []} | files).items():
    (meta_dir / f"{name}.json").write_text(json.dumps(records))
  return meta_dir


def mel_path(melon_dir: pathlib.Path, song_id: int) -> pathlib.Path:
  """Returns a song's spectrogram file; makes its folder."""
  path = melon_dir / "arena_mel" / str(song_id // 1000) / f"{song_id}.npy"
  path.parent.mkdir(parents=True, exist_ok=True)
  return path


def mel_db(song_id: int, frames: int = 300) -> np.ndarray:
  """Returns a spectrogram in Melon's dB, float32 [48, frames]."""
  rng = np.random.default_rng(song_id)
  return rng.uniform(-200, 60, (48, frames)).astype(np.float32)


def write_melon(melon_dir: pathlib.Path, song_ids: Iterable[int]) -> None:
  """Writes metadata and a spectrogram of every song."""
  song_ids = list(song_ids)
  write_meta(melon_dir / "kakao_meta", map(song, song_ids))
  for song_id in song_ids:
    np.save(mel_path(melon_dir, song_id), mel_db(song_id))


def npy_bytes(db: np.ndarray) -> bytes:
  """Returns an array as the bytes of an npy file."""
  file = io.BytesIO()
  np.save(file, db)
  return file.getvalue()


def member_name(song_id: int) -> str:
  """Returns the name of a song's member in Melon's tars."""
  return f"arena_mel/{song_id // 1000}/{song_id}.npy"


def write_tar(
  path: pathlib.Path, members: Iterable[tuple[str, bytes]], **settings: Any
) -> pathlib.Path:
  """Writes a tar of regular members; `settings` are tarfile.open's."""
  with tarfile.open(path, "w", **settings) as tar:
    for name, data in members:
      info = tarfile.TarInfo(name)
      info.size = len(data)
      tar.addfile(info, io.BytesIO(data))
  return path


def write_song_tar(
  path: pathlib.Path, song_ids: Iterable[int], **arrays: np.ndarray
) -> pathlib.Path:
  """Writes a tar of songs' spectrograms; `arrays` are other ones, by id."""
  return write_tar(
    path,
    [
      (member_name(i), npy_bytes(arrays.get(str(i), mel_db(i))))
      for i in song_ids
    ],
  )


TARS = {0: range(0, 30), 1: range(1000, 1030), 2: range(5000, 5010)}
IDS = [i for ids in TARS.values() for i in ids]
ZEROS = np.zeros((48, 9), np.float32)


def write_three_tars(folder: pathlib.Path) -> pathlib.Path:
  """Writes tars of seventy songs, one of them bad, one more missing."""
  write_meta(folder / "kakao_meta", map(song, [*IDS, 9000]))
  for number, ids in TARS.items():
    write_song_tar(folder / f"arena_mel_{number}.tar", ids, **{"1003": ZEROS})
  return folder


def build(
  melon_dir: pathlib.Path, name: str = "data", **settings: Any
) -> pathlib.Path:
  """Converts a folder with two workers; leaves any share of songs out."""
  settings = {"max_skipped_share": 1.0, "workers": 2} | settings
  return converter.build_song_store(melon_dir, melon_dir / name, **settings)


def content(store: pathlib.Path) -> dict[bytes, bytes]:
  """Returns every record of the store and what stands beside it."""
  # A copy, since LMDB opens an environment once a process.
  copy = shutil.copytree(store, store.with_name("copy"), dirs_exist_ok=True)
  env = lmdb.open(str(copy), readonly=True, lock=False)
  with env.begin() as txn:
    found = {bytes(key): bytes(value) for key, value in txn.cursor()}
  env.close()
  return found | {b"skipped": (store.parent / "skipped.json").read_bytes()}
