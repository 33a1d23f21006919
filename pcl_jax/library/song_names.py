"""What people know the songs of a data set by: files, artists and titles."""

from collections.abc import Sequence
import os
import pathlib
from typing import Any

from pcl_jax.common import file_names
from pcl_jax.common import storage
from pcl_jax.library import music_files

_METADATA = "kakao_meta/song_meta.json"


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


def records(folder: pathlib.Path) -> list[dict[str, Any]]:
  """Returns what a data set says of its songs; nothing where it says nothing.

  Raises:
    InputError: its file cannot be read.
  """
  path = folder / _METADATA
  return storage.read_made_json(path) if path.exists() else []


def titles(folder: pathlib.Path, numbers: Sequence[int]) -> tuple[str, ...]:
  """Returns artist and title of songs by id; nothing where none is known."""
  found = {}
  for one in records(folder):
    artists = ", ".join(map(str, one.get("artist_name_basket") or ()))
    words = artists, str(one.get("song_name") or "")
    # A title may be the name of a file.
    found[one.get("id")] = file_names.shown(" - ".join(filter(None, words)))
  return tuple(found.get(number, "") for number in numbers) if found else ()
