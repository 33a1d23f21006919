"""Seconds to find the nearest of a million vectors, exactly."""

import functools
import importlib
import importlib.util
import statistics

import numpy as np

from benchmarks.accelerator import part_context
from pcl_jax.embedding.tables import search

_NEEDED_S = 25.0


def _time_torch(
  context: part_context.Context, queries: np.ndarray, candidates: np.ndarray
) -> None:
  """Times PyTorch's products with candidates that lie on the device already."""
  torch = importlib.import_module("torch")
  if not torch.cuda.is_available():
    return
  unit = torch.nn.functional.normalize
  there = unit(torch.from_numpy(candidates).cuda(), dim=1)
  asked = unit(torch.from_numpy(queries).cuda(), dim=1)

  def find():
    return torch.cat(
      [torch.topk(some @ there.T, 10).indices for some in asked.split(512)]
    )

  seconds = part_context.time_calls(find, lambda _: torch.cuda.synchronize(), 3)
  context.record(
    f"torch, {len(queries)} queries, candidates on the device",
    seconds=statistics.median(seconds),
  )


def measure(context: part_context.Context) -> None:
  """Times some numbers of queries."""
  rng = np.random.default_rng(0)
  shape = (20_000, 64) if context.tiny else (1_000_000, 1024)
  candidates = rng.standard_normal(shape, dtype=np.float32)
  cases = [(1, 10), (1024, 10), (1024, 100), (8192, 10)]
  for count, k in cases[: 2 if context.tiny else None]:
    queries = rng.standard_normal((count, shape[1]), dtype=np.float32)
    label = f"{count} queries of {shape[0]} x {shape[1]}, k {k}"
    if not context.has(3 if context.tiny else _NEEDED_S, label):
      return
    seconds = part_context.time_calls(
      functools.partial(search.top_k, queries, candidates, k),
      lambda _: None,  # It waits by itself.
      1 if count > 1024 else 2,
    )
    context.record(label, seconds=statistics.median(seconds))
  if importlib.util.find_spec("torch") and not context.tiny:
    _time_torch(context, queries[:4096], candidates)
