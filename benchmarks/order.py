"""Reading order of the loader from a cold disk: shuffled against blocks.

python -m benchmarks.order
python -m benchmarks.order --songs=20000 --rounds=5 --folder=/mnt/slow

Makes a song store of random features, then, in turn, drops it from the system's
page cache and loads an epoch of single patches in a new process, shuffled and
in blocks. Prints patches per second, the bytes that the disk gave, and how many
reads went backwards in the file. Where the cache lies below (a virtual disk),
the times say little, the counts remain.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import multiprocessing
import os
import pathlib
import statistics
import tempfile
import time

import numpy as np

from benchmarks import loader as loader_benchmark
from benchmarks.parts import machine
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.data import plans
from pcl_jax.data import read_order
from pcl_jax.data import song_store

_FRAMES = 1876


@dataclasses.dataclass(frozen=True)
class Measured:
  """One epoch.

  Attributes:
    rate: patches per second.
    disk_mb: read from the disk, or what the system calls so.
    backward: share of the reads that go back in the file.
  """

  rate: float
  disk_mb: float
  backward: float


def _disk_bytes() -> int:
  """Returns the bytes that this process has had read from storage."""
  lines = pathlib.Path("/proc/self/io").read_text().splitlines()
  return int(dict(line.split(": ") for line in lines)["read_bytes"])


def _drop_from_cache(path: pathlib.Path) -> None:
  with open(path / "data.mdb", "rb") as file:
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _plan(
  songs: int, batch: int, blocks: read_order.Blocks | None
) -> plans.Plan:
  frames = np.full(songs, _FRAMES, np.int32)
  plan = plans.of_songs(np.arange(songs), frames, batch, seed=0, epoch=0)
  if blocks is None:
    return plan
  return read_order.reorder(
    plan, blocks, rows=songs, paired=False, seed=0, epoch=0
  )


def _measure(
  path: pathlib.Path, batch: int, blocks: read_order.Blocks | None
) -> Measured:
  """Loads an epoch, in a process that has not mapped the store before."""
  store = song_store.SongStore(path, readahead=blocks is not None)
  plan = _plan(len(store), batch, blocks)
  songs = plan.songs.ravel()
  if plan.reads is not None:
    songs = songs[plan.reads.slots]
  before, begin = _disk_bytes(), time.perf_counter()
  loader_benchmark.load_epoch(store, plan, threads=2)
  seconds = time.perf_counter() - begin
  return Measured(
    plan.songs.size / seconds,
    (_disk_bytes() - before) / 1e6,
    float((np.diff(songs) < 0).mean()),
  )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--songs", type=int, default=10_000, help="180 kB each")
  add("--batch", type=int, default=64, help="patches")
  add("--num_blocks", type=int, default=100)
  add("--cached_batches", type=int, default=50)
  add("--rounds", type=int, default=3)
  add(
    "--folder",
    type=file_names.path,
    help="where the store is made (a temporary folder)",
  )
  return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and measures."""
  flags = _parse(argv)
  orders = {
    "shuffled": None,
    "blocks": read_order.Blocks(flags.num_blocks, flags.cached_batches),
  }
  found: dict[str, list[Measured]] = {name: [] for name in orders}
  context = multiprocessing.get_context("spawn")
  with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
    path = pathlib.Path(folder) / "songs.lmdb"
    loader_benchmark.make_store(path, flags.songs, _FRAMES)
    for _ in range(flags.rounds):
      for name, blocks in orders.items():
        _drop_from_cache(path)
        with context.Pool(1) as pool:
          found[name].append(pool.apply(_measure, (path, flags.batch, blocks)))
    size = (path / "data.mdb").stat().st_size
  print(
    f"{machine.describe()}; "
    f"{flags.songs:,} songs, {size / 1e9:.1f} GB, batch {flags.batch}, "
    f"{flags.num_blocks} blocks, {flags.cached_batches} batches held; "
    f"{flags.rounds} rounds: median [least, most]"
  )
  for name, measured in found.items():
    rates = [one.rate for one in measured]
    disk = statistics.median(one.disk_mb for one in measured)
    print(
      f"{name:<10}{statistics.median(rates):>10,.0f} patches/s "
      f"[{min(rates):,.0f}, {max(rates):,.0f}]  {disk:,.0f} MB from the disk  "
      f"{measured[0].backward:.1%} of the reads go backwards"
    )
  ratios = [
    a.rate / b.rate
    for a, b in zip(found["blocks"], found["shuffled"], strict=True)
  ]
  print(
    f"blocks / shuffled: {statistics.median(ratios):.2f} "
    f"[{min(ratios):.2f}, {max(ratios):.2f}]"
  )


if __name__ == "__main__":
  errors.run_command(main)
