"""Playlist files: M3U, PLS, CSV, JSPF and XSPF.

Whatever a file holds, it is read, or refused with the reason: `NotAPlaylist`
where it is another kind of file, `UnreadablePlaylist` where it is damaged.
"""

from collections.abc import Callable, Iterable
import csv
import dataclasses
import io
import json
import os
import pathlib
import re
from typing import Any
from xml.etree import ElementTree

from pcl_jax.common import file_names

_MAX_BYTES = 64 << 20
_SHOWN_CHARS = 200
_CSV_COLUMNS = ("playlist", "path")
_CSV_DELIMITERS = ",;\t"


class UnreadablePlaylist(Exception):
  """A playlist file is damaged; the message says how."""


class NotAPlaylist(UnreadablePlaylist):
  """A file has a playlist's suffix and is of another kind."""


@dataclasses.dataclass(frozen=True)
class Entry:
  """One line or track of a playlist.

  Attributes:
    shown: what stands there, for people.
    places: paths or addresses of the song, the first the likeliest; empty if
      none is said.
  """

  shown: str
  places: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Playlist:
  """A playlist.

  Attributes:
    title: its name.
    entries: all of them, in order.
  """

  title: str
  entries: tuple[Entry, ...]


_Found = tuple[list[Playlist], str]


def _decode(content: bytes) -> tuple[str, str]:
  """Returns the text of a file, and its encoding.

  UTF-8, UTF-16 with or without a byte order mark, or else Windows' or ISO's
  Western European, which old players write.
  """
  encodings = ["utf-8-sig", "cp1252", "latin-1"]
  if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
    encodings.insert(0, "utf-16")
  elif b"\0" in content[:2]:
    encodings.insert(0, "utf-16-be" if content[:1] == b"\0" else "utf-16-le")
  for encoding in encodings:
    try:
      text = content.decode(encoding)
      break
    except UnicodeDecodeError:
      continue
  if "\0" in text:
    raise UnreadablePlaylist("it is not text: it has bytes of value 0")
  return text, encoding


def _lines(text: str) -> list[str]:
  # Not splitlines: it also splits at characters that names may have.
  return [line.strip(" \t") for line in re.split(r"[\r\n]+", text)]


def _of_lines(places: Iterable[str]) -> tuple[Entry, ...]:
  return tuple(Entry(place, (place,)) for place in places)


def _read_m3u(
  content: bytes, path: pathlib.Path, roots: Iterable[pathlib.Path] = ()
) -> _Found:
  """Reads lines that are not blank; one that begins with '#' may be a file."""
  text, encoding = _decode(content)
  title, found = path.stem, []
  for line in re.split(r"[\r\n]+", text):
    entry = line.strip(" \t")
    named = re.fullmatch(r"#PLAYLIST:\s*(.+)", entry, re.I)
    if named:
      title = named[1].strip()
    elif entry[:1] == "#" and not any(
      os.path.isfile(os.path.join(folder, entry.replace("\\", "/")))
      for folder in (path.parent, *roots)
    ):
      continue
    elif entry:
      # Names may begin or end with blanks.
      found.append(Entry(entry, tuple(dict.fromkeys([line, entry]))))
  return [Playlist(title, tuple(found))], encoding


def place(path: str) -> str:
  """Returns an absolute path as a line of an M3U file in UTF-8.

  What a line cannot hold (a line break, a byte that is no text, a space at the
  end) makes it an address, file:// with escapes, which players read as well.
  """
  if file_names.shown(path) == path == path.strip():
    return path
  return pathlib.Path(path).as_uri()


def _read_pls(content: bytes, path: pathlib.Path) -> _Found:
  """Reads the lines File1=..., File2=..., in the order of their numbers."""
  text, encoding = _decode(content)
  lines = [line for line in _lines(text) if line]
  found = []
  for line in lines:
    match = re.fullmatch(r"file([0-9]*)[ \t]*=[ \t]*(.*)", line, re.I | re.S)
    if match:
      digits = match[1].lstrip("0")
      found.append(((len(digits), digits), match[2]))
  if not found and not any(line.lower() == "[playlist]" for line in lines):
    raise UnreadablePlaylist(
      "it has neither a line [playlist] nor one that begins with File1="
    )
  found.sort(key=lambda one: one[0])
  found = _of_lines(place for _, place in found)
  return [Playlist(path.stem, found)], encoding


def _csv_rows(text: str) -> tuple[Any, int, int]:
  """Returns a reader behind the header, and where its two columns are."""
  for delimiter in _CSV_DELIMITERS:
    reader = csv.reader(
      io.StringIO(text, newline=""),
      delimiter=delimiter,
      strict=True,
      skipinitialspace=True,
    )
    try:
      header = next((row for row in reader if any(map(str.strip, row))), [])
    except csv.Error:
      continue
    names = [cell.strip().lower() for cell in header]
    if all(column in names for column in _CSV_COLUMNS):
      return reader, *map(names.index, _CSV_COLUMNS)
  first = next(filter(None, _lines(text)), "")
  raise NotAPlaylist(
    f"its first line does not name the columns {' and '.join(_CSV_COLUMNS)}: "
    f"{first[:_SHOWN_CHARS]!r}"
  )


