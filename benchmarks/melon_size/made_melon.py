"""Makes a data set of Melon's size: its metadata, song store and vectors."""

from collections.abc import Iterator
import dataclasses
import json
import pathlib

from jaxtyping import Float16, Float32, Int
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from benchmarks import catalogue as catalogue_benchmark
from pcl_jax.common import storage
from pcl_jax.data import catalogues
from pcl_jax.data import ragged
from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from preprocessing.melon import melon_meta

VECTORS = "vectors.parquet"
# Melon's: songs in its metadata, genres and sub-genres. Albums are a guess.
_IN_METADATA, _ALBUMS, _GENRES, _SUB_GENRES = 707_989, 284_000, 30, 219
_POWER = 0.8  # Of the popularity of artists, albums and genres.
_WITHOUT_SUB_GENRE = 0.05
_FACTORS = 8  # Of spectra: real ones resemble one another.
_POOLS = (211, 223, 227)  # Courses over time; a song has one of each.
_AT_ONCE = 2000


@dataclasses.dataclass(frozen=True)
class Sizes:
  """How large the data set is, and what is done with it.

  Attributes:
    songs: in the song store.
    frames: of each song.
    dims: numbers of a vector.
    batch: songs or pairs in a batch.
    share: part of the queries, candidates and playlists that stages measure
      whose time grows with them; 1 for all.
    warp_epochs: epochs of WARP that are run.
    long_songs: songs of 30 s for the rates of the audit.
  """

  songs: int = catalogue_benchmark.SONGS
  frames: int = 256
  dims: int = 1024
  batch: int = 384
  share: float = 1.0
  warp_epochs: int = 2
  long_songs: int = 400

  @property
  def every(self) -> int:
    """Returns the step of a slice that leaves the share of something."""
    return max(round(1 / self.share), 1)

  def like(self, of_melon: int) -> int:
    """Returns a number of Melon's, scaled as the songs are."""
    return max(of_melon * self.songs // catalogue_benchmark.SONGS, 1)


def _falling(count: int, rng: np.random.Generator) -> np.ndarray:
  """Returns weights of a long tail, in random order."""
  return rng.permutation(1.0 / np.arange(1, count + 1) ** _POWER)


def _genres(
  songs: int, rng: np.random.Generator
) -> tuple[ragged.Ragged, Int[np.ndarray, " sub_genres"]]:
  """Draws one or two sub-genres of each song, or none; and whose they are."""
  counts = rng.choice(
    3, songs, p=[_WITHOUT_SUB_GENRE, 0.65, 0.35 - _WITHOUT_SUB_GENRE]
  )
  drawn = catalogue_benchmark.draw_lists(
    counts, _falling(_SUB_GENRES, rng), rng
  )
  return drawn, np.sort(rng.integers(0, _GENRES, _SUB_GENRES))


def _song_records(
  made: catalogues.Catalogue, rng: np.random.Generator
) -> Iterator[dict]:
  """Yields the records of song_meta.json, with all fields of Melon's."""
  subs, genre_of = _genres(len(made), rng)
  for song in range(len(made)):
    mine = subs[song].tolist()
    above = sorted({int(genre_of[one]) for one in mine}) or [song % _GENRES]
    artists = made.artists[song].tolist()
    yield {
      "id": song,
      "song_name": f"Song number {song}",
      "album_id": int(made.albums[song]),
      "album_name": f"Album number {made.albums[song]}",
      "artist_id_basket": artists,
      "artist_name_basket": [f"Artist number {one}" for one in artists],
      "song_gn_gnr_basket": [f"GN{one + 1:02d}00" for one in above],
      "song_gn_dtl_gnr_basket": [
        f"GN{genre_of[one] + 1:02d}{one % 99 + 1:02d}" for one in mine
      ],
      "issue_date": "20200101",
    }


def _playlist_records(made: catalogues.Catalogue, file: int) -> Iterator[dict]:
  for number in np.flatnonzero(made.playlist_files == file).tolist():
    yield {
      "id": number,
      "plylst_title": f"Playlist number {number}",
      "tags": ["a tag", "another"],
      "songs": made.playlists[number].tolist(),
      "like_cnt": number % 100,
      "updt_date": "2020-01-01 00:00:00.000",
    }


def _write_list(path: pathlib.Path, records: Iterator[dict]) -> None:
  with open(path, "w", encoding="utf-8") as file:
    before = "["
    for record in records:
      file.write(before + json.dumps(record))
      before = ", "
    file.write("]")


def write_metadata(folder: pathlib.Path, sizes: Sizes) -> None:
  """Writes kakao_meta/ with songs and playlists of Melon's proportions."""
  rng = np.random.default_rng(1)
  count = sizes.like(_IN_METADATA)
  playlists = sizes.like(catalogue_benchmark.PLAYLISTS)
  made = catalogue_benchmark.make_catalogue(count, playlists, None)
  albums = _falling(sizes.like(_ALBUMS), rng)
  artists = _falling(sizes.like(catalogue_benchmark.ARTISTS), rng)
  one_or_two = rng.choice([1, 2], count, p=[0.85, 0.15])
  made = dataclasses.replace(
    made,
    albums=rng.choice(len(albums), count, p=albums / albums.sum()),
    artists=catalogue_benchmark.draw_lists(one_or_two, artists, rng),
  )
  out = folder / melon_meta.FOLDER
  out.mkdir(parents=True, exist_ok=True)
  _write_list(out / melon_meta.SONG_FILE, _song_records(made, rng))
  for number, name in enumerate(melon_meta.PLAYLIST_FILES):
    _write_list(out / name, _playlist_records(made, number))


def features(
  songs: Int[np.ndarray, " songs"], frames: int
) -> Iterator[tuple[int, Float16[np.ndarray, "frames bands"]]]:
  """Yields ids and features of songs: a spectrum, and a course over time.

  Spectra resemble one another, as those of music do, so that the audit has
  songs to compare; no two songs have the same course.
  """
  rng, bands = np.random.default_rng(2), song_store.MEL_BANDS
  basis = rng.standard_normal((_FACTORS, bands)).astype(np.float32)
  pools = [
    rng.standard_normal((size, frames, bands)).astype(np.float32)
    for size in _POOLS
  ]
  for song in songs.tolist():
    mix = np.random.default_rng([3, song]).standard_normal(_FACTORS)
    feature = pools[0][song % _POOLS[0]] + mix.astype(np.float32) @ basis
    for pool in pools[1:]:
      feature += pool[song % len(pool)]
    yield song, feature.astype(np.float16)


def write_store(path: pathlib.Path, ids: np.ndarray, frames: int) -> None:
  """Writes a song store of made-up features."""
  writer = song_writer.SongWriter(path)
  made = features(ids, frames)
  for begin in range(0, len(ids), _AT_ONCE):
    some = min(_AT_ONCE, len(ids) - begin)
    writer.add(next(made) for _ in range(some))
  writer.finish({"kind": "made-up features of a benchmark"})


def song_ids(sizes: Sizes) -> np.ndarray:
  """Returns the ids of the songs that have features, ascending."""
  known = sizes.like(_IN_METADATA)
  rng = np.random.default_rng(4)
  return np.sort(rng.choice(known, min(sizes.songs, known), replace=False))


def _vectors(
  made: catalogues.Catalogue, rows: slice, dims: int
) -> Float32[np.ndarray, "songs dims"]:
  """Draws vectors that lie by genre and are not negative, as features are."""
  centres = np.random.default_rng(5).standard_normal(
    (len(made.genre_codes) + 1, dims), np.float32
  )
  first = made.tags(1)[rows, 0]
  rng = np.random.default_rng([6, rows.start])
  noise = rng.standard_normal((len(first), dims), np.float32)
  return np.maximum(0.5 * centres[first] + noise, 0.0)


def write_vectors(folder: pathlib.Path, dims: int) -> None:
  """Writes a vector for each song of the catalogue, as a table."""
  made = catalogues.load(folder)
  kind = pa.schema(
    [("id", pa.string()), ("vector", pa.list_(pa.float32(), dims))]
  )
  with (
    storage.write_aside(folder / VECTORS) as partial,
    parquet.ParquetWriter(partial, kind) as writer,
  ):
    for begin in range(0, len(made), _AT_ONCE):
      rows = slice(begin, min(begin + _AT_ONCE, len(made)))
      flat = pa.array(_vectors(made, rows, dims).ravel())
      columns = [
        pa.array(made.song_ids[rows].astype(str)),
        pa.FixedSizeListArray.from_arrays(flat, dims),
      ]
      writer.write_batch(pa.record_batch(columns, schema=kind))
