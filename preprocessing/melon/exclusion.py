"""Songs of Melon that the user leaves out: folders, or a list of ids."""

from collections.abc import Sequence
import pathlib
import re

import numpy as np

from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.data import song_store
from preprocessing.melon import melon_source

# What the published text lists as missing or corrupt.
PUBLISHED_FOLDERS = (225, 227, 229, 230, 276, 277)
_FOLDERS = re.compile(r"[0-9]+(,[0-9]+)*")
_SHOWN = 5


def _read_ids(path: pathlib.Path) -> np.ndarray:
  """Reads song ids, one a line; empty lines are skipped."""
  try:
    text = path.read_text(encoding="utf-8-sig")
  except (OSError, UnicodeDecodeError) as error:
    raise errors.InputError(
      f"--exclude={path} cannot be read as a text file ({error}). It is "
      "'published', or numbers of folders with commas between, or a file of "
      "song ids, one a line."
    ) from error
  ids = []
  for number, line in enumerate(text.splitlines(), start=1):
    word = line.strip()
    if not word:
      continue
    # isdecimal alone admits the digits of other scripts.
    is_number = word.isascii() and word.isdecimal() and len(word) <= 10
    if not is_number or int(word) > song_store.MAX_SONG_ID:
      raise errors.InputError(
        f"{path}, line {number}: {word[:80]!r} is not a song id (a whole "
        f"number from 0 to {song_store.MAX_SONG_ID}). Write one id a line and "
        "nothing else."
      )
    ids.append(int(word))
  return np.unique(np.array(ids, np.int64))


def _report(name: str, what: str, unknown: list[int], total: int) -> None:
  if unknown:
    shown = ", ".join(map(str, unknown[:_SHOWN]))
    more = ", ..." if len(unknown) > _SHOWN else ""
    print(
      f"--exclude={name}: {len(unknown)} of {total} {what} have no song in the "
      f"metadata ({shown}{more})"
    )


def excluded_songs(
  choices: Sequence[str], song_ids: np.ndarray
) -> dict[int, str]:
  """Returns the songs that the user leaves out, song id -> the choice.

  Prints ids and folders that have no song in the metadata.

  Args:
    choices: each is `published`, numbers of folders with commas between, or the
      path of a file of song ids, one a line.
    song_ids: the ids of the metadata, ascending.

  Raises:
    InputError: a file cannot be read or a line of it is not a song id.
  """
  excluded = {}
  folders_of_songs = song_ids // melon_source.SONGS_PER_FOLDER
  for choice in choices:
    if choice == "published" or _FOLDERS.fullmatch(choice):
      folders = PUBLISHED_FOLDERS
      if choice != "published":
        folders = sorted({int(one) for one in choice.split(",")})
      named = [int(i) for i in song_ids[np.isin(folders_of_songs, folders)]]
      unknown = sorted(set(folders) - set(folders_of_songs.tolist()))
      _report(choice, "folders", unknown, len(folders))
      name = choice
    else:
      path = file_names.path(choice)
      ids = _read_ids(path)
      known = np.isin(ids, song_ids)
      named = ids[known].tolist()
      _report(choice, "ids", ids[~known].tolist(), len(ids))
      name = path.name
    for song_id in named:
      excluded.setdefault(song_id, name)
  return excluded
