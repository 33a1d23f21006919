"""Metadata of an own library, in Melon's files and fields."""

from collections.abc import Iterable, Mapping, Set
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


def _place_entries(
  found: playlist_files.Playlist,
  finder: song_finder.SongFinder,
  folder: pathlib.Path,
  usable: Set[int],
  report: dict[str, Any],
) -> list[int]:
  """Returns the songs of a playlist; adds to its file's report."""
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
  """Reads the playlists of a library.

  Args:
    audio_dir: the library's folder.
    ids: path -> id of all songs, unreadable ones too.
    usable: ids of the songs that are in the store.

  Returns:
    The records of train.json; and what library.json says: the stamp of each
    file, a report on each playlist file, and which files are none.
  """
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
  """Writes song_meta.json, train.json and genre_gn_all.json.

  Args:
    audio_dir: the library's folder.
    meta_dir: where they are written; made if need be.
    ids: path -> id of all songs, unreadable ones too.
    usable: ids of the songs that are in the store: those that are written.
    duplicates: path of a song that is left out -> path of the song with the
      same audio; a playlist may name either.

  Returns:
    Counts of artists, genres and playlists, the songs without them, the files
    with unreadable tags, and the entries without a song of each playlist file.
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
