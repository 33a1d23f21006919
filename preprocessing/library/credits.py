"""Whose songs are whose: artists, albums and genres of a library's files."""

import collections
from collections.abc import Iterable, Mapping
import dataclasses
import pathlib
import re
from typing import Any

from pcl_jax.common import errors
from pcl_jax.library import artist_names
from pcl_jax.library import folder_artists
from pcl_jax.library import name_keys
from pcl_jax.library import placeholders
from pcl_jax.library.audio_tags import Tags

MOST_SONGS = 20  # Artists that the report names.
_FOLDER = "folder: "  # Begins the keys of artists that folders imply.
_LEADING_AND = re.compile(r"^(?:&|and)\s+", re.I)  # "Folk, World, & Country".


@dataclasses.dataclass(frozen=True)
class Rules:
  """How names are taken from tags and folders.

  Attributes:
    split_artists: one of `artist_names.RULES`.
    artist_folder: a rule of `folder_artists.find`.
    album_folder: none, or the level of the folders that are the albums of files
      without an album tag.
    no_artists: names that are no artist, separated by ';'; '+' stands for the
      built-in list.
    genre_separators: signs that separate genres, besides ';'.
    no_genres: names that are no genre, as `no_artists`.
  """

  split_artists: str = artist_names.RULES[0]
  artist_folder: str = folder_artists.LAYOUT
  album_folder: str = folder_artists.NONE
  no_artists: str = placeholders.BUILT_IN
  genre_separators: str = ",/|"
  no_genres: str = placeholders.BUILT_IN

  def check(self) -> None:
    """Raises InputError where a value is none of those that there are."""
    if self.split_artists not in artist_names.RULES:
      raise errors.InputError(
        f"--split_artists is {self.split_artists!r}: give one of "
        f"{', '.join(artist_names.RULES)}."
      )
    rule = self.artist_folder
    words = folder_artists.LAYOUT, folder_artists.PARENT, folder_artists.NONE
    if rule not in words and folder_artists.level_of(rule) is None:
      raise errors.InputError(
        f"--artist_folder is {rule!r}: give one of {', '.join(words)}, or the "
        "level of the artists' folders, 1 for those in --audio itself."
      )
    rule = self.album_folder
    if rule != folder_artists.NONE and folder_artists.level_of(rule) is None:
      raise errors.InputError(
        f"--album_folder is {rule!r}: give {folder_artists.NONE}, or the level "
        "of the albums' folders, 1 for those in --audio itself."
      )


@dataclasses.dataclass(frozen=True)
class Credits:
  """Artists, album and genres of each file, by keys, and what they are called.

  Attributes:
    artists: path -> keys of its artists.
    albums: path -> key of its album, or None.
    genres: path -> keys of its genres.
    names: kind (artists, albums, genres) -> the spellings of each key.
    from_folders: key of an artist -> the files that a folder implies it for.
    by_album_artist: paths whose artist is that of their album.
    split: name -> the artists that it was split into.
    no_names: kind -> name that is none -> how many songs have it.
  """

  artists: dict[str, list[str]]
  albums: dict[str, tuple[str, str] | None]
  genres: dict[str, list[str]]
  names: dict[str, name_keys.Spellings]
  from_folders: dict[str, list[str]]
  by_album_artist: list[str]
  split: dict[str, list[str]]
  no_names: dict[str, collections.Counter[str]]


def _folders(path: str) -> tuple[str, ...]:
  return pathlib.PurePosixPath(path).parts[:-1]


class _Namer:
  """Keeps names that are names, and counts their spellings and the others."""

  def __init__(self, kind: str, no_names: str):
    self.none = placeholders.Placeholders(kind, no_names.split(";"))
    self.spellings = name_keys.Spellings()
    self.dropped: collections.Counter[str] = collections.Counter()

  def real(self, names: Iterable[str]) -> list[str]:
    """Returns the names that are names."""
    found = []
    for one in names:
      if one in self.none:
        self.dropped[name_keys.clean(one)] += 1
      else:
        found.append(one)
    return found

  def keys(self, names: Iterable[str]) -> list[str]:
    return [self.spellings.add(one) for one in names]


class _Splitter:
  """Splits what tags call an artist, by what the whole library has."""

  def __init__(self, tags: Iterable[Tags], rule: str):
    names: set[str] = set()
    for one in tags:
      names.update(
        artist_names.listed(one.artist_list, one.artists)
        or artist_names.without_guests(one.artists, rule)
      )
      names.update(artist_names.without_guests(one.album_artists, rule))
    self._rule = rule
    self._known = artist_names.known_names(names)
    self._split: dict[str, list[str]] = {}

  def split(self, values: Iterable[str]) -> list[str]:
    names = artist_names.without_guests(values, self._rule)
    return artist_names.split_values(
      (part for name in names for part in self._parts(name)),
      re.compile("\0"),
    )

  def _parts(self, name: str) -> list[str]:
    if name not in self._split:
      self._split[name] = artist_names.single([name], self._known, self._rule)
    return self._split[name]

  def made(self) -> dict[str, list[str]]:
    return {
      name: parts
      for name, parts in sorted(self._split.items())
      if len(parts) > 1
    }


