"""Seconds to find the nearest of many vectors, against numpy.

python -m benchmarks.nearest
python -m benchmarks.nearest --candidates=100000 --length=1024 --queries=64

Random vectors; in turn, within one run: `search.top_k`, for one query
`search.nearest_rows`, and numpy with the whole matrix of cosines and a
partition of each row (not exact in its ties, and with memory for all cosines).
Vectors are of length one beforehand, but for `top_k`. Prints the median, least
and most of the seconds, of processor time and of the ratios round by round.
With --graph, a graph of neighbours (package usearch) is measured instead, of
vectors that lie near 24 dimensions, as those of encoders do; its recall is that
of 100 queries.
"""

import argparse
from collections.abc import Callable, Sequence
import os
import pathlib
import statistics
import tempfile
import time
import types

import jax
import numpy as np

from benchmarks import train_step as timing
from pcl_jax.common import errors
from pcl_jax.embedding.tables import row_index
from pcl_jax.embedding.tables import search

_GRAPH_QUERIES = 100


def by_numpy(queries: np.ndarray, candidates: np.ndarray, k: int) -> np.ndarray:
  """Returns the k nearest of unit vectors, best first."""
  scores = queries @ candidates.T
  best = np.argpartition(-scores, k, axis=1)[:, :k]
  order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
  return np.take_along_axis(best, order, axis=1)


def processor_seconds(run: Callable[[], object]) -> float:
  """Returns the processor time that all threads take for a run."""
  begin = time.process_time()
  run()
  return time.process_time() - begin


def measure_graph(count: int, length: int, k: int) -> None:
  """Prints what a graph of neighbours takes, and what share it finds."""
  rng = np.random.default_rng(0)
  axes = rng.standard_normal((24, length), np.float32)
  axes *= np.linspace(2, 0.3, 24, dtype=np.float32)[:, None]
  unit = np.empty((count + _GRAPH_QUERIES, length), np.float32)
  for part in np.array_split(unit, 100):
    part[:] = rng.standard_normal((len(part), 24), np.float32) @ axes
    part += 0.5 * rng.standard_normal(part.shape, np.float32)
    part /= np.linalg.norm(part, axis=1, keepdims=True)
  unit, queries = unit[:count], unit[count:]
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "table"
    table = types.SimpleNamespace(path=path, digest="0" * 64)
    cores = len(os.sched_getaffinity(0))
    begin, used = time.perf_counter(), time.process_time()
    made = row_index.write_graph(table, unit, np.arange(count), threads=cores)
    begin, used = time.perf_counter() - begin, time.process_time() - used
    print(
      f"graph of {count} x {length}: {begin:.0f} s ({used:.0f} s of processor "
      f"time), {made.stat().st_size / 1e6:.0f} MB"
    )
    graph, seconds, used, hits = row_index.open_graph(table, unit), [], [], 0
    for query in queries:
      begin = time.perf_counter(), time.thread_time()
      found = graph.nearest(query, k)
      seconds.append(time.perf_counter() - begin[0])
      used.append(time.thread_time() - begin[1])
      exact = search.nearest_rows(unit, query, k)
      hits += len(np.intersect1d(found.rows, exact.rows))
  for name, values in (("by the clock", seconds), ("processor time", used)):
    print(
      f"a query, {name}: {1000 * statistics.median(values):.2f} ms "
      f"[{1000 * min(values):.2f}, {1000 * max(values):.2f}]"
    )
  print(f"recall at {k}: {hits / k / len(queries):.3f}")


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
  add("--graph", action="store_true")
  flags = parser.parse_args(argv)
  if flags.graph:
    measure_graph(flags.candidates, flags.length, flags.k)
    return
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
  if flags.queries == 1:
    runs["nearest_rows"] = lambda: search.nearest_rows(
      candidates, queries[0], flags.k
    )
  seconds = timing.measure(runs, flags.rounds)
  pairs = zip(seconds["top_k"], seconds["numpy"], strict=True)
  seconds["top_k / numpy"] = [a / b for a, b in pairs]
  if flags.queries == 1:
    seconds["nearest_rows, CPU"] = [
      processor_seconds(runs["nearest_rows"]) for _ in range(flags.rounds)
    ]
  for name, values in seconds.items():
    print(
      f"{name:<18}{statistics.median(values):>9.3f} "
      f"[{min(values):.3f}, {max(values):.3f}]"
    )


if __name__ == "__main__":
  errors.run_command(main)
