"""Time and memory of playlist continuation at a share of Melon's size.

python -m benchmarks.playlist_continuation
python -m benchmarks.playlist_continuation --share=1 --dims=256

Draws embeddings, and playlists over them, of so many context songs, candidates
and playlists as Melon has times the share, and continues them all. Prints the
seconds of the nearest candidates and of the rest, and the memory of the process
beyond what the embeddings take. With the whole of Melon the first grows with
songs times candidates, the second with playlists and their lengths, memory with
songs and candidates: what is printed of a share is an extrapolation to it.
"""

import argparse
from collections.abc import Sequence
import itertools
import os
import platform
import resource
import time

import jax
import numpy as np

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import ragged
from pcl_jax.embedding.tables import search
from pcl_jax.evaluation.retrieval import playlist_continuation

SONGS, CANDIDATES, PLAYLISTS = 580_075, 64_453, 100_000
_SONGS_A_PLAYLIST = 40


def _peak_mb() -> float:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _draw(songs: int, candidates: int, playlists: int, dims: int):
  """Returns embeddings, split and playlists of random songs."""
  rng = np.random.default_rng(0)
  rows = rng.standard_normal((songs + candidates, dims), np.float32)
  split = np.repeat([catalogues.TRAIN, catalogues.TEST], [songs, candidates])
  lists = [
    np.unique(rng.integers(0, len(rows), _SONGS_A_PLAYLIST)).tolist()
    for _ in range(playlists)
  ]
  return rows, split.astype(np.int8), ragged.Ragged.from_lists(lists)


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and measures."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--share", type=float, default=0.1)
  parser.add_argument("--dims", type=int, default=1024)
  flags = parser.parse_args(argv)
  if not 0 < flags.share <= 1:
    raise errors.InputError(f"--share={flags.share} is above 0, at most 1.")
  sizes = [int(n * flags.share) for n in (SONGS, CANDIDATES, PLAYLISTS)]
  rows, split, lists = _draw(*sizes, flags.dims)
  problem = playlist_continuation.split_playlists(lists, split)
  songs = np.unique(problem.contexts.values)
  search.top_k(rows[:8], rows[:8], 1)  # Starts the device.
  before, began = _peak_mb(), time.perf_counter()
  found = playlist_continuation.continue_playlists(rows, problem)
  first = next(found)  # Once all lists of neighbours are there.
  neighbours_s = time.perf_counter() - began
  counts = np.bincount(lists.values, minlength=len(split))
  playlist_continuation.score_playlists(
    problem, itertools.chain([first], found), counts
  )
  rest_s = time.perf_counter() - began - neighbours_s
  peak = _peak_mb() - before
  pairs = len(songs) * len(problem.candidates)
  whole = SONGS * CANDIDATES / pairs * neighbours_s
  whole += PLAYLISTS / len(problem.playlists) * rest_s
  print(
    f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, load "
    f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}, jax "
    f"{jax.__version__} on {jax.devices()[0].device_kind}\n"
    f"{len(songs)} context songs x {len(problem.candidates)} candidates, "
    f"{len(problem.playlists)} playlists, {flags.dims} dimensions\n"
    f"nearest candidates {neighbours_s:.1f} s, ranking and measures "
    f"{rest_s:.1f} s\n"
    f"memory beyond the embeddings ({rows.nbytes / 1e6:,.0f} MB): at most "
    f"{peak:,.0f} MB"
  )
  if flags.share < 1:
    print(
      f"extrapolated to {SONGS} x {CANDIDATES}, {PLAYLISTS} playlists: "
      f"{whole / 60:.0f} minutes, {peak / flags.share / 1e3:.1f} GB at most"
    )


if __name__ == "__main__":
  errors.run_command(main)
