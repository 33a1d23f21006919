"""What people know the songs of a data set by: files, artists and titles."""

from collections.abc import Sequence
import os
import pathlib
from typing import Any

from pcl_jax.common import file_names
from pcl_jax.common import storage
from pcl_jax.library import music_files

CLIPS = "clips"  # Folder of a sample's songs as short audio files, by id.
_METADATA = "kakao_meta"
_PLAYLISTS = ("train.json", "val.json", "test.json")
_APART = "melon"


def audio_paths(folder: pathlib.Path) -> tuple[dict[int, str], list[str]]:
  """Returns the path of each song of an own library by id, and its folder."""
  index = folder / music_files.IDS
  if not index.exists():
    return {}, []
  content = storage.read_made_json(index)
  root = content["audio_dir"]
  found: dict[int, str] = {}
  for name, number in content["ids"].items():
    found.setdefault(number, os.path.join(root, name))
  return found, [root]


def home(folder: pathlib.Path) -> pathlib.Path:
  """Returns the folder of a data set's metadata and clips.

  It is the data set's own, but in a sample, which has Melon's files apart.
  """
  apart = folder / _APART
  is_apart = apart.is_dir() and not (folder / _METADATA).exists()
  return apart if is_apart else folder


def _read(folder: pathlib.Path, name: str) -> Any:
  """Returns the content of a file of metadata; None where there is none."""
  path = folder / _METADATA / name
  return storage.read_made_json(path) if path.exists() else None


def records(folder: pathlib.Path) -> list[dict[str, Any]]:
  """Returns what a data set says of its songs; nothing where it says nothing.

  Raises:
    InputError: its file cannot be read.
  """
  return _read(folder, "song_meta.json") or []


def artists(record: dict[str, Any]) -> list[str]:
  """Returns the names of a song's artists; none where none is known."""
  names = map(str, record.get("artist_name_basket") or ())
  return [file_names.shown(name) for name in names]


def title(record: dict[str, Any]) -> str:
  """Returns artist and title of a song; empty where neither is known."""
  words = ", ".join(artists(record)), str(record.get("song_name") or "")
  # A title may be the name of a file.
  return file_names.shown(" - ".join(filter(None, words)))


def titles(folder: pathlib.Path, numbers: Sequence[int]) -> tuple[str, ...]:
  """Returns artist and title of songs by id; nothing where none is known."""
  found = {one.get("id"): title(one) for one in records(folder)}
  return tuple(found.get(number, "") for number in numbers) if found else ()


def playlist_titles(folder: pathlib.Path) -> list[str]:
  """Returns the title of each playlist, in the order of the catalogue.

  A playlist may have none. The list is empty where there are no metadata.
  """
  lists = [_read(folder, name) or () for name in _PLAYLISTS]
  return [
    file_names.shown(str(one.get("plylst_title") or ""))
    for some in lists
    for one in some
  ]


def genre_names(folder: pathlib.Path) -> dict[str, str]:
  """Returns the names of genre codes, as far as they are known."""
  return _read(folder, "genre_gn_all.json") or {}
