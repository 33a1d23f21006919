"""Playlist files in M3U form, and which songs of a library they mean."""

from collections.abc import Mapping
import os
import pathlib
import re
import unicodedata
from urllib import parse

SUFFIXES = (".m3u", ".m3u8")
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_entries(path: pathlib.Path) -> tuple[list[str], str]:
  """Reads the entries of a playlist file.

  Args:
    path: an .m3u or .m3u8 file: UTF-8 with or without a byte order mark,
      UTF-16 with one, or else Latin-1, which old players write.

  Returns:
    The lines that are neither blank nor begin with '#', as they stand there,
    and the encoding they were read in.
  """
  content = path.read_bytes()
  encoding = "utf-16" if content[:2] in _BYTE_ORDER_MARKS else "utf-8-sig"
  try:
    text = content.decode(encoding)
  except UnicodeDecodeError:
    encoding = "latin-1"
    text = content.decode(encoding)
  # Not splitlines: it also splits at characters that names may have.
  lines = (line.strip(" \t") for line in re.split(r"[\r\n]+", text))
  return [line for line in lines if line and line[0] != "#"], encoding


def _spellings(entry: str) -> list[str]:
  """Returns the paths an entry may mean, the most literal first."""
  if entry[:5].lower() == "file:":
    found = [parse.unquote(parse.urlsplit(entry).path)]
  else:
    found = [entry]
  if "\\" in entry:
    found.append(found[0].replace("\\", "/"))
  found += [parse.unquote(one) for one in found if "%" in one]
  return found


def _folded(path: str) -> str:
  """Returns a path without case, accents composed."""
  return unicodedata.normalize("NFC", path).casefold()


class SongFinder:
  """Finds the song that a playlist's entry means."""

  def __init__(self, audio_dir: pathlib.Path, ids: Mapping[str, int]):
    """Prepares the search.

    Args:
      audio_dir: the library's folder.
      ids: path of each song, relative to `audio_dir` with '/', to its id.
    """
    self._roots = [os.path.abspath(audio_dir), os.path.realpath(audio_dir)]
    self._ids = ids
    self._folded: dict[str, int | None] = {}
    for path, song_id in ids.items():
      key = _folded(path)
      # Two songs that differ in case alone are found by exact spelling only.
      self._folded[key] = None if key in self._folded else song_id

  def find(self, folder: pathlib.Path, entry: str) -> int | None:
    """Returns the id of an entry's song, or None if the library lacks it.

    Args:
      folder: where the playlist file lies; relative entries are tried from
        there first, then from the library's folder.
      entry: a line of the file: a path or a file: address.
    """
    for spelling in _spellings(entry):
      for base in (folder, self._roots[0]):
        path = os.path.join(os.path.abspath(base), spelling)
        if "\0" in path:
          continue
        for full, root in zip(
          (os.path.normpath(path), os.path.realpath(path)),
          self._roots,
          strict=True,
        ):
          relative = os.path.relpath(full, root).replace(os.sep, "/")
          found = self._ids.get(relative, self._folded.get(_folded(relative)))
          if found is not None:
            return found
    return None
