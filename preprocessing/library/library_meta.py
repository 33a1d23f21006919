"""Metadata of an own library, in Melon's files and fields."""

import collections
from collections.abc import Iterable, Mapping, Set
import itertools
import pathlib
import re
from typing import Any

import tqdm

from pcl_jax.common import storage
from pcl_jax.library import audio_tags
from pcl_jax.library import music_files
from pcl_jax.library import playlist_files
from pcl_jax.library import song_finder
from preprocessing.melon import melon_meta


def _genres(tags: Iterable[audio_tags.Tags]) -> dict[str, str]:
  """Returns genre in lower case -> its name where it comes first, sorted."""
  names: dict[str, str] = {}
  for name in (name for one in tags for name in one.genres):
    names.setdefault(name.casefold(), name)
  return dict(sorted(names.items()))


def _numbers() -> collections.defaultdict:
  """Returns a mapping that numbers its keys in the order they are looked up."""
  return collections.defaultdict(itertools.count().__next__)


def _song_records(
  tags: Mapping[str, audio_tags.Tags],
  ids: Mapping[str, int],
  genre_numbers: Mapping[str, int],
) -> tuple[list[dict[str, Any]], int]:
  """Returns the records of song_meta.json, and the number of artists."""
  artist_numbers, album_numbers, records = _numbers(), _numbers(), []
  for path, found in tags.items():
    folder = pathlib.PurePosixPath(path).parent.name
    artists = found.artists or ((folder,) if folder else ())
    album = found.albums[0] if found.albums else ""
    # Many an artist has an album of "Greatest Hits".
    by = (found.album_artists or artists or ("",))[0]
    album_key = by.casefold(), album.casefold()
    album_id = album_numbers[album_key] if album else None
    genres = [genre_numbers[name.casefold()] for name in found.genres]
    date = re.sub(r"\D", "", found.dates[0]) if found.dates else ""
    stem = pathlib.PurePosixPath(path).stem
    title = found.titles[0] if found.titles else stem
    records.append(
      {
        "id": ids[path],
        "song_name": title,
        "album_id": album_id,
        "album_name": album,
        "artist_id_basket": [
          artist_numbers[name.casefold()] for name in artists
        ],
        "artist_name_basket": list(artists),
        "song_gn_gnr_basket": [f"GN{number:02d}00" for number in genres],
        "song_gn_dtl_gnr_basket": [f"GN{number:02d}01" for number in genres],
        "issue_date": date[:8].ljust(8, "0"),
        "path": path,
      }
    )
  return records, len(artist_numbers)


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
      report["not_found"].append(entry.shown)
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
  stamps = music_files.stamps(audio_dir, playlist_files.SUFFIXES)
  finder = song_finder.SongFinder(audio_dir, ids)
  records, reports, others = [], [], []
  for name in stamps:
    path = audio_dir / name
    report: dict[str, Any] = {"file": name, "encoding": "", "playlists": 0}
    report |= {"entries": 0, "songs": 0, "repeated": 0}
    report |= {"left_out": [], "not_found": []}
    try:
      found, report["encoding"] = playlist_files.read_playlists(path)
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
        records.append(
          {
            "id": len(records),
            "plylst_title": one.title,
            "tags": [],
            "songs": songs,
            "like_cnt": 0,
            "updt_date": "",
            "path": name,
          }
        )
  return records, {
    "playlist_stamps": {name: list(stamp) for name, stamp in stamps.items()},
    "playlist_files": reports,
    "not_playlists": others,
  }


def write_meta(
  audio_dir: pathlib.Path,
  meta_dir: pathlib.Path,
  ids: Mapping[str, int],
  usable: Set[int],
  duplicates: Mapping[str, str] | None = None,
) -> dict[str, Any]:
  """Writes song_meta.json, train.json and genre_gn_all.json to meta_dir.

  Args:
    audio_dir: the library's folder.
    meta_dir: the folder to write to; it is made if need be.
    ids: path -> id of all songs, including unreadable ones.
    usable: ids of the songs in the store; only these are written.
    duplicates: path of a song that is left out -> path of the song with the
      same audio; a playlist may name either.

  Returns:
    Counts of artists, genres and playlists, and what was wrong with the files,
    as library.json has them.
  """
  paths = sorted((p for p, i in ids.items() if i in usable), key=ids.get)
  tags = {
    path: audio_tags.read_tags(audio_dir / path)
    for path in tqdm.tqdm(paths, "tags")
  }
  genres = _genres(tags.values())
  numbers = {name: number for number, name in enumerate(genres, start=1)}
  songs, num_artists = _song_records(tags, ids, numbers)
  codes = {
    f"GN{numbers[key]:02d}{level}": name
    for key, name in genres.items()
    for level in ("00", "01")
  }
  same = {path: ids[song] for path, song in (duplicates or {}).items()}
  playlists, reports = _read_playlists(audio_dir, {**ids, **same}, usable)
  meta_dir.mkdir(parents=True, exist_ok=True)
  storage.write_json(meta_dir / melon_meta.SONG_FILE, songs)
  storage.write_json(meta_dir / melon_meta.PLAYLIST_FILES[0], playlists)
  storage.write_json(meta_dir / melon_meta.GENRE_FILE, codes)
  return {
    "artists": num_artists,
    "songs_without_artist": sum(not one["artist_id_basket"] for one in songs),
    "genres": len(numbers),
    "songs_without_genre": sum(not one.genres for one in tags.values()),
    "tags_unreadable": {
      path: one.unreadable for path, one in tags.items() if one.unreadable
    },
    "playlists": len(playlists),
    **reports,
  }
