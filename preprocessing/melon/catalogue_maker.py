"""Makes a data set's catalogue: split, artists, genres, playlists, pairs."""

from collections.abc import Mapping
import dataclasses
import hashlib
import pathlib
from typing import Any

import numpy as np

from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import catalogues
from pcl_jax.data import pairs
from pcl_jax.data import ragged
from pcl_jax.data import song_store
from pcl_jax.data.splits import song_groups
from pcl_jax.data.splits import stratify
from preprocessing.melon import melon_meta
from preprocessing.melon import published_split
from preprocessing.melon import split_report

SETTINGS_FILE = song_groups.SETTINGS_FILE
SHARES = ("test_share", "validation_share", "seed", "split_by")
_EARLIER = {"split_by": song_groups.SONG}  # Earlier splits do not say so.
_ABSENT = "songs_no_longer_there"  # Their parts, by id, should they return.
_SHOWN_IDS = 5
_PUBLISHED_METHOD = "Playlist"  # The only method with published pairs.


def _rows_in(
  songs: melon_meta.Songs, song_ids: np.ndarray, meta_dir: pathlib.Path
) -> np.ndarray:
  """Returns where the store's songs stand in the metadata, [songs]."""
  rows = catalogues.find_rows(songs.ids, song_ids)
  absent = song_ids[rows < 0]
  if len(absent):
    shown = ", ".join(map(str, absent[:_SHOWN_IDS].tolist()))
    raise errors.InputError(
      f"{meta_dir / melon_meta.SONG_FILE} lacks {len(absent)} of the "
      f"{len(song_ids)} songs of the song store (first: {shown}). The two "
      "belong to different data sets: give the metadata that the store was "
      "made from, or make the store again."
    )
  return rows


def _restrict_playlists(
  playlists: ragged.Ragged, rows: np.ndarray, num_known: int
) -> tuple[ragged.Ragged, dict[str, int]]:
  """Keeps the songs of the store, each once in a list; counts what it drops."""
  to_row = np.full(num_known, -1, np.int64)
  to_row[rows] = np.arange(len(rows))
  values, owners = to_row[playlists.values], playlists.list_index()
  present = values >= 0
  values, owners = values[present], owners[present]
  keys = owners.astype(np.int64) * max(len(rows), 1) + values
  first = np.sort(np.unique(keys, return_index=True)[1])
  counts = {
    "without_audio": int((~present).sum()),
    "repeated": len(values) - len(first),
  }
  lists = ragged.Ragged.from_pairs(owners[first], values[first], len(playlists))
  return lists, counts


def _build(
  songs: melon_meta.Songs,
  playlists: melon_meta.Playlists,
  song_ids: np.ndarray,
  rows: np.ndarray,
) -> tuple[catalogues.Catalogue, dict[str, int]]:
  """Builds the catalogue of the store's songs, without split and pairs."""
  artists, genres = songs.artists.select(rows), songs.genres.select(rows)
  _, artist = np.unique(artists.values, return_inverse=True)
  codes, code = np.unique(genres.values, return_inverse=True)
  genres = ragged.Ragged(code.astype(np.int32) + 1, genres.offsets)
  lists, left_out = _restrict_playlists(playlists.songs, rows, len(songs.ids))
  made = catalogues.Catalogue(
    song_ids=song_ids,
    split=np.full(len(song_ids), catalogues.NO_SPLIT, np.int8),
    artists=ragged.Ragged(artist.astype(np.int32), artists.offsets),
    genres=genres,
    albums=songs.albums[rows],
    playlists=lists,
    playlist_files=playlists.files,
    genre_codes=songs.codes[codes],
    validation_pairs={},
  )
  return made, {"unknown": playlists.num_unknown, **left_out}


def read_parts(data_dir: pathlib.Path) -> dict[int, int]:
  """Returns the part of each song that a data set has or once had, by its id.

  Returns:
    Id -> part as `Catalogue.split` has it; empty where there is no split.

  Raises:
    InputError: the catalogue or its settings cannot be read.
  """
  if not (data_dir / catalogues.FILE_NAME).exists():
    return {}
  made = catalogues.load(data_dir)
  about = storage.read_made_json(data_dir / SETTINGS_FILE)
  absent = {int(song): part for song, part in about.get(_ABSENT, {}).items()}
  present = zip(made.song_ids.tolist(), made.split.tolist(), strict=True)
  return absent | dict(present)


def read_shares(data_dir: pathlib.Path) -> dict[str, Any]:
  """Returns the `SHARES` of a data set's split: what decided it.

  Returns:
    Those that are known; none where there is no split.
  """
  path = data_dir / SETTINGS_FILE
  if not path.exists():
    return {}
  there = _EARLIER | storage.read_made_json(path)["settings"]
  return {name: there[name] for name in SHARES if name in there}


