"""Reads and checks the Melon metadata: songs and playlists.

The json files of a folder kakao_meta/ are read here and nowhere else; own
libraries are written in the same layout. Only fields that are used are checked:
an error names the file, the record, the field, the value found and the rule.
"""

from collections.abc import Callable
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import catalogues
from pcl_jax.data import ragged
from pcl_jax.data import song_store

FOLDER = "kakao_meta"
SONG_FILE = "song_meta.json"
PLAYLIST_FILES = ("train.json", "val.json", "test.json")
GENRE_FILE = "genre_gn_all.json"
UNKNOWN_SONGS = ("error", "drop")
_MAX_INT32 = 2**31 - 1
_SHOWN_VALUE_CHARS = 80
_SHOWN_UNKNOWN = 5


@dataclasses.dataclass(frozen=True)
class Songs:
  """The songs of song_meta.json, in order of their id.

  Attributes:
    ids: uint32 [songs], ascending.
    artists: artist ids of each song, without repetition.
    genres: positions in `codes` of each song's sub-genre codes, then of its
      genre codes, without repetition.
    albums: album id of each song, int32 [songs], -1 where unknown.
    codes: all genre and sub-genre codes of the songs, sorted, str [codes].
  """

  ids: np.ndarray
  artists: ragged.Ragged
  genres: ragged.Ragged
  albums: np.ndarray
  codes: np.ndarray


@dataclasses.dataclass(frozen=True)
class Playlists:
  """The playlists of train.json, val.json and test.json, in this order.

  Attributes:
    songs: positions in `Songs.ids`, in the order of the file.
    files: the number of the file in PLAYLIST_FILES, int8 [playlists].
    num_unknown: how many songs were left out because song_meta.json lacks them.
  """

  songs: ragged.Ragged
  files: np.ndarray
  num_unknown: int


def _is_int(value: Any, largest: int) -> bool:
  return type(value) is int and 0 <= value <= largest


def _is_list_of(value: Any, is_right: Callable[[Any], bool]) -> bool:
  return type(value) is list and all(map(is_right, value))


_CODES_RULE = "a list of genre codes (printable texts that are not empty)"
# Field -> rule in words, and as a test.
_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
  "id": (
    f"a whole number from 0 to {song_store.MAX_SONG_ID}",
    lambda value: _is_int(value, song_store.MAX_SONG_ID),
  ),
  "songs": (
    f"a list of song ids (whole numbers from 0 to {song_store.MAX_SONG_ID})",
    lambda value: _is_list_of(
      value, lambda one: _is_int(one, song_store.MAX_SONG_ID)
    ),
  ),
  "artist_id_basket": (
    f"a list of artist ids (whole numbers from 0 to {_MAX_INT32})",
    lambda value: _is_list_of(value, lambda one: _is_int(one, _MAX_INT32)),
  ),
  "album_id": (
    f"a whole number from 0 to {_MAX_INT32}, or null",
    lambda value: value is None or _is_int(value, _MAX_INT32),
  ),
  **dict.fromkeys(
    ("song_gn_gnr_basket", "song_gn_dtl_gnr_basket"),
    (
      _CODES_RULE,
      lambda value: _is_list_of(
        value, lambda one: type(one) is str and one and one.isprintable()
      ),
    ),
  ),
}
_SONG_FIELDS = (
  "id",
  "artist_id_basket",
  "album_id",
  "song_gn_dtl_gnr_basket",
  "song_gn_gnr_basket",
)
_PLAYLIST_FIELDS = ("id", "songs")


def _absent(path: pathlib.Path) -> errors.InputError:
  return errors.InputError(
    f"{path} does not exist. Melon's metadata are {SONG_FILE} and "
    f"{PLAYLIST_FILES[0]} (and, where there are any, "
    f"{', '.join(PLAYLIST_FILES[1:])} and {GENRE_FILE}) in one folder "
    f"{FOLDER}: give the folder that holds it."
  )


def _read_records(path: pathlib.Path) -> list[Any]:
  """Reads a json file whose outermost value is a list."""
  try:
    text = path.read_text(encoding="utf-8-sig")
  except FileNotFoundError:
    raise _absent(path) from None
  except (OSError, UnicodeDecodeError) as error:
    raise errors.InputError(
      f"{path} cannot be read as UTF-8 text ({error}). Copy it again."
    ) from error
  try:
    value = json.loads(text)
  except json.JSONDecodeError as error:
    raise errors.InputError(
      f"{path} is not json: {error.msg} at line {error.lineno}, column "
      f"{error.colno}. Correct it there, or copy the file again."
    ) from error
  except (ValueError, RecursionError) as error:  # Endless numbers or nesting.
    raise errors.InputError(
      f"{path} cannot be read as json ({error}). Copy it again."
    ) from error
  if not isinstance(value, list):
    raise errors.InputError(
      f"{path} holds a json {type(value).__name__}; it must hold a list of "
      "records."
    )
  return value


def _show(value: Any) -> str:
  text = repr(value)
  if len(text) <= _SHOWN_VALUE_CHARS:
    return text
  return text[:_SHOWN_VALUE_CHARS] + "..."


