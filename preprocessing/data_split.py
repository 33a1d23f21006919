"""Makes a data set's catalogue: split, artists, genres, playlists, pairs.

Splits the songs of the song store into train, validation and test (80, 10 and
10 %), stratified over genre and sub-genre codes, draws the fixed validation
pairs of the three pair methods, and writes catalogue.npz (and its settings and
counts, data_split.json) into the data set's folder. MELON_DIR holds
kakao_meta/; for an own library it is the data set's folder itself.

    python -m preprocessing.data_split --melon_dir=~/melon --data=data/melon
    python -m preprocessing.data_split --melon_dir=data/own --data=data/own
"""

import argparse
from collections.abc import Sequence
import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from pcl_jax import errors
from pcl_jax.data import catalogue
from pcl_jax.data import pairs
from pcl_jax.data import song_store
from preprocessing import melon_meta
from preprocessing import stratify

SETTINGS_FILE = "data_split.json"
_SHOWN_IDS = 5


def _ragged(values: np.ndarray, owners: np.ndarray, size: int):
  """Returns `size` lists of the values, which are in the order of owners."""
  counts = np.bincount(owners, minlength=size)
  offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
  return catalogue.Ragged(values.astype(np.int32), offsets)


def _take(lists: catalogue.Ragged, rows: np.ndarray) -> catalogue.Ragged:
  """Returns the lists of some rows, in the order of the rows."""
  lengths = lists.lengths[rows]
  offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
  shift = np.repeat(lists.offsets[rows] - offsets[:-1], lengths)
  return catalogue.Ragged(lists.values[np.arange(offsets[-1]) + shift], offsets)


def _rows_in(
  songs: melon_meta.Songs, song_ids: np.ndarray, meta_dir: pathlib.Path
) -> np.ndarray:
  """Returns where the store's songs stand in the metadata, [songs]."""
  rows = np.searchsorted(songs.ids, song_ids)
  known = rows < len(songs.ids)
  known[known] = songs.ids[rows[known]] == song_ids[known]
  if not known.all():
    absent = song_ids[~known]
    shown = ", ".join(map(str, absent[:_SHOWN_IDS].tolist()))
    raise errors.InputError(
      f"{meta_dir / melon_meta.SONG_FILE} lacks {len(absent)} of the "
      f"{len(song_ids)} songs of the song store (first: {shown}). The two "
      "belong to different data sets: give the metadata that the store was "
      "made from, or make the store again."
    )
  return rows


def _restrict_playlists(
  playlists: catalogue.Ragged, rows: np.ndarray, num_known: int
) -> tuple[catalogue.Ragged, dict[str, int]]:
  """Keeps the songs of the store, each once in a list.

  Args:
    playlists: positions in the metadata.
    rows: position in the metadata of each song of the store.
    num_known: songs of the metadata.

  Returns:
    Rows of the store for each playlist, and counts of what was left out.
  """
  to_row = np.full(num_known, -1, np.int64)
  to_row[rows] = np.arange(len(rows))
  values, owners = to_row[playlists.values], playlists.owners()
  present = values >= 0
  values, owners = values[present], owners[present]
  keys = owners.astype(np.int64) * max(len(rows), 1) + values
  first = np.sort(np.unique(keys, return_index=True)[1])
  counts = {
    "without_audio": int((~present).sum()),
    "repeated": len(values) - len(first),
  }
  return _ragged(values[first], owners[first], len(playlists)), counts


def _build(
  songs: melon_meta.Songs,
  playlists: melon_meta.Playlists,
  song_ids: np.ndarray,
  rows: np.ndarray,
  **shares: Any,
) -> tuple[catalogue.Catalogue, dict[str, int]]:
  """Builds the catalogue of the store's songs, but for validation pairs."""
  artists, genres = _take(songs.artists, rows), _take(songs.genres, rows)
  _, artist = np.unique(artists.values, return_inverse=True)
  codes, code = np.unique(genres.values, return_inverse=True)
  genres = catalogue.Ragged(code.astype(np.int32) + 1, genres.offsets)
  lists, left_out = _restrict_playlists(playlists.songs, rows, len(songs.ids))
  split = stratify.split_songs(genres, len(codes), **shares)
  made = catalogue.Catalogue(
    song_ids=song_ids,
    split=split,
    artists=catalogue.Ragged(artist.astype(np.int32), artists.offsets),
    genres=genres,
    albums=songs.albums[rows],
    playlists=lists,
    playlist_files=playlists.files,
    genre_codes=songs.codes[codes],
    validation_pairs={},
  )
  return made, {"unknown": playlists.num_unknown, **left_out}


