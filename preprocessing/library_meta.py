"""Metadata of an own library, in Melon's files and fields."""

from collections.abc import Iterable, Mapping, Set
import json
import os
import pathlib
import re
from typing import Any

import tqdm

from preprocessing import audio_tags
from preprocessing import m3u
from preprocessing import melon_meta


def find_files(folder: pathlib.Path, suffixes: Iterable[str]) -> list[str]:
  """Lists the files with some suffixes anywhere in a folder.

  Args:
    folder: where to look; names that begin with a dot are passed over, links
      to folders are followed, and each folder is visited once.
    suffixes: as '.mp3', in any case.

  Returns:
    Paths relative to the folder, with '/', sorted.
  """
  wanted = {suffix.lower() for suffix in suffixes}
  seen, found = set(), []
  for root, folders, files in os.walk(folder, followlinks=True):
    real = os.path.realpath(root)
    if real in seen:
      folders.clear()
      continue
    seen.add(real)
    folders[:] = sorted(name for name in folders if name[0] != ".")
    relative = pathlib.Path(root).relative_to(folder)
    found += [
      (relative / name).as_posix()
      for name in files
      if name[0] != "." and os.path.splitext(name)[1].lower() in wanted
    ]
  return sorted(found)


def read_json(path: pathlib.Path) -> Any:
  """Reads json that `write_json` wrote."""
  return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes json under a temporary name and renames it."""
  text = json.dumps(value, indent=1, ensure_ascii=False)
  try:
    content = text.encode()
  except UnicodeEncodeError:  # File names are bytes and need not be UTF-8.
    content = json.dumps(value, indent=1).encode()
  partial = path.with_name(path.name + ".partial")
  partial.write_bytes(content + b"\n")
  partial.replace(path)


class _Numbers:
  """Numbers names in the order they are met, whatever their case."""

  def __init__(self):
    self._found: dict[tuple[str, ...], int] = {}

  def __call__(self, *name: str) -> int:
    key = tuple(part.casefold() for part in name)
    return self._found.setdefault(key, len(self._found))

  def __len__(self) -> int:
    return len(self._found)


def _genre_numbers(tags: Iterable[audio_tags.Tags]) -> dict[str, int]:
  """Numbers genre names from 1, alphabetically, whatever their case."""
  found = {name.casefold() for one in tags for name in one.genres}
  return {name: number for number, name in enumerate(sorted(found), start=1)}


def _genre_name(tags: Iterable[audio_tags.Tags]) -> dict[str, str]:
  """Returns each genre's name as it is written where it is met first."""
  names: dict[str, str] = {}
  for one in tags:
    for name in one.genres:
      names.setdefault(name.casefold(), name)
  return names


def _song_records(
  tags: Mapping[str, audio_tags.Tags],
  ids: Mapping[str, int],
  genre_numbers: Mapping[str, int],
) -> tuple[list[dict[str, Any]], int]:
  """Returns the records of song_meta.json, and the number of artists."""
  artist_numbers, album_numbers, records = _Numbers(), _Numbers(), []
  for path, found in tags.items():
    folder = pathlib.PurePosixPath(path).parent.name
    artists = found.artists or ((folder,) if folder else ())
    album = found.albums[0] if found.albums else ""
    # Many an artist has an album of "Greatest Hits".
    by = (found.album_artists or artists or ("",))[0]
    genres = [genre_numbers[name.casefold()] for name in found.genres]
    date = re.sub(r"\D", "", found.dates[0]) if found.dates else ""
    stem = pathlib.PurePosixPath(path).stem
    title = found.titles[0] if found.titles else stem
    records.append(
      {
        "id": ids[path],
        "song_name": title,
        "album_id": album_numbers(by, album) if album else None,
        "album_name": album,
        "artist_id_basket": [artist_numbers(name) for name in artists],
        "artist_name_basket": list(artists),
        "song_gn_gnr_basket": [f"GN{number:02d}00" for number in genres],
        "song_gn_dtl_gnr_basket": [f"GN{number:02d}01" for number in genres],
        "issue_date": date[:8].ljust(8, "0"),
        "path": path,
      }
    )
  return records, len(artist_numbers)


def _read_playlists(
  audio_dir: pathlib.Path, ids: Mapping[str, int], usable: Set[int]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
  """Reads the playlists of a library.

  Args:
    audio_dir: the library's folder.
    ids: path -> id of all songs, unreadable ones too.
    usable: ids of the songs that are in the store.

  Returns:
    The records of train.json, and a report on each playlist file.
  """
  finder = m3u.SongFinder(audio_dir, ids)
  records, reports = [], []
  for name in find_files(audio_dir, m3u.SUFFIXES):
    path = audio_dir / name
    report: dict[str, Any] = {"file": name, "encoding": "", "entries": 0}
    songs: dict[int, None] = {}
    not_found, left_out, repeated = [], [], 0
    try:
      entries, report["encoding"] = m3u.read_entries(path)
    except OSError as error:
      entries, report["unreadable"] = [], str(error)
    for entry in entries:
      song = finder.find(path.parent, entry)
      if song is None:
        not_found.append(entry)
      elif song not in usable:
        left_out.append(entry)
      else:
        repeated += song in songs
        songs[song] = None
    report |= {"entries": len(entries), "songs": len(songs)}
    report |= {"repeated": repeated, "left_out": left_out}
    reports.append(report | {"not_found": not_found})
    if songs:
      records.append(
        {
          "id": len(records),
          "plylst_title": path.stem,
          "tags": [],
          "songs": list(songs),
          "like_cnt": 0,
          "updt_date": "",
          "path": name,
        }
      )
  return records, reports


def write_meta(
  audio_dir: pathlib.Path,
  meta_dir: pathlib.Path,
  ids: Mapping[str, int],
  usable: Set[int],
) -> dict[str, Any]:
  """Writes song_meta.json, train.json and genre_gn_all.json.

  Args:
    audio_dir: the library's folder.
    meta_dir: where they are written; made if need be.
    ids: path -> id of all songs, unreadable ones too.
    usable: ids of the songs that are in the store: those that are written.

  Returns:
    Counts of artists, genres and playlists, the songs without them, the files
    whose tags are unreadable, and per playlist file its entries without song.
  """
  paths = sorted((p for p, i in ids.items() if i in usable), key=ids.get)
  tags = {
    path: audio_tags.read_tags(audio_dir / path)
    for path in tqdm.tqdm(paths, "tags")
  }
  numbers = _genre_numbers(tags.values())
  songs, num_artists = _song_records(tags, ids, numbers)
  names = _genre_name(tags.values())
  codes = {
    f"GN{number:02d}{level}": names[name]
    for name, number in numbers.items()
    for level in ("00", "01")
  }
  playlists, reports = _read_playlists(audio_dir, ids, usable)
  meta_dir.mkdir(parents=True, exist_ok=True)
  write_json(meta_dir / melon_meta.SONG_FILE, songs)
  write_json(meta_dir / melon_meta.PLAYLIST_FILES[0], playlists)
  write_json(meta_dir / melon_meta.GENRE_FILE, codes)
  return {
    "artists": num_artists,
    "songs_without_artist": sum(not one["artist_id_basket"] for one in songs),
    "genres": len(numbers),
    "songs_without_genre": sum(not one.genres for one in tags.values()),
    "tags_unreadable": {
      path: one.unreadable for path, one in tags.items() if one.unreadable
    },
    "playlists": len(playlists),
    "playlist_files": reports,
  }
