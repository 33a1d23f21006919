"""Ids that a music server has for the songs of the table, and for artists."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import csv
import dataclasses
import json
import os
import pathlib
from typing import Any, NamedTuple

from pcl_jax.common import errors
from pcl_jax.embedding.tables import song_facts
from pcl_jax.embedding.tables import song_table
from pcl_jax.library import name_keys
from pcl_jax.library import song_finder
from pcl_jax.server import served_library

_MOST_APART_S = 5  # Lengths of a song of one name.


class OutsideSong(NamedTuple):
  """What a music server says of a song; what is not known is empty.

  Attributes:
    id: its id there.
    path: of its file.
    title: its title.
    artist: its artists, as one text.
    album: the name of its album.
    artist_ids: name and id of its artists there.
    seconds: its length.
  """

  id: str
  path: str = ""
  title: str = ""
  artist: str = ""
  album: str = ""
  artist_ids: tuple[tuple[str, str], ...] = ()
  seconds: float = 0.0


def _text(one: Mapping[str, Any], *names: str) -> str:
  """Returns the first value that is there."""
  return str(next((one[name] for name in names if one.get(name)), ""))


def of_record(one: Mapping[str, Any]) -> OutsideSong | None:
  """Returns a song as a file or OpenSubsonic has it; None without an id."""
  artist = _text(one, "artist")
  artist_id = _text(one, "artistId", "artist_id")
  several = one.get("artists") or ()
  ids = [
    (str(each["name"]), str(each["id"]))
    for each in (several if isinstance(several, list) else ())
    if isinstance(each, dict) and each.get("id") and each.get("name")
  ]
  if artist and artist_id and artist_id not in {found for _, found in ids}:
    ids.append((artist, artist_id))
  length = one.get("duration") or one.get("seconds") or 0
  try:
    seconds = float(length)
  except (TypeError, ValueError):
    seconds = 0.0
  name = _text(one, "id")
  if not name:
    return None
  path, title, album = (_text(one, key) for key in ("path", "title", "album"))
  return OutsideSong(name, path, title, artist, album, tuple(ids), seconds)


def _records(path: pathlib.Path) -> Iterable[Mapping[str, Any]]:
  if path.suffix.lower() != ".json":
    with open(path, encoding="utf-8-sig", newline="") as file:
      return list(csv.DictReader(file))
  content = json.loads(path.read_text("utf-8-sig"))
  if isinstance(content, dict):
    return [{"id": name, "path": place} for name, place in content.items()]
  return [one for one in content if isinstance(one, dict)]


def read_file(path: pathlib.Path) -> list[OutsideSong]:
  """Reads the ids of a music server from a file.

  Args:
    path: a csv with the columns id and path, or a json with a list of objects
      that have these, or an object id -> path. They may also have title,
      artist, album, artist_id.

  Raises:
    InputError: it cannot be read, or has no ids.
  """
  try:
    songs = list(filter(None, map(of_record, _records(path))))
  except (OSError, ValueError, TypeError, csv.Error) as error:
    raise errors.InputError(
      f"{path} cannot be read ({error}): give a csv file with the columns id "
      "and path, or a json file with such objects."
    ) from error
  if not songs:
    raise errors.InputError(
      f"{path} has no ids: give a csv file with the columns id and path, or a "
      "json file with such objects."
    )
  return songs


@dataclasses.dataclass(frozen=True)
class Mapped:
  """The songs of a library that a music server has.

  Attributes:
    library: the library.
    table: its table, in which only songs of that server are found.
    row_of: the row of each id.
    song_of: what the music server says of the song of a row.
    artist_of: the number of the artist of each id of an artist.
    artist_id_of: the id of the artist of each number.
    said: how many were found, and how.
  """

  library: served_library.Library
  table: song_table.Table
  row_of: Mapping[str, int]
  song_of: Mapping[int, OutsideSong]
  artist_of: Mapping[str, int]
  artist_id_of: Mapping[int, str]
  said: str = ""


def unmapped(library: served_library.Library) -> Mapped:
  """Returns a library whose songs have the ids of the table."""
  rows = {one: row for row, one in enumerate(library.ids)}
  return Mapped(library, library.table, rows, {}, {}, {})


def _by_names(library: served_library.Library) -> dict[str, list[int]]:
  """Returns the rows of each name of artists and title.

  A file without a title has its own name in place of one, as there.
  """
  found: dict[str, list[int]] = {}
  for row in range(len(library)):
    artists = ", ".join(library.table.facts.artist_names(row))
    name = _name(artists, library.title(row))
    found.setdefault(name_keys.key(name), []).append(row)
  return found


def _name(artists: str, title: str) -> str:
  return f"{artists} - {title}" if artists else title


def _named(
  library: served_library.Library, rows: Sequence[int], song: OutsideSong
) -> int | None:
  """Returns the one row, of some of a name, whose album and length agree."""
  facts = library.table.facts
  close = [
    row
    for row in rows
    if not song.seconds
    or abs(float(facts.seconds[row]) - song.seconds) <= _MOST_APART_S
  ]
  if len(close) > 1:
    album = name_keys.key(song.album)
    close = [row for row in close if name_keys.key(facts.album(row)) == album]
  return close[0] if len(close) == 1 else None


def map_songs(
  library: served_library.Library, songs: Iterable[OutsideSong]
) -> Mapped:
  """Finds the songs of a music server in a library.

  A song is found by its path: whole, within the library's folder, or such that
  one song's path alone ends like it. Else by artists and title, if there is one
  song of these whose length agrees.
  """
  songs = list(songs)
  find, by_name = _path_finder(library), _by_names(library)
  row_of, song_of, names = {}, {}, 0
  for song in songs:
    row = find(song.path) if song.path else None
    if row is None and song.title:
      name = _name(song.artist, song.title)
      rows = by_name.get(name_keys.key(name), ())
      row = _named(library, rows, song)
      names += row is not None
    if row is not None:
      row_of[song.id] = row
      song_of.setdefault(row, song)
  artists = _artists(library, song_of)
  missing = set(range(len(library))) - song_of.keys()
  silent = library.table.silent | missing
  return Mapped(
    library,
    dataclasses.replace(library.table, silent=frozenset(silent)),
    row_of,
    song_of,
    artists,
    {number: one for one, number in artists.items()},
    f"{len(row_of)} of {len(songs)} songs of the music server are in the table "
    f"({names} by their names); {len(missing)} of its {len(library)} songs are "
    "not on the server, and not offered to it",
  )


def _path_finder(
  library: served_library.Library,
) -> Callable[[str], int | None]:
  """Returns what finds the row of a path; None where there is none."""
  exact = zip(library.table.ids, library.ids, strict=True)
  rows = {name: row for row, both in enumerate(exact) for name in both}
  inside = {
    os.path.relpath(path, os.sep): row
    for row, path in enumerate(library.table.paths)
    if path
  }
  finder = song_finder.SongFinder(pathlib.Path(os.sep), inside)

  def find(path: str) -> int | None:
    for row in (rows.get(path), library.row_of_path(path)):
      if row is not None:
        return row
    return finder.find_by_ending(path)

  return find


def _artists(
  library: served_library.Library, song_of: Mapping[int, OutsideSong]
) -> dict[str, int]:
  """Returns the number of the artist of each id that songs' artists have."""
  facts, found = library.table.facts, {}
  for row, song in song_of.items():
    own = facts.artists[row].tolist()
    for name, one in song.artist_ids:
      if one in found:
        continue
      numbers = facts.numbers_of(song_facts.ARTIST, [name]).tolist()
      if numbers:
        found[one] = numbers[0]
      elif len(own) == len(song.artist_ids) == 1:
        found[one] = own[0]
  return found
