"""Time and memory of NT-Xent by tiles, against the dense loss.

python -m benchmarks.nt_xent
python -m benchmarks.nt_xent --timed=1024,2048 --rows=4096 --rounds=3
python -m benchmarks.nt_xent --positives=genres

Times value and gradient of the dense loss and of the tiled one for each size
of tile, in turn, within one run, for a growing number of rows. Then computes
each once in a process of its own, and prints the most memory that process had.
"""

import argparse
from collections.abc import Callable, Sequence
import concurrent.futures
import multiprocessing
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parts import machine
from pcl_jax.common import errors
from pcl_jax.losses import loss_terms
from pcl_jax.losses import nt_xent

_CODES, _TAGS = 225, 4  # As in Melon: genre codes, and tags of a song.
_DENSE = 0  # Stands for the dense loss among the sizes of tiles.


def make_arguments(rows: int, dims: int) -> tuple[jax.Array, ...]:
  """Returns random anchors, positives and tags."""
  rng = np.random.default_rng(0)
  z = rng.standard_normal((2, rows // 2, dims)).astype(np.float32)
  tags = rng.integers(0, _CODES + 1, (rows, _TAGS)).astype(np.int32)
  return jnp.asarray(z[0]), jnp.asarray(z[1]), jnp.asarray(tags)


def make_function(tile: int, positives: str) -> Callable:
  """Returns (anchors, positives, tags) -> value and gradient, compiled."""
  auto = (jax.sharding.AxisType.Auto,)
  mesh = jax.make_mesh((1,), ("data",), auto, devices=jax.devices()[:1])

  def loss(anchors, partners, tags):
    weights = None
    if positives == "genres":
      weights = loss_terms.shared_genres(tags, _CODES)
    return nt_xent.nt_xent(
      anchors,
      partners,
      weights,
      temperature=0.1,
      mesh=None if tile == _DENSE else mesh,
      tiled_above=0,
      tile=tile,
    )

  return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))


def time_in_turn(
  rows: int, tiles: Sequence[int], flags: argparse.Namespace
) -> dict[int, list[float]]:
  """Times each size of tile in each round.

  Returns:
    Size of tile -> nanoseconds per pair of rows, one for each round.
  """
  arguments = make_arguments(rows, flags.dims)
  functions = {tile: make_function(tile, flags.positives) for tile in tiles}
  times = {tile: [] for tile in tiles}
  for function in functions.values():
    jax.block_until_ready(function(*arguments))  # Compiles.
  for _ in range(flags.rounds):
    for tile, function in functions.items():
      begin = time.perf_counter()
      jax.block_until_ready(function(*arguments))
      times[tile].append((time.perf_counter() - begin) * 1e9 / rows**2)
  return times


def peak_bytes() -> int:
  """Returns the most memory this process has had."""
  # Not ru_maxrss, which starts from that of the process before exec.
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith("VmHWM:"):
      return int(line.split()[1]) * 1024
  raise errors.InputError("/proc/self/status has no VmHWM: Linux is needed.")


def compute_once(
  rows: int, dims: int, tile: int, positives: str
) -> tuple[int, int, float]:
  """Computes value and gradient; for a process of its own.

  Returns:
    Most memory of the process with jax started and nothing computed, and in
    all, in bytes; seconds, with compilation.
  """
  jax.block_until_ready(jnp.zeros(1) + 1)
  before = peak_bytes()
  begin = time.perf_counter()
  arguments = make_arguments(rows, dims)
  jax.block_until_ready(make_function(tile, positives)(*arguments))
  return before, peak_bytes(), time.perf_counter() - begin


def _name(tile: int) -> str:
  return "dense" if tile == _DENSE else f"tiles of {tile}"


def _line(name: str, values: list[float], unit: str) -> str:
  return (
    f"{name:<38}{statistics.median(values):>10.3g} {unit}  "
    f"[{min(values):.3g}, {max(values):.3g}]"
  )


def report_times(flags: argparse.Namespace) -> None:
  """Prints times per pair, and their ratios to the dense loss by rounds."""
  for rows in flags.timed:
    times = time_in_turn(rows, [_DENSE, *flags.tiles], flags)
    for tile, values in times.items():
      print(_line(f"{rows} rows, {_name(tile)}", values, "ns/pair"))
    for tile in flags.tiles:
      pairs = zip(times[tile], times[_DENSE], strict=True)
      ratios = [one / other for one, other in pairs]
      print(_line(f"{rows} rows, {_name(tile)} / dense", ratios, "times"))


def report_memory(flags: argparse.Namespace) -> None:
  """Prints the most memory of a process for each number of rows."""
  for tile in [_DENSE, *flags.tiles]:
    for rows in flags.rows:
      if tile == _DENSE and rows > max(flags.timed):
        continue
      # A new process each time, or the peak would be that of the largest.
      with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn")
      ) as pool:
        before, peak, seconds = pool.submit(
          compute_once, rows, flags.dims, tile, flags.positives
        ).result()
      print(
        f"{f'{rows} rows, {_name(tile)}':<38}{peak / 1e6:>10,.0f} MB at most, "
        f"{(peak - before) / 1e6:,.0f} MB above jax alone, {seconds:,.1f} s",
        flush=True,
      )


def _sizes(text: str) -> list[int]:
  return [int(size) for size in text.split(",")]


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and measures."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--timed", type=_sizes, default="1024,2048,4096,8192", help="rows, 2n"
  )
  parser.add_argument(
    "--rows", type=_sizes, default="8192,16384,32768,65536", help="for memory"
  )
  parser.add_argument("--tiles", type=_sizes, default="256,1024,4096")
  parser.add_argument("--dims", type=int, default=128)
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument(
    "--positives", choices=("partner", "genres"), default="partner"
  )
  flags = parser.parse_args(argv)
  print(
    f"{machine.describe()}; d = {flags.dims}, positives by "
    f"{flags.positives}, value and gradient, {flags.rounds} rounds: median "
    "[least, most]",
    flush=True,
  )
  report_times(flags)
  report_memory(flags)


if __name__ == "__main__":
  errors.run_command(main)
