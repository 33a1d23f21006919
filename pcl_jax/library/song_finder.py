"""Finds the song of a library that an entry of a playlist means."""

import bisect
from collections.abc import Iterator, Mapping
import functools
import operator
import os
import pathlib
import re
import unicodedata
from urllib import parse

_STREAM = re.compile("(https?|rtsp|rtmp|mms|icy|spotify|deezer|tidal):", re.I)
# Drives and addresses: "C:", "smb:", "\\\\NAS"; behind them is a whole path.
_ELSEWHERE = re.compile(r"[\\/]|[a-z][a-z0-9+.-]*:", re.I)


def is_stream(entry: str) -> bool:
  """Returns whether an entry is an address on the net, not a file."""
  return bool(_STREAM.match(entry.strip()))


def _file_paths(address: str) -> list[str]:
  """Returns the paths that an address file:... may mean, still escaped."""
  rest = address[5:]
  if rest.startswith("//"):
    host, slash, path = rest[2:].partition("/")
    # Without a host, as it should be; or a path by mistake.
    rest = slash + path if host.lower() in ("", "localhost") else rest[2:]
  return [rest, rest.partition("#")[0].partition("?")[0]]


def _unescaped(text: str) -> Iterator[str]:
  """Yields what percent escapes may stand for."""
  try:
    content = parse.unquote_to_bytes(text)
  except UnicodeEncodeError:  # It has halves of characters.
    return
  yield os.fsdecode(content)
  # Old programs escape Western European bytes.
  yield content.decode("latin-1")


def _recoded(text: str) -> Iterator[str]:
  """Yields a name that is not ASCII as other encodings would have it."""
  if text.isascii():
    return
  for encoding in ("cp1252", "latin-1"):
    try:
      content = text.encode(encoding)
    except UnicodeEncodeError:
      continue
    yield os.fsdecode(content)
    yield content.decode("latin-1")


def _spellings(entry: str) -> list[str]:
  """Returns the paths an entry may mean, the most literal first."""
  found = [entry]
  if entry[:5].lower() == "file:":
    found = _file_paths(entry)
    found = [one for path in found for one in _unescaped(path)] + found
  found += [one[1:-1] for one in found if one[:1] + one[-1:] in ('""', "''")]
  # As shells want it: "A\\ name.mp3".
  found += [re.sub(r"\\([ '\"()&])", r"\1", one) for one in found]
  found += [one.replace("\\", "/") for one in found if "\\" in one]
  found += [new for one in found if "%" in one for new in _unescaped(one)]
  found += [new for one in found for new in _recoded(one)]
  return [one for one in dict.fromkeys(found) if one and "\0" not in one]


def _folded(path: str) -> str:
  """Returns a path without case, accents composed."""
  return unicodedata.normalize("NFC", path).casefold()


def _parts(path: str) -> list[str]:
  """Returns the folders and the name of a path, folded; no drives and dots."""
  names = re.split(r"[\\/]+", _folded(path))
  names = [one.strip() for one in names if one not in ("", ".", "..")]
  return [one for one in names if one and not one.endswith(":")]


