"""Where the songs of a Melon folder are: unpacked files and tars."""

import collections
import contextlib
import os
import pathlib
import re

from pcl_jax.common import errors
from preprocessing.melon import tar_reader

SONGS_PER_FOLDER = tar_reader.SONGS_PER_FOLDER
FOLDER = "arena_mel"
_TAR_PATTERN = "arena_mel_*.tar"


def song_file(song_id: int) -> str:
  """Returns a song's file, relative to the folder of the data set."""
  return f"{FOLDER}/{song_id // SONGS_PER_FOLDER}/{song_id}.npy"


def find_tars(melon_dir: pathlib.Path) -> list[pathlib.Path]:
  """Returns the tars of a Melon folder in the order of their numbers."""
  return sorted(melon_dir.glob(_TAR_PATTERN), key=lambda one: order(one.name))


def order(name: str) -> tuple:
  """Returns a key that sorts arena_mel_2.tar before arena_mel_10.tar."""
  parts = re.split(r"([0-9]+)", name)
  return [(int(one), "") if one.isdigit() else (-1, one) for one in parts], name


def find_files(
  melon_dir: pathlib.Path, song_ids: list[int]
) -> dict[int, tuple[int, int]]:
  """Returns song id -> bytes and time of change of the songs' unpacked files.

  Raises:
    InputError: a folder cannot be listed.
  """
  folders = collections.defaultdict(dict)
  for song_id in song_ids:
    folders[song_id // SONGS_PER_FOLDER][f"{song_id}.npy"] = song_id
  found = {}
  for folder, names in folders.items():
    path = melon_dir / FOLDER / str(folder)
    try:
      # One listing a folder: looking up each song is slow on network disks.
      with os.scandir(path) as entries:
        for entry in entries:
          if entry.name in names:
            with contextlib.suppress(FileNotFoundError):  # A link to nowhere.
              stat = entry.stat()
              found[names[entry.name]] = stat.st_size, stat.st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
      continue
    except OSError as error:
      raise errors.InputError(
        f"{path} cannot be listed ({error.strerror}). Give this user the right "
        "to read it, or move it out of the way to do without it."
      ) from error
  return found