def _split(
  made: catalogues.Catalogue,
  split_from: pathlib.Path | None,
  parts: Mapping[int, int],
  copies: pathlib.Path | None,
  **shares: Any,
) -> tuple[catalogues.Catalogue, dict[str, Any]]:
  """Splits the songs, or takes a file's split; returns counts of the file."""
  if split_from is None:
    ids = made.song_ids.tolist()
    known = np.array([parts.get(i, stratify.NEW) for i in ids], np.int8)
    split_by, groups = shares["split_by"], None
    if copies is not None or split_by != song_groups.SONG:
      pairs = copies and song_groups.read_copies(copies, made.song_ids)
      groups = song_groups.of_songs(made, split_by, pairs)
    split = stratify.split_songs(
      made.genres, len(made.genre_codes), known=known, groups=groups, **shares
    )
    new = np.bincount(split[known == stratify.NEW], minlength=3)
    drawn = dict(zip(catalogues.SPLIT_NAMES, new.tolist(), strict=True))
    counts: dict[str, Any] = {"drawn": drawn}
    if groups is not None:
      counts["groups"] = int(groups.max()) + 1
      counts["groups_in_several_parts"] = len(song_groups.torn(groups, split))
    return dataclasses.replace(made, split=split), counts
  parts = published_split.read_split(split_from)
  split, counts = published_split.assign(made.song_ids, parts, split_from)
  return dataclasses.replace(made, split=split), {"split_from": counts}


def set_validation_pairs(
  made: catalogues.Catalogue, seed: int, pairs_from: pathlib.Path | None = None
) -> dict[str, Any]:
  """Draws the fixed pairs of all methods; those of playlists may be given.

  Args:
    made: the catalogue, with a split; the pairs are put into it.
    seed: the seed of the pairs.
    pairs_from: the published val_pairs.pkl.

  Returns:
    What is in that file, as counts.
  """
  available = made.split == catalogues.VALIDATION
  for number, method in enumerate(catalogues.PAIR_METHODS):
    made.validation_pairs[method] = pairs.draw_pairs(
      made.pair_lists(method),
      available,
      once=pairs.ONCE_AN_EPOCH[method],
      rng=np.random.default_rng([seed, number]),
    )
  if pairs_from is None:
    return {}
  given = published_split.read_pairs(pairs_from)
  made.validation_pairs[_PUBLISHED_METHOD], counts = (
    published_split.validation_rows(
      made.song_ids, made.split, given, pairs_from
    )
  )
  return {"val_pairs_from": counts}


def _find_finished(
  data_dir: pathlib.Path, settings: dict[str, Any]
) -> catalogues.Catalogue | None:
  """Returns the catalogue made with these settings; None if there is none."""
  if not (data_dir / catalogues.FILE_NAME).exists():
    return None
  try:
    found = storage.read_json(data_dir / SETTINGS_FILE)["settings"]
    if "test_share" in found:
      found = _EARLIER | found
    differing = storage.differences(found, settings)
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    differing = [f"{data_dir / SETTINGS_FILE} does not say which"]
  if differing:
    raise errors.InputError(
      f"{data_dir / catalogues.FILE_NAME} exists and was made with other "
      f"settings ({'; '.join(differing)}). A new split makes results "
      "incomparable with those of the old one: use --force to replace it, or "
      "another data set's folder."
    )
  return catalogues.load(data_dir)


def _set_vectors_aside(data_dir: pathlib.Path) -> None:
  """Renames vectors of the split that is replaced: they saw its songs."""
  for path in sorted(data_dir.glob("*_vectors.npy")):
    aside = path.with_name(f"{path.name}.replaced")
    path.replace(aside)
    print(
      f"{path} belongs to the split that is replaced and is now {aside.name}: "
      f"make it again with python -m preprocessing.{path.stem} "
      f"--data={data_dir}"
    )


def _digests(
  meta_dir: pathlib.Path,
  song_ids: np.ndarray,
  **files: pathlib.Path | None,
) -> dict[str, str]:
  """Returns the hashes of what a catalogue is made from."""
  found = {"song_ids_sha256": hashlib.sha256(song_ids.tobytes()).hexdigest()}
  for name, digest in melon_meta.files_sha256(meta_dir).items():
    found[f"{name}_sha256"] = digest
  for option, path in files.items():
    try:
      if path is not None:
        found[f"{option}_sha256"] = storage.sha256(path)
    except OSError as error:
      raise errors.InputError(
        f"--{option}={path} cannot be read ({error.strerror}). Give a "
        "file that exists."
      ) from error
  return found