def _read_csv(content: bytes, path: pathlib.Path) -> _Found:
  """Reads a table with a column of playlists' names and one of paths."""
  text, encoding = _decode(content)
  reader, title_column, place_column = _csv_rows(text)
  found: dict[str, list[Entry]] = {}
  try:
    for row in reader:
      cells = [cell.strip() for cell in row]
      if not any(cells):
        continue
      row += [""] * (max(title_column, place_column) + 1 - len(row))
      title, place = row[title_column].strip(), row[place_column]
      if title and place.strip():
        places = tuple(dict.fromkeys([place, place.strip()]))
        entry = Entry(place, places)
      else:
        lacks = _CSV_COLUMNS[1 if title else 0]
        entry = Entry(f"line {reader.line_num} (no {lacks}): {cells}", ())
      found.setdefault(title, []).append(entry)
  except csv.Error as error:
    raise UnreadablePlaylist(f"line {reader.line_num}: {error}") from error
  return [Playlist(one, tuple(found[one])) for one in found], encoding


def _track(number: int, places: list[Any], words: list[Any]) -> Entry:
  """Returns the entry of a track with some locations and describing words."""
  texts = [one.strip() for one in places if isinstance(one, str)]
  texts = [one for one in texts if one]
  if texts:
    return Entry(texts[0], tuple(texts))
  words = [one.strip() for one in words if isinstance(one, str)]
  return Entry(
    f"track {number} (no location): {' - '.join(filter(None, words))}", ()
  )


def _read_jspf(content: bytes, path: pathlib.Path) -> _Found:
  """Reads json: {"playlist": {"title": ..., "track": [{"location": ...}]}}."""
  text, encoding = _decode(content)
  try:
    value = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise UnreadablePlaylist(f"it is not json: {error}") from error
  found = value.get("playlist") if isinstance(value, dict) else None
  if not isinstance(found, dict):
    raise UnreadablePlaylist('it is not an object with an object "playlist"')
  tracks = found.get("track", [])
  if not isinstance(tracks, list):
    raise UnreadablePlaylist('its "track" is not a list')
  entries = []
  for number, track in enumerate(tracks, start=1):
    if not isinstance(track, dict):
      kind = type(track).__name__
      entries.append(Entry(f"track {number} ({kind}, not an object)", ()))
      continue
    places = track.get("location", [])
    words = [track.get("creator"), track.get("title")]
    places = places if isinstance(places, list) else [places]
    entries.append(_track(number, places, words))
  title = found.get("title")
  title = title.strip() if isinstance(title, str) else ""
  return [Playlist(title or path.stem, tuple(entries))], encoding


def _read_xspf(content: bytes, path: pathlib.Path) -> _Found:
  """Reads XML: playlist, in it trackList, track and location."""
  text, _ = _decode(content)
  if "<!DOCTYPE" in text:
    raise UnreadablePlaylist(
      "it has a DOCTYPE, which may declare entities and is not read: remove it"
    )
  declared = re.match(r"""<\?xml[^>]*encoding=["']([^"']*)""", text)
  encoding = declared[1].lower() if declared else "utf-8"
  try:
    return [_xspf_playlist(content, path.stem)], encoding
  # Unknown encodings are LookupError or ValueError.
  except (ElementTree.ParseError, LookupError, ValueError) as error:
    raise UnreadablePlaylist(f"it is not well-formed XML: {error}") from error


def _xspf_playlist(content: bytes, name: str) -> Playlist:
  """Reads the elements as they end, and forgets them: there is no tree."""
  title, entries, places, words = name, [], [], []
  open_elements, path = [], []
  events = ElementTree.iterparse(io.BytesIO(content), ("start", "end"))
  for event, element in events:
    if event == "start":
      open_elements.append(element)
      path.append(element.tag.rpartition("}")[2].lower())
      if path[0] != "playlist":
        raise UnreadablePlaylist(
          f"its outermost element is {path[0][:_SHOWN_CHARS]!r}, not 'playlist'"
        )
      continue
    text = (element.text or "").strip()
    match path:
      case ["playlist", "title"]:
        title = text or name
      case ["playlist", "tracklist", "track", "location"]:
        places.append(text)
      case ["playlist", "tracklist", "track", "creator" | "title"]:
        words.append(text)
      case ["playlist", "tracklist", "track"]:
        entries.append(_track(len(entries) + 1, places, words))
        places, words = [], []
    path.pop()
    open_elements.pop()
    if open_elements:
      open_elements[-1].remove(element)
  return Playlist(title, tuple(entries))


_READERS: dict[str, Callable[[bytes, pathlib.Path], _Found]] = {
  ".pls": _read_pls,
  ".csv": _read_csv,
  ".jspf": _read_jspf,
  ".xspf": _read_xspf,
}
_M3U = (".m3u", ".m3u8")
SUFFIXES = (*_M3U, *_READERS)


def read_playlists(
  path: pathlib.Path, roots: Iterable[pathlib.Path] = ()
) -> _Found:
  """Reads the playlists of a file.

  Args:
    path: a file with one of `SUFFIXES`, in any case.
    roots: folders that relative entries may mean, besides the playlist's own.

  Returns:
    Its playlists, each entry in them, and the encoding they were read in. A
    csv file may hold several, the others hold one, named like the file if it
    has no title.

  Raises:
    UnreadablePlaylist: the file cannot be read or is damaged.
    NotAPlaylist: it is of another kind.
  """
  try:
    if not path.is_file():  # A pipe would be waited for.
      raise UnreadablePlaylist("it is not a file, or leads nowhere")
    size = path.stat().st_size
    if size > _MAX_BYTES:
      raise UnreadablePlaylist(
        f"it has {size} bytes, more than the {_MAX_BYTES} of the longest "
        "playlist that is read"
      )
    content = path.read_bytes()
  except OSError as error:
    raise UnreadablePlaylist(f"it cannot be read ({error.strerror})") from error
  suffix = path.suffix.lower()
  if suffix in _M3U:
    return _read_m3u(content, path, roots)
  return _READERS[suffix](content, path)