def _tagged(
  tags: Mapping[str, Tags], splitter: _Splitter, namer: _Namer
) -> tuple[dict[str, list[str]], list[str]]:
  """Returns the artists of each file by its tags, and which the album gave."""
  found, by_album_artist = {}, []
  for path, one in tags.items():
    names = artist_names.listed(one.artist_list, one.artists)
    names = namer.real(names or splitter.split(one.artists))
    if not names and one.album_artists:
      names = namer.real(splitter.split(one.album_artists))
      by_album_artist += [path] if names else []
    found[path] = namer.keys(names)
  return found, by_album_artist


def _by_folders(
  tags: Mapping[str, Tags],
  found: dict[str, list[str]],
  namer: _Namer,
  rule: str,
) -> dict[str, list[str]]:
  """Adds the artists of files that no tag names any for; returns these."""
  known = {key for keys in found.values() for key in keys}
  added: dict[str, list[str]] = {}
  untagged = {
    path: _folders(path)
    for path, one in tags.items()
    if not (one.artists or one.artist_list or one.album_artists)
  }
  collections_of_artists = folder_artists.find_collections(untagged.values())
  for path, folders in untagged.items():
    implied = folder_artists.find(
      folders,
      rule,
      known=lambda name: name_keys.key(name) in known,
      no_artists=namer.none,
      collections=collections_of_artists,
    )
    if implied:
      place, name = implied
      key = name_keys.key(name)
      key = key if key in known else _FOLDER + place
      namer.spellings.add(name, key)
      added.setdefault(key, []).append(path)
      found[path] = [key]
  return added


def _albums(
  tags: Mapping[str, Tags],
  namer: _Namer,
  no_artists: placeholders.Placeholders,
  rule: str,
) -> dict[str, tuple[str, str] | None]:
  """Returns the album of each file, by its artist or else by its folder."""
  level = folder_artists.level_of(rule)
  found: dict[str, tuple[str, str] | None] = {}
  for path, one in tags.items():
    found[path] = None
    for album in namer.real(one.albums)[:1]:
      by = [name for name in one.album_artists if name not in no_artists]
      owner = by or folder_artists.without_discs(_folders(path))
      kind = "artist: " if by else _FOLDER
      owner = kind + "/".join(map(name_keys.key, owner))
      found[path] = (owner, namer.spellings.add(album))
    folders = _folders(path)
    if found[path] is None and level and len(folders) >= level:
      album = namer.spellings.add(folders[level - 1])
      found[path] = (_FOLDER + "/".join(folders[:level]), album)
  return found


def _genres(
  tags: Mapping[str, Tags], namer: _Namer, separators: str
) -> dict[str, list[str]]:
  pattern = re.compile(f"[;\0{re.escape(separators)}]")
  found = {}
  for path, one in tags.items():
    names = artist_names.split_values(one.genres, pattern)
    names = [_LEADING_AND.sub("", name) for name in names]
    found[path] = list(dict.fromkeys(namer.keys(namer.real(names))))
  return found


def credit(tags: Mapping[str, Tags], rules: Rules) -> Credits:
  """Says whose song each file of a library is.

  Args:
    tags: path in the library -> tags of all its files.
    rules: how names are taken from them.
  """
  artists = _Namer("artists", rules.no_artists)
  albums = _Namer("albums", placeholders.BUILT_IN)
  genres = _Namer("genres", rules.no_genres)
  splitter = _Splitter(tags.values(), rules.split_artists)
  found, by_album_artist = _tagged(tags, splitter, artists)
  from_folders = _by_folders(tags, found, artists, rules.artist_folder)
  namers = {"artists": artists, "albums": albums, "genres": genres}
  return Credits(
    artists=found,
    albums=_albums(tags, albums, artists.none, rules.album_folder),
    genres=_genres(tags, genres, rules.genre_separators),
    names={kind: one.spellings for kind, one in namers.items()},
    from_folders=from_folders,
    by_album_artist=by_album_artist,
    split=splitter.made(),
    no_names={kind: one.dropped for kind, one in namers.items()},
  )


def report(found: Credits) -> dict[str, Any]:
  """Returns what library.json says of names, for a person to look through."""
  shown = found.names["artists"].shown
  counts = collections.Counter(
    key for keys in found.artists.values() for key in keys
  )
  folders = [
    {"artist": shown(key), "songs": len(paths), "example": paths[0]}
    for key, paths in found.from_folders.items()
  ]
  most = sorted(counts, key=lambda key: (-counts[key], shown(key), key))
  return {
    "most_songs": [
      {"artist": shown(key), "songs": counts[key]} for key in most[:MOST_SONGS]
    ],
    "by_album_artist": len(found.by_album_artist),
    "from_folders": sorted(
      folders, key=lambda one: (-one["songs"], one["example"])
    ),
    "split": found.split,
    "merged": {kind: one.merged() for kind, one in found.names.items()},
    "no_names": {
      kind: dict(one.most_common()) for kind, one in found.no_names.items()
    },
  }
