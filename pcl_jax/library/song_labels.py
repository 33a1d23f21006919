"""Artists, album and genres of songs, as tags or a data set name them."""

from collections.abc import Iterable, Sequence
import os
import pathlib
import re
from typing import Any, NamedTuple

from pcl_jax.common import file_names
from pcl_jax.library import artist_names
from pcl_jax.library import audio_tags
from pcl_jax.library import name_keys
from pcl_jax.library import placeholders
from pcl_jax.library import song_names

_SEPARATORS = re.compile(r"[;,/|\0]")  # Of genres.
_NO_NAMES = {
  kind: placeholders.Placeholders(kind)
  for kind in ("artists", "albums", "genres")
}


class Labels(NamedTuple):
  """What a song is labelled with; what is not known is empty.

  Attributes:
    name: artists and title.
    artists: the names of its artists.
    album: the name of its album.
    album_id: the same for all songs of an album, and for no others.
    genres: the names of its genres.
  """

  name: str = ""
  artists: tuple[str, ...] = ()
  album: str = ""
  album_id: str = ""
  genres: tuple[str, ...] = ()


def _real(kind: str, names: Iterable[str]) -> tuple[str, ...]:
  """Returns the names that are names, each once, fit for one line."""
  kept = [one for one in names if one and one not in _NO_NAMES[kind]]
  return tuple(dict.fromkeys(map(file_names.shown, kept)))


def _name(artists: Iterable[str], title: str) -> str:
  parts = ", ".join(artists), title
  return file_names.shown(" - ".join(filter(None, parts))) if title else ""


def of_file(path: str | os.PathLike[str]) -> Labels:
  """Reads the labels of an audio file from its tags; never raises.

  An album is told from others of its name by its artist, or by the folder of
  its files where no tag names that artist.
  """
  tags = audio_tags.read_tags(pathlib.Path(path))
  listed = artist_names.listed(tags.artist_list, tags.artists)
  listed = listed or artist_names.without_guests(tags.artists)
  artists = _real("artists", listed)
  titles = [name_keys.clean(one) for one in tags.titles[:1]]
  albums = _real("albums", map(name_keys.clean, tags.albums[:1]))
  album_id = ""
  if albums:
    owner = _real("artists", tags.album_artists)
    folder = os.path.dirname(os.path.abspath(path))
    owner = ", ".join(map(name_keys.key, owner)) or folder
    album_id = file_names.shown(f"{name_keys.key(albums[0])} / {owner}")
  genres = artist_names.split_values(tags.genres, _SEPARATORS)
  return Labels(
    _name(artists, "".join(titles)),
    artists,
    "".join(albums),
    album_id,
    _real("genres", genres),
  )


def moved_album(album_id: str, before: str, after: str) -> str:
  """Returns the album_id of a file that was moved, by its two paths.

  It is another one where it names the folder of the album's files.
  """
  if before == after:
    return album_id
  folder, now = (
    f" / {file_names.shown(os.path.dirname(path))}" for path in (before, after)
  )
  kept = album_id.removesuffix(folder)
  return album_id if kept == album_id else kept + now


def _of_record(one: dict[str, Any], genres: dict[str, str]) -> Labels:
  """Returns the labels of a song by its record in song_meta.json."""
  artists = _real("artists", map(str, one.get("artist_name_basket") or ()))
  album = file_names.shown(str(one.get("album_name") or ""))
  album_id = one.get("album_id")
  codes = [*(one.get("song_gn_gnr_basket") or ())]
  codes += one.get("song_gn_dtl_gnr_basket") or ()
  return Labels(
    artists=artists,
    album=album,
    album_id="" if album_id is None else str(album_id),
    genres=_real("genres", (genres.get(code, "") for code in codes)),
  )


def of_data_set(folder: pathlib.Path, numbers: Sequence[int]) -> list[Labels]:
  """Returns the labels of a data set's songs, by their ids."""
  genres = song_names.genre_names(folder)
  found = {
    one.get("id"): _of_record(one, genres) for one in song_names.records(folder)
  }
  names = song_names.titles(folder, numbers) or [""] * len(numbers)
  return [
    found.get(number, Labels())._replace(name=name)
    for number, name in zip(numbers, names, strict=True)
  ]