def _check_record(
  record: Any, fields: tuple[str, ...], path: pathlib.Path, number: int
) -> list[Any]:
  """Returns the values of some fields; refuses missing and wrong ones."""
  if not isinstance(record, dict):
    raise errors.InputError(
      f"{path}, record {number}: {_show(record)} is not an object with the "
      f"fields {', '.join(fields)}."
    )
  values = []
  for field in fields:
    key = "_id" if field == "id" and "id" not in record else field
    rule, is_right = _RULES[field]
    if key not in record:
      raise errors.InputError(
        f"{path}, record {number}: field {field!r} is missing; it must be "
        f"{rule}. The record has the fields {', '.join(sorted(record))}."
      )
    if not is_right(record[key]):
      raise errors.InputError(
        f"{path}, record {number}: field {key!r} is {_show(record[key])}; it "
        f"must be {rule}. Correct the record."
      )
    values.append(record[key])
  return values


def _check_repeated(ids: np.ndarray, path: pathlib.Path) -> None:
  order = np.argsort(ids, kind="stable")
  same = np.flatnonzero(np.diff(ids[order].astype(np.int64)) == 0)
  if len(same):
    first, second = order[same[0]], order[same[0] + 1]
    raise errors.InputError(
      f"{path}, record {second + 1}: id {ids[first]} is in record "
      f"{first + 1} already, and {len(same)} ids are repeated in all. Every "
      "song has its own id: remove the repetition."
    )


def read_songs(meta_dir: pathlib.Path) -> Songs:
  """Reads song_meta.json of the folder kakao_meta.

  Raises:
    InputError: the file is missing, malformed or holds a bad record.
  """
  path = meta_dir / SONG_FILE
  rows = [
    _check_record(record, _SONG_FIELDS, path, number)
    for number, record in enumerate(_read_records(path), start=1)
  ]
  _check_repeated(np.array([row[0] for row in rows], np.int64), path)
  rows.sort(key=lambda row: row[0])
  codes = sorted({code for row in rows for part in row[3:] for code in part})
  position = {code: i for i, code in enumerate(codes)}
  return Songs(
    ids=np.array([row[0] for row in rows], np.uint32),
    artists=ragged.Ragged.from_lists(
      [list(dict.fromkeys(row[1])) for row in rows]
    ),
    genres=ragged.Ragged.from_lists(
      [
        [position[code] for code in dict.fromkeys(row[3] + row[4])]
        for row in rows
      ]
    ),
    albums=np.array([-1 if row[2] is None else row[2] for row in rows], "<i4"),
    codes=np.array(codes, np.str_),
  )


def _refuse_unknown(
  lists: list[list[int]],
  owners: np.ndarray,
  unknown: np.ndarray,
  names: Callable[[int], str],
) -> None:
  first = int(owners[np.argmax(unknown)])
  mask = unknown[owners == first]
  ids = [one for one, bad in zip(lists[first], mask, strict=True) if bad]
  shown = ", ".join(map(str, ids[:_SHOWN_UNKNOWN]))
  more = ", ..." if len(ids) > _SHOWN_UNKNOWN else ""
  raise errors.InputError(
    f"{names(first)} has {len(ids)} songs that {SONG_FILE} lacks ({shown}"
    f"{more}); in all playlists there are {int(unknown.sum())}, in "
    f"{len(np.unique(owners[unknown]))} playlists. Complete {SONG_FILE}, or "
    "leave these songs out with --unknown_songs=drop."
  )


def read_playlists(
  meta_dir: pathlib.Path, songs: Songs, *, unknown_songs: str = "error"
) -> Playlists:
  """Reads train.json and, where they exist, val.json and test.json.

  Args:
    meta_dir: the folder kakao_meta.
    songs: its songs.
    unknown_songs: `error` refuses songs that `songs` lacks, `drop` leaves them
      out and counts them.

  Raises:
    InputError: train.json is missing, a file is malformed or holds a bad
      record, or a playlist holds an unknown song.
  """
  if unknown_songs not in UNKNOWN_SONGS:
    raise errors.InputError(
      f"unknown_songs is {unknown_songs!r}; it is one of "
      f"{', '.join(UNKNOWN_SONGS)}."
    )
  ids, lists, counts = [], [], []
  for number, name in enumerate(PLAYLIST_FILES):
    path = meta_dir / name
    # An own library has one list of playlists only.
    records = _read_records(path) if number == 0 or path.exists() else []
    for place, record in enumerate(records, start=1):
      playlist_id, members = _check_record(
        record, _PLAYLIST_FIELDS, path, place
      )
      ids.append(playlist_id)
      lists.append(members)
    counts.append(len(records))
  files = np.repeat(np.arange(len(counts), dtype=np.int8), counts)
  wanted = np.array([one for members in lists for one in members], np.int64)
  owners = np.repeat(np.arange(len(lists)), [len(one) for one in lists])
  place = catalogues.find_rows(songs.ids, wanted)
  known = place >= 0
  if unknown_songs == "error" and not known.all():
    _refuse_unknown(
      lists,
      owners,
      ~known,
      lambda i: f"{meta_dir / PLAYLIST_FILES[files[i]]}: playlist {ids[i]}",
    )
  return Playlists(
    songs=ragged.Ragged.from_pairs(owners[known], place[known], len(lists)),
    files=files,
    num_unknown=int((~known).sum()),
  )


def files_sha256(meta_dir: pathlib.Path) -> dict[str, str]:
  """Returns file name -> sha256 of the song and playlist files that exist.

  Raises:
    InputError: song_meta.json does not exist.
  """
  if not (meta_dir / SONG_FILE).exists():
    raise _absent(meta_dir / SONG_FILE)
  found = {}
  for name in (SONG_FILE, *PLAYLIST_FILES):
    path = meta_dir / name
    if path.exists():
      found[name] = storage.sha256(path)
  return found