def _draw_validation_pairs(made: catalogue.Catalogue, seed: int) -> None:
  """Draws the fixed pairs of all methods into `validation_pairs`."""
  available = made.split == catalogue.VALIDATION
  for number, method in enumerate(catalogue.PAIR_METHODS):
    made.validation_pairs[method] = pairs.draw_pairs(
      made.pair_lists(method),
      available,
      once=pairs.ONCE_AN_EPOCH[method],
      rng=np.random.default_rng([seed, number]),
    )


def _counts(
  made: catalogue.Catalogue, left_out: dict[str, int]
) -> dict[str, Any]:
  files = np.bincount(
    made.playlist_files, minlength=len(melon_meta.PLAYLIST_FILES)
  )
  split = np.bincount(made.split, minlength=3)
  return {
    "songs": len(made),
    **dict(zip(catalogue.SPLIT_NAMES, split.tolist(), strict=True)),
    "artists": int(made.artists.values.max(initial=-1)) + 1,
    "genre_codes": len(made.genre_codes),
    "songs_without_genre": int((made.genres.lengths == 0).sum()),
    "playlists": dict(
      zip(melon_meta.PLAYLIST_FILES, files.tolist(), strict=True)
    ),
    "playlists_without_songs": int((made.playlists.lengths == 0).sum()),
    "playlist_songs": len(made.playlists.values),
    "playlist_songs_left_out": left_out,
    "validation_pairs": {
      method: len(drawn) for method, drawn in made.validation_pairs.items()
    },
  }


def _print_counts(counts: dict[str, Any]) -> None:
  left_out = counts["playlist_songs_left_out"]
  print(", ".join(f"{name} {counts[name]}" for name in catalogue.SPLIT_NAMES))
  if not counts["genre_codes"]:
    print("no song has a genre: the split is a plain shuffle, not stratified")
  print(
    f"{counts['artists']} artists, {counts['genre_codes']} genre codes, "
    f"{counts['songs_without_genre']} songs without genre"
  )
  files = ", ".join(f"{n} of {name}" for name, n in counts["playlists"].items())
  print(
    f"playlists: {files}; {counts['playlists_without_songs']} of them are left "
    f"without songs; {counts['playlist_songs']} songs in them"
  )
  print(
    f"left out of playlists: {left_out['unknown']} songs that "
    f"{melon_meta.SONG_FILE} lacks, {left_out['without_audio']} songs that "
    f"the song store lacks, {left_out['repeated']} repetitions"
  )
  print(
    "validation pairs: "
    + ", ".join(f"{m} {n}" for m, n in counts["validation_pairs"].items())
  )


def _find_finished(
  data_dir: pathlib.Path, settings: dict[str, Any]
) -> catalogue.Catalogue | None:
  """Returns the catalogue if it was made with these settings; None if absent.

  Raises:
    InputError: it was made with other settings.
  """
  if not (data_dir / catalogue.FILE_NAME).exists():
    return None
  path = data_dir / SETTINGS_FILE
  try:
    found = json.loads(path.read_text(encoding="utf-8"))["settings"]
  except (OSError, ValueError, KeyError, TypeError):
    found = {}
  differing = [
    f"{key}: {found.get(key)!r} there, {settings.get(key)!r} now"
    for key in sorted(settings.keys() | found.keys())
    if found.get(key) != settings.get(key)
  ]
  if differing:
    raise errors.InputError(
      f"{data_dir / catalogue.FILE_NAME} exists and was made with other "
      f"settings ({'; '.join(differing)}). A new split makes results "
      "incomparable with those of the old one: use --force to replace it, or "
      "another data set's folder."
    )
  return catalogue.load(data_dir)


