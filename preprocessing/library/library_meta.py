"""Metadata of an own library, in Melon's files and fields."""

import collections
from collections.abc import Iterable, Mapping, Set
import itertools
import os
import pathlib
import re
from typing import Any

import tqdm

from pcl_jax.common import storage
from pcl_jax.library import audio_tags
from pcl_jax.library import music_files
from pcl_jax.library import name_keys
from pcl_jax.library import playlist_files
from pcl_jax.library import song_finder
from preprocessing.library import credits
from preprocessing.melon import melon_meta


def _numbers() -> collections.defaultdict:
  """Returns a mapping that numbers its keys in the order they are looked up."""
  return collections.defaultdict(itertools.count().__next__)


def read_tags(
  audio_dir: pathlib.Path, paths: Iterable[str]
) -> dict[str, audio_tags.Tags]:
  """Reads the tags of files of a library, once for all links to one file."""
  paths, found, known = list(paths), {}, {}
  for path in tqdm.tqdm(paths, "tags", disable=not paths):
    try:
      status = os.stat(audio_dir / path)
      file = status.st_dev, status.st_ino or path
    except OSError:
      file = path
    if file not in known:
      known[file] = audio_tags.read_tags(audio_dir / path)
    found[path] = known[file]
  return found


def _song_records(
  tags: Mapping[str, audio_tags.Tags],
  ids: Mapping[str, int],
  found: credits.Credits,
  genre_numbers: Mapping[str, int],
) -> list[dict[str, Any]]:
  """Returns the records of song_meta.json."""
  artist_numbers, album_numbers, records = _numbers(), _numbers(), []
  shown = {kind: one.shown for kind, one in found.names.items()}
  for path, one in tags.items():
    artists, album = found.artists[path], found.albums[path]
    genres = [genre_numbers[key] for key in found.genres[path]]
    date = re.sub(r"\D", "", one.dates[0]) if one.dates else ""
    title = name_keys.clean(one.titles[0]) if one.titles else ""
    records.append(
      {
        "id": ids[path],
        "song_name": title or pathlib.PurePosixPath(path).stem,
        "album_id": album_numbers[album] if album else None,
        "album_name": shown["albums"](album[1]) if album else "",
        "artist_id_basket": [artist_numbers[key] for key in artists],
        "artist_name_basket": [shown["artists"](key) for key in artists],
        "song_gn_gnr_basket": [f"GN{number:02d}00" for number in genres],
        "song_gn_dtl_gnr_basket": [f"GN{number:02d}01" for number in genres],
        "issue_date": date[:8].ljust(8, "0"),
        "path": path,
      }
    )
  return records


def _playlist(
  number: int, title: str, songs: list[int], path: str
) -> dict[str, Any]:
  """Returns a record of train.json."""
  return {
    "id": number,
    "plylst_title": title,
    "tags": [],
    "songs": songs,
    "like_cnt": 0,
    "updt_date": "",
    "path": path,
  }


def _place_entries(
  found: playlist_files.Playlist,
  finder: song_finder.SongFinder,
  folder: pathlib.Path,
  usable: Set[int],
  report: dict[str, Any],
) -> list[int]:
  """Returns the songs of a playlist; adds to the report on its file."""
  songs: dict[int, None] = {}
  for entry in found.entries:
    met = (finder.find(folder, place) for place in entry.places)
    song = next((one for one in met if one is not None), None)
    if song is None:
      met = map(finder.find_by_ending, entry.places)
      song = next((one for one in met if one is not None), None)
      report["by_ending"] += [] if song is None else [entry.shown]
    if song is None:
      streams = any(map(song_finder.is_stream, entry.places))
      report["streams" if streams else "not_found"].append(entry.shown)
    elif song not in usable:
      report["left_out"].append(entry.shown)
    else:
      report["repeated"] += song in songs
      songs[song] = None
  report["entries"] += len(found.entries)
  report["songs"] += len(songs)
  return list(songs)


