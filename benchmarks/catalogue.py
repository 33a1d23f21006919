"""Seconds to load a catalogue of Melon's size and to plan an epoch of it.

python -m benchmarks.catalogue
python -m benchmarks.catalogue --split_from=split_ids.pkl --rounds=5
python -m benchmarks.catalogue --songs=20000 --playlists=5000

Makes a catalogue of as many songs and playlists as Melon has, with playlists of
Melon's mean length and songs of a long-tailed popularity (or with the songs of
the published split), in a temporary folder; then, in turn, loads it and plans
an epoch of each strategy; and, in a new process each time, opens a data set of
as many (very short) songs, plans an epoch and loads its first batch. Prints
medians and extremes, and the memory a loaded catalogue takes.
"""

import argparse
from collections.abc import Callable, Sequence
import contextlib
import multiprocessing
import pathlib
import statistics
import tempfile
import time

import jax
import numpy as np

from benchmarks import loader as loader_benchmark
from benchmarks.parts import machine
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import loader
from pcl_jax.data import pairs
from pcl_jax.data import plans
from pcl_jax.data import ragged
from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from pcl_jax.data import strategies
from preprocessing.melon import published_split

# Melon's: songs with a spectrogram, playlists and their length, codes, artists.
SONGS, PLAYLISTS, _MEAN_LENGTH, _CODES, ARTISTS = (
  649_091,
  148_826,
  39.7,
  249,
  107_824,
)
_LENGTH_SPREAD = 0.9  # Standard deviation of a playlist's log length.
_POPULARITY_POWER = 0.8
_FRAMES = 1876
_BATCH = 384
_SONGS_A_COMMIT = 20_000
_STRATEGIES = {
  "SS": ((("audio", "audio_self"),), ""),
  "CM A,P": ((("audio", "cf"),), ""),
  "A-IM Playlist": ((), "Playlist"),
  "A-IM Artist": ((), "Artist"),
  "A-IM Genre": ((), "Genre"),
}


def draw_lists(
  lengths: np.ndarray, weights: np.ndarray, rng: np.random.Generator
) -> ragged.Ragged:
  """Draws lists of given lengths; what is drawn twice is in a list once.

  Args:
    lengths: of each list, [lists].
    weights: how likely each value is, [values].
    rng: draws the values.
  """
  owners = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
  ends = np.cumsum(weights)
  drawn = np.searchsorted(ends, rng.random(len(owners)) * ends[-1])
  keys = np.unique(owners * len(weights) + np.minimum(drawn, len(weights) - 1))
  owners, values = np.divmod(keys, len(weights))
  counts = np.bincount(owners, minlength=len(lengths))
  offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
  return ragged.Ragged(values.astype(np.int32), offsets)


