"""Reads artist, album, genre, title and date from the tags of audio files."""

from collections.abc import Iterator
import dataclasses
import pathlib
from typing import Any

import mutagen
from mutagen import apev2
from mutagen import id3
from mutagen import wave

from pcl_jax.audio import containers

# What Vorbis comments, APEv2, ASF (WMA), MP4, ID3 and the headers of files call
# a field, in lower case.
_FIELDS = {
  name: field
  for field, names in {
    "titles": "title tit2 \xa9nam",
    "artists": "artist author tpe1 \xa9art",
    "artist_list": "artists wm/artists ----:com.apple.itunes:artists",
    "albums": "album wm/albumtitle talb \xa9alb",
    "album_artists": "albumartist album_artist wm/albumartist tpe2 aart",
    "genres": "genre wm/genre tcon \xa9gen",
    "dates": "date year wm/year tdrc \xa9day",
  }.items()
  for name in names.split()
} | {"album artist": "album_artists"}
_MOST_CHARS = 1000  # Of a value; what is longer is no name.
_ID3V1_BYTES = 30  # Longer values are cut there.

_Found = dict[str, list[str]]


@dataclasses.dataclass(frozen=True)
class Tags:
  """Tags of a file, as they are written; those that it lacks are empty.

  Attributes:
    titles: names of the song.
    artists: what is displayed as the artist.
    artist_list: the single artists (the tag ARTISTS).
    albums: names of its album.
    album_artists: names of the album's artists.
    genres: names of its genres.
    dates: when it was issued.
    unreadable: why the tags could not be read, or empty.
  """

  titles: tuple[str, ...] = ()
  artists: tuple[str, ...] = ()
  artist_list: tuple[str, ...] = ()
  albums: tuple[str, ...] = ()
  album_artists: tuple[str, ...] = ()
  genres: tuple[str, ...] = ()
  dates: tuple[str, ...] = ()
  unreadable: str = ""


def _named_values(tags: Any) -> Iterator[tuple[str, list[Any]]]:
  """Yields name and values of every tag that is read."""
  if not isinstance(tags, id3.ID3):
    for key in tags.keys():
      if key.lower() in _FIELDS:  # Others may be pictures.
        values = tags[key]
        yield key, [values] if isinstance(values, str) else list(values)
    return
  for frame in tags.values():
    if frame.FrameID == "TCON":
      yield frame.FrameID, frame.genres
    elif isinstance(frame, id3.TextFrame):
      yield (
        (frame.desc if isinstance(frame, id3.TXXX) else frame.FrameID),
        (frame.text),
      )


def _texts(tags: Any) -> _Found:
  """Returns field -> values that are not blank."""
  found: _Found = {}
  for name, values in _named_values(tags):
    texts = [
      one.decode(errors="replace") if isinstance(one, bytes) else str(one)
      for one in values
    ]
    field = _FIELDS.get(name.lower())
    if field:
      found.setdefault(field, []).extend(
        text[:_MOST_CHARS] for text in texts if text.strip(" \0\n")
      )
  return found


def _is_cut(old: list[str], full: list[str]) -> bool:
  """Returns whether ID3v1 has cut a value that APEv2 has in full."""
  old, full = "".join(old), "".join(full)
  return len(old.encode()) <= _ID3V1_BYTES and full.startswith(old.rstrip())


def _mutagen_tags(path: pathlib.Path) -> _Found:
  """Returns what the tags of a file say, of whatever kinds it has.

  ID3v2 comes before APEv2, and that before ID3v1, which cuts and has no stated
  encoding. ID3 in front of a FLAC file counts where Vorbis comments are silent.
  """
  file = mutagen.File(path)
  tags = getattr(file, "tags", None)
  found = _texts(tags) if tags is not None else {}
  if not found and (file is None or isinstance(file, wave.WAVE)):
    return _texts(containers.header_tags(path))  # Matroska; the INFO of WAV.
  with open(path, "rb") as file:
    begins_with_id3 = file.read(3) == b"ID3"
  if tags is not None and not isinstance(tags, id3.ID3):
    if begins_with_id3:
      found = _texts(id3.ID3(path)) | found
    return found
  try:
    others = _texts(apev2.APEv2(path))
  except apev2.error:
    return found
  old = tags is not None and tags.version < (2,)
  for field, values in others.items():
    if old or _is_cut(found.get(field, []), values):
      found[field] = values
  return found


def read_tags(path: pathlib.Path) -> Tags:
  """Reads the tags of an audio file; never raises.

  Args:
    path: an audio file.

  Returns:
    Its tags: ID3, Vorbis comments and the like, or else the file header's own.
  """
  unreadable = ""
  if path.exists() and not path.is_file():  # A pipe would be waited for.
    return Tags(unreadable="it is no regular file")
  try:
    found = _mutagen_tags(path)
  # The file may hold anything, and mutagen lets more than its own errors out.
  except Exception as error:  # noqa: BLE001
    unreadable = f"{type(error).__name__}: {error}"
    found = _texts(containers.header_tags(path))
  return Tags(**{k: tuple(v) for k, v in found.items()}, unreadable=unreadable)