def _read_playlists(
  audio_dir: pathlib.Path, ids: Mapping[str, int], usable: Set[int]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
  """Returns the records of train.json, and the report on the files."""
  stamps = music_files.playlist_stamps(audio_dir)
  finder = song_finder.SongFinder(audio_dir, ids)
  records, reports, others = [], [], []
  for name in stamps:
    path = audio_dir / name
    report: dict[str, Any] = {"file": name, "encoding": "", "playlists": 0}
    report |= {"entries": 0, "songs": 0, "repeated": 0}
    report |= {"left_out": [], "not_found": [], "streams": [], "by_ending": []}
    try:
      found, report["encoding"] = playlist_files.read_playlists(
        path, [audio_dir]
      )
    except playlist_files.NotAPlaylist as error:
      others.append({"file": name, "reason": str(error)})
      continue
    except playlist_files.UnreadablePlaylist as error:
      found, report["unreadable"] = [], str(error)
    reports.append(report)
    for one in found:
      songs = _place_entries(one, finder, path.parent, usable, report)
      if songs:
        report["playlists"] += 1
        records.append(_playlist(len(records), one.title, songs, name))
  return records, {
    "playlist_stamps": {name: list(stamp) for name, stamp in stamps.items()},
    "playlist_files": reports,
    "not_playlists": others,
  }


def _albums_as_playlists(
  songs: Iterable[Mapping[str, Any]], first_id: int
) -> list[dict[str, Any]]:
  """Returns the records of albums of two songs or more as playlists."""
  albums: dict[int, list[Mapping[str, Any]]] = {}
  for song in songs:
    if song["album_id"] is not None:
      albums.setdefault(song["album_id"], []).append(song)
  lists = [some for some in albums.values() if len(some) > 1]
  return [
    _playlist(number, some[0]["album_name"], [one["id"] for one in some], "")
    for number, some in enumerate(lists, start=first_id)
  ]


def write_meta(
  audio_dir: pathlib.Path,
  meta_dir: pathlib.Path,
  ids: Mapping[str, int],
  usable: Set[int],
  duplicates: Mapping[str, str] | None = None,
  moved: Mapping[str, int] | None = None,
  tags: Mapping[str, audio_tags.Tags] | None = None,
  rules: credits.Rules | None = None,
  albums_as_playlists: bool = False,
) -> dict[str, Any]:
  """Writes song_meta.json, train.json and genre_gn_all.json to meta_dir.

  Args:
    audio_dir: the library's folder.
    meta_dir: the folder to write to; it is made if need be.
    ids: path -> id of all songs, including unreadable ones.
    usable: ids of the songs in the store; only these are written.
    duplicates: path of a song that is left out -> path of the song with the
      same audio; a playlist may name either.
    moved: path where a song was before -> its id; a playlist may name it.
    tags: path -> tags of files that were read already.
    rules: how names are taken from tags and folders.
    albums_as_playlists: makes a playlist of each album of two songs or more.

  Returns:
    Counts of artists, genres and playlists, and what was wrong with the files,
    as library.json has them.
  """
  paths = sorted((p for p, i in ids.items() if i in usable), key=ids.get)
  known = {path: tags[path] for path in paths if path in (tags or {})}
  known |= read_tags(audio_dir, [path for path in paths if path not in known])
  found = credits.credit({p: known[p] for p in paths}, rules or credits.Rules())
  genres = sorted({key for keys in found.genres.values() for key in keys})
  numbers = {key: number for number, key in enumerate(genres, start=1)}
  songs = _song_records({p: known[p] for p in paths}, ids, found, numbers)
  codes = {
    f"GN{numbers[key]:02d}{level}": found.names["genres"].shown(key)
    for key in genres
    for level in ("00", "01")
  }
  same = {path: ids[song] for path, song in (duplicates or {}).items()}
  known_paths = {**(moved or {}), **ids, **same}
  playlists, reports = _read_playlists(audio_dir, known_paths, usable)
  albums = _albums_as_playlists(songs, len(playlists))
  albums = albums if albums_as_playlists else []
  meta_dir.mkdir(parents=True, exist_ok=True)
  storage.write_json(meta_dir / melon_meta.SONG_FILE, songs)
  storage.write_json(
    meta_dir / melon_meta.PLAYLIST_FILES[0], playlists + albums
  )
  storage.write_json(meta_dir / melon_meta.GENRE_FILE, codes)
  return {
    "artists": len({key for keys in found.artists.values() for key in keys}),
    "songs_without_artist": sum(not keys for keys in found.artists.values()),
    "genres": len(numbers),
    "songs_without_genre": sum(not keys for keys in found.genres.values()),
    "albums": len({key for key in found.albums.values() if key}),
    "names": credits.report(found),
    "tags_unreadable": {
      path: known[path].unreadable for path in paths if known[path].unreadable
    },
    "playlists": len(playlists) + len(albums),
    "albums_as_playlists": len(albums),
    **reports,
  }