def make_catalogue(
  meta_dir: pathlib.Path,
  data_dir: pathlib.Path,
  *,
  test_share: float = 0.1,
  validation_share: float = 0.1,
  seed: int = 0,
  unknown_songs: str = "error",
  force: bool = False,
) -> catalogue.Catalogue:
  """Makes data_dir/catalogue.npz from the metadata and the song store.

  Args:
    meta_dir: the folder kakao_meta.
    data_dir: the data set's folder, with songs.lmdb.
    test_share: of all songs.
    validation_share: of all songs.
    seed: of the split and of the validation pairs.
    unknown_songs: what a playlist's song that song_meta.json lacks is: an
      `error`, or left out and counted (`drop`).
    force: replaces a catalogue made with other settings.

  Returns:
    The catalogue; the one on file if it was made with the same settings from
    the same songs and metadata.

  Raises:
    InputError: store or metadata are missing, bad or of different data sets;
      a catalogue with other settings is there.
  """
  meta_dir, data_dir = pathlib.Path(meta_dir), pathlib.Path(data_dir)
  song_ids = song_store.SongStore(data_dir / "songs.lmdb").song_ids
  shares = {
    "test_share": test_share,
    "validation_share": validation_share,
    "seed": seed,
  }
  settings = {
    **shares,
    "unknown_songs": unknown_songs,
    "song_ids_sha256": hashlib.sha256(song_ids.tobytes()).hexdigest(),
    **{
      f"{name}_sha256": digest
      for name, digest in melon_meta.files_sha256(meta_dir).items()
    },
  }
  if not force:
    finished = _find_finished(data_dir, settings)
    if finished is not None:
      print(f"{data_dir / catalogue.FILE_NAME} exists already: nothing to do")
      return finished
  songs = melon_meta.read_songs(meta_dir)
  playlists = melon_meta.read_playlists(
    meta_dir, songs, unknown_songs=unknown_songs
  )
  rows = _rows_in(songs, song_ids, meta_dir)
  made, left_out = _build(songs, playlists, song_ids, rows, **shares)
  _draw_validation_pairs(made, seed)
  counts = _counts(made, left_out)
  # Killed between these lines, the catalogue is absent and is made again.
  (data_dir / catalogue.FILE_NAME).unlink(missing_ok=True)
  melon_meta.write_json(
    data_dir / SETTINGS_FILE, {"settings": settings, "counts": counts}
  )
  made.save(data_dir)
  _print_counts(counts)
  return made


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and makes the catalogue."""
  parser = argparse.ArgumentParser(
    prog="python -m preprocessing.data_split",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--melon_dir", required=True, help="folder that holds kakao_meta/")
  add("--data", required=True, help="the data set's folder")
  add("--test_share", type=float, default=0.1, help="default %(default)s")
  add("--validation_share", type=float, default=0.1, help="default %(default)s")
  add("--seed", type=int, default=0, help="default %(default)s")
  add(
    "--unknown_songs",
    choices=melon_meta.UNKNOWN_SONGS,
    default="error",
    help="songs of playlists that song_meta.json lacks (default %(default)s)",
  )
  add("--force", action="store_true", help="replace another split")
  args = parser.parse_args(argv)
  data_dir = pathlib.Path(args.data).expanduser()
  make_catalogue(
    pathlib.Path(args.melon_dir).expanduser() / "kakao_meta",
    data_dir,
    test_share=args.test_share,
    validation_share=args.validation_share,
    seed=args.seed,
    unknown_songs=args.unknown_songs,
    force=args.force,
  )
  print(
    f"catalogue: {data_dir / catalogue.FILE_NAME}; next: python -m "
    f"preprocessing.playlist_vectors --data={args.data} and python -m "
    f"preprocessing.genre_vectors --data={args.data}"
  )


if __name__ == "__main__":
  errors.run_command(main)