def make_catalogue(
  songs: int, playlists: int, parts: Sequence[np.ndarray] | None
) -> catalogues.Catalogue:
  """Draws a catalogue of Melon's proportions.

  Args:
    songs: how many, if `parts` does not say.
    playlists: how many.
    parts: ids of the training, validation and test songs.
  """
  rng = np.random.default_rng(0)
  if parts is None:
    ids = np.arange(songs, dtype=np.uint32)
    split = rng.choice(3, songs, p=[0.8, 0.1, 0.1]).astype(np.int8)
  else:
    ids = np.sort(np.concatenate(parts)).astype(np.uint32)
    split = np.empty(len(ids), np.int8)
    for number, part in enumerate(parts):
      split[np.searchsorted(ids, part)] = number
  popularity = rng.permutation(
    1.0 / np.arange(1, len(ids) + 1) ** _POPULARITY_POWER
  )
  lengths = np.exp(_LENGTH_SPREAD * rng.standard_normal(playlists))
  lengths = np.maximum(lengths / lengths.mean() * _MEAN_LENGTH, 1).astype(int)
  artists = max(len(ids) * ARTISTS // SONGS, 1)
  codes = np.array([f"GN{i:04d}" for i in range(_CODES)])
  equal = np.ones(artists), np.ones(_CODES)
  genres = draw_lists(rng.integers(1, 5, len(ids)), equal[1], rng)
  files = np.sort(rng.choice(3, playlists, p=[0.77, 0.16, 0.07]))
  return catalogues.Catalogue(
    song_ids=ids,
    split=split,
    artists=draw_lists(rng.integers(1, 3, len(ids)), equal[0], rng),
    genres=ragged.Ragged(genres.values + 1, genres.offsets),
    albums=rng.integers(0, len(ids), len(ids)).astype(np.int32),
    playlists=draw_lists(lengths, popularity, rng),
    playlist_files=files.astype(np.int8),
    genre_codes=codes,
    validation_pairs={},
  )


def plan_epoch(
  made: catalogues.Catalogue, strategy: strategies.Strategy, epoch: int
) -> plans.Plan:
  """Plans an epoch of the training songs."""
  frames = np.full(len(made), _FRAMES, np.int32)
  draw = {"seed": 0, "epoch": epoch}
  if strategy.pair_method:
    return plans.of_pairs(
      made.pair_lists(strategy.pair_method),
      made.split == catalogues.TRAIN,
      frames,
      _BATCH,
      once=pairs.ONCE_AN_EPOCH[strategy.pair_method],
      **draw,
    )
  songs = made.rows_of(catalogues.TRAIN)
  if strategy.two_patches:
    return plans.of_two_patches(
      songs, frames, _BATCH, double_window=625, **draw
    )
  return plans.of_songs(songs, frames, _BATCH, **draw)


def _added_memory(folder: str) -> int:
  """Loads the catalogue; returns the memory that added, in bytes."""
  before = loader_benchmark.anonymous_bytes()
  loaded = catalogues.load(folder)
  assert len(loaded)
  return loader_benchmark.anonymous_bytes() - before


def _write_store(folder: pathlib.Path, ids: np.ndarray) -> None:
  """Writes a store of songs of two frames: what counts is their number."""
  writer = song_writer.SongWriter(folder / song_store.FILE_NAME)
  feature = np.zeros((2, song_store.MEL_BANDS), np.float16)
  for begin in range(0, len(ids), _SONGS_A_COMMIT):
    some = ids[begin : begin + _SONGS_A_COMMIT].tolist()
    writer.add((song_id, feature) for song_id in some)
  writer.finish({"kind": "short songs of a benchmark"})


def _start(folder: pathlib.Path, name: str) -> dict[str, float]:
  """Opens a data set, plans an epoch and loads its first batch."""
  strategy = strategies.parse(*_STRATEGIES[name])
  mesh = jax.make_mesh(
    (1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  sharding = jax.NamedSharding(mesh, jax.P("data"))
  begin = time.perf_counter()
  data = dataset.DataSet(folder)
  tables = {"genre_w2v": data.catalogue.tags(10)}
  opened = time.perf_counter()
  plan = data.training_plan(
    strategy, _BATCH, double_window=625, seed=0, epoch=0
  )
  planned = time.perf_counter()
  batches = loader.load(data.store, tables, plan, sharding, threads=2)
  with contextlib.closing(batches):
    jax.block_until_ready(next(batches))
    loaded = time.perf_counter()
  return {
    f"open ({name})": opened - begin,
    f"plan ({name})": planned - opened,
    f"first batch ({name})": loaded - planned,
  }


def _timed(work: Callable) -> float:
  begin = time.perf_counter()
  work()
  return time.perf_counter() - begin


def _print_times(name: str, seconds: list[float]) -> None:
  print(
    f"{name:<28}{statistics.median(seconds):>8.2f} s  "
    f"[{min(seconds):.2f}, {max(seconds):.2f}]"
  )


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and measures."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--songs", type=int, default=SONGS)
  parser.add_argument("--playlists", type=int, default=PLAYLISTS)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--split_from", help="the published split_ids.pkl")
  flags = parser.parse_args(argv)
  parts = None
  if flags.split_from:
    parts = published_split.read_split(file_names.path(flags.split_from))
  made = make_catalogue(flags.songs, flags.playlists, parts)
  print(
    f"{machine.describe()}; {len(made):,} songs "
    f"({(made.split == catalogues.TRAIN).sum():,} for training), "
    f"{len(made.playlists):,} playlists with {len(made.playlists.values):,} "
    f"entries; {flags.rounds} rounds: median [least, most]"
  )
  seconds: dict[str, list[float]] = {"load": []}
  with tempfile.TemporaryDirectory() as folder:
    path = made.save(folder)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
      added = pool.apply(_added_memory, (folder,))
    loaded = catalogues.load(folder)
    for round_number in range(flags.rounds):
      seconds["load"].append(_timed(lambda: catalogues.load(folder)))
      for name, modes in _STRATEGIES.items():
        strategy = strategies.parse(*modes)
        seconds.setdefault(name, []).append(
          _timed(lambda s=strategy, n=round_number: plan_epoch(loaded, s, n))
        )
    _write_store(pathlib.Path(folder), loaded.song_ids)
    for _ in range(flags.rounds):
      for name in ("SS", "A-IM Playlist"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
          started = pool.apply(_start, (pathlib.Path(folder), name))
        for what, value in started.items():
          seconds.setdefault(what, []).append(value)
    print(f"catalogue.npz: {path.stat().st_size / 1e6:.0f} MB")
  for name, times in seconds.items():
    _print_times(f"plan {name}" if name in _STRATEGIES else name, times)
  print(f"memory of a loaded catalogue: {added / 1e6:,.0f} MB")


if __name__ == "__main__":
  errors.run_command(main)
