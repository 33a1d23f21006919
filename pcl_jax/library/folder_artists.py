"""The artist that the folders of a file without tags imply.

Of the path `Artist/Album/Disc 1/song`, folders of discs and those whose names
say nothing (`music`, `MP3`, `usr`; the list is known_names.toml) are passed
over. `Greatest Hits`, `Live`, `Singles`, years, numbers and versions are albums
and never an artist, nor is a genre above all other folders. The artist is the
last folder above the album, or the only one that there is. Below a folder like
`Various Artists` there is none. A folder of more than 20 such folders is no
artist's but a collection; those in it are artists.
"""

from collections.abc import Callable, Container, Iterable
import re

from mutagen import id3

from pcl_jax.library import name_keys
from pcl_jax.library import placeholders

_MOST_ALBUMS = 20
LAYOUT, PARENT, NONE = "layout", "parent", "none"
_FOLDERS = placeholders.Placeholders("folders")
_SECTIONS = placeholders.Placeholders("sections")
_GENRES = placeholders.Placeholders(
  "genres_of_folders", [*id3.TCON.GENRES, placeholders.BUILT_IN]
)
_DISC = re.compile(
  r"(?:bonus )?(?:cd|dis[ck]|disque|disco|dvd|lp|side|seite|face|lato|vinyl|"
  r"vol|volume|part|teil|диск|диcк|ディスク)[ ._#-]*"
  r"(?:\d+|[a-h]|[ivx]+|one|two|three|four|five)(?:[ ._:,()\[-].*)?"
  r"|(?:bonus|extra) (?:cd|dis[ck]|dvd)|\d+[ .]*(?:cd|dis[ck])"
)
_ALBUM = re.compile(
  r"(?:the )?(?:very )?(?:greatest hits|best of)\b.*|v?\d+(?:[._]\d+)*"
  r"|[(\[]?(?:19|20)\d\d[)\]]?[\s._-]+.*"  # 1975 - A Night at the Opera
)
_DASH = re.compile(r"\s+-\s+")


def level_of(rule: str) -> int | None:
  """Returns the level that a rule names, counted from 1, or None."""
  return int(rule) if re.fullmatch(r"[1-9][0-9]?", rule) else None


def _says_nothing(name: str) -> bool:
  name = name_keys.key(name).replace("_", " ")
  return name in _FOLDERS or bool(_DISC.fullmatch(name))


def _is_album(name: str) -> bool:
  """Returns whether a folder is an album, or a part of one, by its name."""
  return name in _SECTIONS or bool(_ALBUM.fullmatch(name_keys.key(name)))


def without_discs(folders: tuple[str, ...]) -> tuple[str, ...]:
  """Returns the folders of an album, without that of one of its discs."""
  while folders and _DISC.fullmatch(name_keys.key(folders[-1])):
    folders = folders[:-1]
  return folders


def _speaking(folders: tuple[str, ...]) -> list[int]:
  """Returns which folders say something; a genre above all others does not."""
  left = [i for i, one in enumerate(folders) if not _says_nothing(one)]
  return left[1:] if left and folders[left[0]] in _GENRES else left


def _path(folders: tuple[str, ...]) -> str:
  return "/".join(map(name_keys.key, folders))


def _place(
  folders: tuple[str, ...],
  known: Callable[[str], bool],
  collections: Container[str],
) -> int:
  """Returns which folder is the artist's; -1 for none."""
  left = _speaking(folders)
  artists = [i for i in left if not _is_album(folders[i])]
  above = [i for i in artists if i != left[-1]]
  if above and _path(folders[: above[-1] + 1]) in collections:
    above = []
  place = (above or artists or [-1])[-1]
  # What tags call an artist elsewhere is one here.
  named = [i for i in (place, *reversed(left)) if i >= 0 and known(folders[i])]
  return named[0] if named else place


def find_collections(paths: Iterable[tuple[str, ...]]) -> set[str]:
  """Returns the folders of so many others that these are no artist's albums.

  Args:
    paths: the folders from the library's to each file without tags.

  Returns:
    Folders, for `find`.
  """
  inside: dict[str, set[str]] = {}
  for folders in set(paths):
    place = _place(folders, lambda name: False, ())
    if 0 <= place < len(folders) - 1:
      below = inside.setdefault(_path(folders[: place + 1]), set())
      below.add(_path(folders[: place + 2]))
  return {path for path, some in inside.items() if len(some) > _MOST_ALBUMS}


def find(
  folders: tuple[str, ...],
  rule: str = LAYOUT,
  known: Callable[[str], bool] = lambda name: False,
  no_artists: Container[str] = placeholders.Placeholders("artists"),
  collections: Container[str] = (),
) -> tuple[str, str] | None:
  """Returns the artist that folders imply: its key, and its name.

  The key is the whole path of the artist's folder, so that folders of one name
  in two places are two artists.

  Args:
    folders: the folders from the library's to the file, that one left out.
    rule: `layout` as above, `parent` the folder that the file lies in, `none`
      never, or the number of the level, 1 for the outermost folder.
    known: whether a name is an artist of the library by tags.
    no_artists: names that are no artist.
    collections: what `find_collections` returns.
  """
  level = level_of(rule)
  if rule == NONE or not folders or (level or 0) > len(folders):
    return None
  left = _speaking(folders)
  if any(
    folders[i] in no_artists and (i == left[0] or not _is_album(folders[i]))
    for i in left
  ):
    return None
  if rule == LAYOUT:
    place = _place(folders, known, collections)
  else:
    place = len(folders) - 1 if level is None else level - 1
  if place < 0:
    return None
  name, above = folders[place], folders[:place]
  first = _DASH.split(name_keys.clean(name))[0]  # Of "Artist - Album".
  if rule == LAYOUT and not known(name) and not _is_album(first):
    name = first
  if name in no_artists:
    return None
  return _path((*above, name)), name_keys.clean(name)
