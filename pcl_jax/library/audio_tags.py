"""Reads artist, album, genre, title and date from the tags of audio files."""

from collections.abc import Iterable
import dataclasses
import os
import pathlib

import mutagen
from mutagen import id3
import soundfile

# WAV and AIFF files carry ID3 frames that mutagen gives no easy names to.
_ID3_FRAMES = {
  "title": "TIT2",
  "artist": "TPE1",
  "album": "TALB",
  "albumartist": "TPE2",
  "date": "TDRC",
}
# WMA (ASF) and APEv2 tags (APE, WavPack, Musepack) have names of their own.
_OTHER_NAMES = {
  "author": "artist",
  "wm/albumtitle": "album",
  "wm/albumartist": "albumartist",
  "album artist": "albumartist",
  "wm/genre": "genre",
  "wm/year": "date",
  "year": "date",
}


@dataclasses.dataclass(frozen=True)
class Tags:
  """Tags of a file; those that it lacks are empty.

  Attributes:
    titles: names of the song.
    artists: names of its artists.
    albums: names of its album.
    album_artists: names of the album's artists.
    genres: names of its genres.
    dates: when it was issued, as written there.
    unreadable: why the tags could not be read, or empty.
  """

  titles: tuple[str, ...] = ()
  artists: tuple[str, ...] = ()
  albums: tuple[str, ...] = ()
  album_artists: tuple[str, ...] = ()
  genres: tuple[str, ...] = ()
  dates: tuple[str, ...] = ()
  unreadable: str = ""


def names(values: Iterable[str]) -> tuple[str, ...]:
  """Splits tag values at ';', drops blanks, and repetitions in any case."""
  found: dict[str, str] = {}
  for value in values:
    for part in value.replace("\0", ";").split(";"):
      part = " ".join(part.split())
      if part:
        found.setdefault(part.casefold(), part)
  return tuple(found.values())


def _mutagen_tags(path: pathlib.Path) -> dict[str, list[str]]:
  file = mutagen.File(path, easy=True)
  if file is None or file.tags is None:
    return {}
  if not isinstance(file.tags, id3.ID3):
    found: dict[str, list[str]] = {}
    for key in file.tags.keys():
      name = _OTHER_NAMES.get(key.lower(), key.lower())
      if name in _ID3_FRAMES or name == "genre":  # Others may be pictures.
        values = file.tags[key]
        values = [values] if isinstance(values, str) else list(values)
        found.setdefault(name, []).extend(map(str, values))
    return found
  found = {
    key: [str(text) for one in file.tags.getall(frame) for text in one.text]
    for key, frame in _ID3_FRAMES.items()
  }
  genres = file.tags.getall("TCON")
  return found | {"genre": [name for one in genres for name in one.genres]}


def _header_tags(path: pathlib.Path) -> dict[str, list[str]]:
  """Returns the strings libsndfile knows of, as WAV's INFO chunk has them."""
  try:
    with soundfile.SoundFile(os.fspath(path)) as file:
      found = file.copy_metadata()
  except (soundfile.SoundFileError, OSError, TypeError):
    return {}
  return {key: [value] for key, value in found.items()}


def read_tags(path: pathlib.Path) -> Tags:
  """Reads the tags of an audio file; never raises.

  Args:
    path: an audio file.

  Returns:
    Its tags: ID3, Vorbis comments and the like, or else the file header's own.
  """
  unreadable = ""
  try:
    found = _mutagen_tags(path)
  # The file may hold anything, and mutagen lets more than its own errors out.
  except Exception as error:  # noqa: BLE001
    found, unreadable = {}, f"{type(error).__name__}: {error}"
  if not any(found.values()):
    found = _header_tags(path)
  return Tags(
    titles=names(found.get("title", [])),
    artists=names(found.get("artist", [])),
    albums=names(found.get("album", [])),
    album_artists=names(found.get("albumartist", [])),
    genres=names(found.get("genre", [])),
    dates=names(found.get("date", [])),
    unreadable=unreadable,
  )
