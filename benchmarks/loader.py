"""Patches per second of the loader, against readers of whole records.

python -m benchmarks.loader
python -m benchmarks.loader --songs=500 --rounds=3 --threads=1

Makes a song store of random features in a temporary folder, reads it once so
that it lies in memory, then times epochs of the loader, of the loader with two
patches a song (strategy SS) and of the same threads reading whole records, in
turn, within one run. Prints medians, extremes and the ratios round by round,
and the memory that loading added.
"""

import argparse
from collections.abc import Callable, Sequence
import concurrent.futures
import os
import pathlib
import shutil
import statistics
import tempfile
import time

import jax
import lmdb
import numpy as np

from benchmarks.parts import machine
from pcl_jax.audio import song_patches
from pcl_jax.common import errors
from pcl_jax.data import loader
from pcl_jax.data import plans
from pcl_jax.data import song_store
from pcl_jax.data import song_writer


def make_store(
  path: pathlib.Path, songs: int, frames: int
) -> song_store.SongStore:
  """Writes a store of random features of one length."""
  rng = np.random.default_rng(0)
  writer = song_writer.SongWriter(path)
  feature = rng.standard_normal((frames, song_store.MEL_BANDS))
  feature = feature.astype(np.float16)
  for begin in range(0, songs, 100):
    some = range(begin, min(begin + 100, songs))
    writer.add((i, np.roll(feature, i, axis=0)) for i in some)
  writer.finish({"kind": "random features of a benchmark"})
  return song_store.SongStore(path)


def anonymous_bytes() -> int:
  """Returns the memory of this process that is not a mapped file."""
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith("RssAnon:"):
      return int(line.split()[1]) * 1024
  raise errors.InputError("/proc/self/status has no RssAnon: Linux is needed.")


def load_epoch(
  store: song_store.SongStore, plan: plans.Plan, threads: int
) -> int:
  """Runs the loader over a plan; returns the most memory seen."""
  mesh = jax.make_mesh(
    (1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  sharding = jax.NamedSharding(mesh, jax.P("data"))
  most = 0
  for batch in loader.load(store, {}, plan, sharding, threads=threads):
    jax.block_until_ready(batch)
    most = max(most, anonymous_bytes())
  return most


def read_whole_records(
  path: pathlib.Path, plan: plans.Plan, threads: int
) -> None:
  """Reads the same patches by taking each song's whole record first."""
  env = lmdb.open(os.fspath(path), readonly=True, lock=False, readahead=False)

  def produce(step: int) -> np.ndarray:
    patches = []
    with env.begin() as txn:
      for song, start in zip(
        plan.songs[step].tolist(), plan.starts[step].tolist(), strict=True
      ):
        record = txn.get(song_store.song_key(song))
        feature = np.frombuffer(record, "<f2").reshape(-1, song_store.MEL_BANDS)
        patches.append(feature[start : start + song_patches.FRAMES])
      return np.stack(patches)

  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    for _ in pool.map(produce, range(len(plan))):
      pass
  env.close()


def _timed(work: Callable, patches: int) -> float:
  begin = time.perf_counter()
  work()
  return patches / (time.perf_counter() - begin)


def _line(name: str, values: list[float], unit: str) -> str:
  return (
    f"{name:<30}{statistics.median(values):>12,.4g} {unit}  "
    f"[{min(values):,.4g}, {max(values):,.4g}]"
  )


def _plans(flags: argparse.Namespace) -> tuple[plans.Plan, plans.Plan]:
  """Returns a round of patches anywhere, and one of two patches a song."""
  rng = np.random.default_rng(1)
  shape = (flags.steps, flags.batch)
  last = flags.frames - song_patches.FRAMES
  anywhere = plans.Plan(
    rng.integers(0, flags.songs, shape).astype(np.int32),
    rng.integers(0, last, shape).astype(np.int32),
  )
  times = -(-anywhere.songs.size // 2 // flags.songs)
  two_patches = plans.of_two_patches(
    np.arange(flags.songs).repeat(times),
    np.full(flags.songs, flags.frames, np.int32),
    flags.batch // 2,
    double_window=625,
    seed=1,
    epoch=0,
  )
  return anywhere, two_patches


def measure(
  flags: argparse.Namespace, folder: pathlib.Path
) -> tuple[dict[str, list[float]], int]:
  """Makes a store and measures.

  Returns:
    What was timed -> patches per second in each round, and bytes of memory
    that loading added.
  """
  plan, two_patches = _plans(flags)
  store = make_store(folder / "songs.lmdb", flags.songs, flags.frames)
  # A copy, since LMDB opens an environment once a process.
  copy = folder / "copy.lmdb"
  shutil.copytree(store.path, copy)
  read_whole_records(copy, plan, flags.threads)  # Warms the page cache.
  load_epoch(store, plan, flags.threads)
  before = anonymous_bytes()
  added = load_epoch(store, plan, flags.threads) - before
  timed = {
    "loader": lambda: load_epoch(store, plan, flags.threads),
    "loader, two a song": lambda: load_epoch(store, two_patches, flags.threads),
    "whole records": lambda: read_whole_records(copy, plan, flags.threads),
  }
  rates = {name: [] for name in timed}
  for _ in range(flags.rounds):
    for name, work in timed.items():
      size = (two_patches if "two" in name else plan).songs.size
      rates[name].append(_timed(work, size))
  return rates, added


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and measures."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--songs", type=int, default=2000)
  parser.add_argument("--frames", type=int, default=1876)
  parser.add_argument("--batch", type=int, default=768, help="patches")
  parser.add_argument("--steps", type=int, default=40, help="of a round")
  parser.add_argument("--threads", type=int, default=2)
  parser.add_argument("--rounds", type=int, default=7)
  flags = parser.parse_args(argv)
  with tempfile.TemporaryDirectory() as folder:
    rates, added = measure(flags, pathlib.Path(folder))
  print(
    f"{machine.describe()}, lmdb {'.'.join(map(str, lmdb.version()))}; "
    f"{flags.songs} songs of {flags.frames} frames, batch {flags.batch}, "
    f"{flags.threads} threads, "
    f"{flags.rounds} rounds: median [least, most]"
  )
  for name, values in rates.items():
    print(_line(name, values, "patches/s"))
  for one, other in (
    ("loader", "whole records"),
    ("loader, two a song", "loader"),
  ):
    ratios = [a / b for a, b in zip(rates[one], rates[other], strict=True)]
    print(_line(f"{one} / {other}", ratios, "times"))
  print(f"memory added by loading: {added / 1e6:,.0f} MB (not mapped files)")


if __name__ == "__main__":
  errors.run_command(main)
