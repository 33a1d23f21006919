"""Seconds to find the nearest of many vectors, against numpy.

python -m benchmarks.nearest
python -m benchmarks.nearest --candidates=100000 --length=1024 --queries=64

Random vectors; in turn, within one run: `nearest.top_k`, and numpy with the
whole matrix of cosines and a partition of each row (not exact in its ties, and
with memory for all cosines). Vectors are of length one beforehand for numpy.
Prints the median, least and most of the seconds and of the ratios round by
round.
"""

import argparse
from collections.abc import Sequence
import os
import statistics

import jax
import numpy as np

from benchmarks import train_step as timing
from pcl_jax.common import errors
from pcl_jax.embedding import search


def by_numpy(queries: np.ndarray, candidates: np.ndarray, k: int) -> np.ndarray:
  """Returns the k nearest of unit vectors, best first."""
  scores = queries @ candidates.T
  best = np.argpartition(-scores, k, axis=1)[:, :k]
  order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
  return np.take_along_axis(best, order, axis=1)


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and measures."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--candidates", type=int, default=1_000_000)
  add("--length", type=int, default=128)
  add("--queries", type=int, default=1)
  add("-k", type=int, default=10)
  add("--rounds", type=int, default=5)
  flags = parser.parse_args(argv)
  rng = np.random.default_rng(0)
  shape = (flags.candidates + flags.queries, flags.length)
  vectors = rng.standard_normal(shape, dtype=np.float32)
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  queries, candidates = vectors[: flags.queries], vectors[flags.queries :]
  print(
    f"{flags.queries} queries, {flags.candidates} candidates of length "
    f"{flags.length}, k {flags.k}; {len(os.sched_getaffinity(0))} cores, "
    f"{jax.devices()[0].device_kind}, jax {jax.__version__}, numpy "
    f"{np.__version__}: median [least, most]"
  )
  found, _ = search.top_k(queries, candidates, flags.k)
  expected = by_numpy(queries, candidates, flags.k)
  print(f"the same songs in {np.mean(found == expected):.2%} of all places")
  runs = {
    "top_k": lambda: search.top_k(queries, candidates, flags.k),
    "numpy": lambda: by_numpy(queries, candidates, flags.k),
  }
  seconds = timing.measure(runs, flags.rounds)
  pairs = zip(seconds["top_k"], seconds["numpy"], strict=True)
  seconds["top_k / numpy"] = [a / b for a, b in pairs]
  for name, values in seconds.items():
    print(
      f"{name:<16}{statistics.median(values):>9.3f} "
      f"[{min(values):.3f}, {max(values):.3f}]"
    )


if __name__ == "__main__":
  errors.run_command(main)