def _count(
  made: catalogues.Catalogue, left_out: dict[str, int]
) -> dict[str, Any]:
  """Counts what a catalogue holds, in plain values fit for json."""
  files = np.bincount(
    made.playlist_files, minlength=len(melon_meta.PLAYLIST_FILES)
  )
  split = np.bincount(made.split[made.split >= 0], minlength=3)
  return {
    "songs": len(made),
    **dict(zip(catalogues.SPLIT_NAMES, split.tolist(), strict=True)),
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


def _make(
  meta_dir: pathlib.Path,
  song_ids: np.ndarray,
  settings: dict[str, Any],
  split_from: pathlib.Path | None,
  pairs_from: pathlib.Path | None,
  shares: dict[str, Any],
  parts: Mapping[int, int],
) -> tuple[catalogues.Catalogue, dict[str, Any]]:
  """Reads the metadata; returns the catalogue and its counts."""
  songs = melon_meta.read_songs(meta_dir)
  playlists = melon_meta.read_playlists(
    meta_dir, songs, unknown_songs=settings["unknown_songs"]
  )
  rows = _rows_in(songs, song_ids, meta_dir)
  made, left_out = _build(songs, playlists, song_ids, rows)
  made, imported = _split(made, split_from, parts, **shares)
  imported |= set_validation_pairs(made, settings["seed"], pairs_from)
  return made, _count(made, left_out) | imported


def _absent(parts: Mapping[int, int], song_ids: np.ndarray) -> dict[str, int]:
  """Returns the parts of songs that the store lacks."""
  absent = sorted(parts.keys() - set(song_ids.tolist()))
  return {str(song): parts[song] for song in absent}


def make_catalogue(
  meta_dir: pathlib.Path,
  data_dir: pathlib.Path,
  *,
  test_share: float = 0.1,
  validation_share: float = 0.1,
  seed: int = 0,
  split_by: str = song_groups.SONG,
  unknown_songs: str = "error",
  force: bool = False,
  split_from: pathlib.Path | None = None,
  val_pairs_from: pathlib.Path | None = None,
  parts: Mapping[int, int] | None = None,
  copies: pathlib.Path | None = None,
) -> catalogues.Catalogue:
  """Makes data_dir/catalogue.npz from the metadata and the song store.

  Args:
    meta_dir: the folder kakao_meta.
    data_dir: the data set's folder, with songs.lmdb.
    test_share: the share of all songs.
    validation_share: the share of all songs.
    seed: the seed of the split and of the validation pairs.
    split_by: whose songs all go to one part, of `song_groups.SPLIT_BY`.
    unknown_songs: what to do with a playlist's song that song_meta.json lacks:
      `error` stops, `drop` leaves it out and counts it.
    force: replaces a catalogue made with other settings.
    split_from: the published split_ids.pkl, in place of the shares.
    val_pairs_from: the published val_pairs.pkl, in place of drawn Playlist
      pairs.
    parts: what `read_parts` gave: these songs keep their part, and only others
      are divided.
    copies: groups of songs that are one recording, which go to one part as a
      whole; what python -m pcl_jax.duplicates wrote.

  Returns:
    The catalogue; the one on file if it was made with the same settings from
    the same songs and metadata.

  Raises:
    InputError: store or metadata are missing, bad or of different data sets;
      a catalogue with other settings is there.
  """
  meta_dir, data_dir = pathlib.Path(meta_dir), pathlib.Path(data_dir)
  song_ids = song_store.SongStore(data_dir / song_store.FILE_NAME).song_ids
  shares = {
    "test_share": test_share,
    "validation_share": validation_share,
    "seed": seed,
    "split_by": split_by,
  }
  files = {"split_from": split_from, "val_pairs_from": val_pairs_from}
  files["copies"] = copies
  settings = {
    **({"seed": seed} if split_from else shares),
    "unknown_songs": unknown_songs,
    **_digests(meta_dir, song_ids, **files),
  }
  if not force:
    finished = _find_finished(data_dir, settings)
    if finished is not None:
      print(f"{data_dir / catalogues.FILE_NAME} exists already: nothing to do")
      return finished
  shares["copies"], parts = copies, parts or {}
  made, counts = _make(
    meta_dir, song_ids, settings, split_from, val_pairs_from, shares, parts
  )
  _set_vectors_aside(data_dir)
  # Killed between these lines, the catalogue is absent and is made again.
  (data_dir / catalogues.FILE_NAME).unlink(missing_ok=True)
  content = {"settings": settings, "counts": counts}
  content[_ABSENT] = _absent(parts, song_ids)
  storage.write_json(data_dir / SETTINGS_FILE, content)
  made.save(data_dir)
  split_report.print_counts(counts, split_by)
  return made