class SongFinder:
  """Finds the song that a playlist's entry means."""

  def __init__(self, audio_dir: pathlib.Path, ids: Mapping[str, int]):
    """Prepares the search.

    Args:
      audio_dir: the library's folder.
      ids: path of each song, relative to `audio_dir` with '/', -> its id; a
        song with two paths is there twice.
    """
    self._roots = [os.path.abspath(audio_dir), os.path.realpath(audio_dir)]
    self._ids = ids
    self._folded: dict[str, int | None] = {}
    for path, song_id in ids.items():
      # Two songs that differ in case alone are found by exact spelling only.
      known = self._folded.setdefault(_folded(path), song_id)
      if known != song_id:
        self._folded[_folded(path)] = None

  @functools.cached_property
  def _backwards(self) -> list[tuple[list[str], int, int, int]]:
    """Songs sorted by the parts of their paths, the file's name first.

    Behind the parts: place among the songs, parts below the root, id.
    """
    root = _parts(self._roots[0])
    found = []
    for place, (path, song_id) in enumerate(self._ids.items()):
      own = _parts(path) or [""]
      found.append(((root + own)[::-1], place, len(own), song_id))
    return sorted(found)

  def _longest_ending(self, wanted: list[str]) -> tuple[int, int, int] | None:
    """Returns the one song of the longest common ending with a path.

    Returns:
      How many parts are common, the parts of the song's path below the root,
      and its id; None if no song has the path's name, or several have the
      longest ending.
    """
    songs, wanted = self._backwards, wanted[::-1]
    parts_of = operator.itemgetter(0)
    at = bisect.bisect_left(songs, wanted, key=parts_of)
    # Sorted so, the songs before and behind are most alike.
    near = map(parts_of, songs[max(at - 1, 0) : at + 1])
    common = [os.path.commonprefix([wanted, parts]) for parts in near]
    ending = max(common, key=len, default=[])
    if not ending:
      return None
    found, at = [], bisect.bisect_left(songs, ending, key=parts_of)
    while at < len(songs) and songs[at][0][: len(ending)] == ending:
      found.append(songs[at][1:])
      if found[-1][2] != found[0][2]:
        return None
      at += 1
    _, own, song_id = min(found)
    return len(ending), own, song_id

  def find_by_ending(self, entry: str) -> int | None:
    """Returns the song whose path alone has the longest ending of an entry's.

    So a path of another machine is found. The name of the file has to agree,
    and its folder too, unless the song lies in no folder, or the entry is a
    whole path with at most one folder.

    Args:
      entry: what stands in the file.
    """
    if is_stream(entry):
      return None
    for spelling in _spellings(entry):
      wanted = _parts(spelling)
      found = self._longest_ending(wanted)
      if found is None:
        continue
      longest, own, song_id = found
      whole = _ELSEWHERE.match(spelling) and len(wanted) < 3
      if longest > 1 or whole or own == 1:
        return song_id
    return None

  @functools.cached_property
  def _real(self) -> dict[str, int]:
    """Songs by their real paths, for what is reached through links."""
    folders: dict[str, str] = {}
    found: dict[str, int] = {}
    for path, song_id in self._ids.items():
      folder, _, name = os.path.join(self._roots[1], path).rpartition("/")
      if folder not in folders:
        folders[folder] = os.path.realpath(folder)
      real = os.path.join(folders[folder], name)
      real = os.path.realpath(real) if os.path.islink(real) else real
      found.setdefault(real, song_id)
    return found

  def _look_up(self, path: str) -> int | None:
    """Returns the song of an absolute path, links followed or not."""
    try:
      spellings = os.path.normpath(path), os.path.realpath(path)
    except (OSError, ValueError):  # No file can have such a name.
      return None
    for full, root in zip(spellings, self._roots, strict=True):
      relative = os.path.relpath(full, root).replace(os.sep, "/")
      found = self._ids.get(relative, self._folded.get(_folded(relative)))
      if found is not None:
        return found
    return self._real.get(spellings[1])

  def find(self, folder: pathlib.Path, entry: str) -> int | None:
    """Returns the id of an entry's song, or None if the library lacks it.

    Args:
      folder: where the playlist file lies; relative entries are tried from
        there first, then from the library's folder.
      entry: what stands in the file: a path or a file: address.
    """
    for spelling in _spellings(entry):
      for base in (folder, self._roots[0]):
        path = os.path.join(os.path.abspath(base), spelling)
        found = self._look_up(path)
        if found is not None:
          return found
    return None


def only_one(finders: list[SongFinder], place: str) -> int | None:
  """Returns the one song whose path ends as a place does; None of several.

  Args:
    finders: of each folder of the table, and at last of all songs.
    place: of another machine.
  """
  found = finders[-1].find_by_ending(place)
  if found is not None:
    return found
  # In a folder without others a song's name is enough.
  rows = {one.find_by_ending(place) for one in finders[:-1]} - {None}
  return rows.pop() if len(rows) == 1 else None
