"""The figures that a run writes down of itself."""

import json
import pathlib
import statistics
from typing import Any

from pcl_jax.common import errors
from pcl_jax.training import metric_writers

_LAST = ("tflops_per_s", "mfu", "device_memory_gb")


def rows(workdir: pathlib.Path, kind: str) -> list[dict[str, Any]]:
  """Returns the rows of a kind in a run's metrics.jsonl."""
  lines = (workdir / metric_writers.FILE_NAME).read_text().splitlines()
  found = [json.loads(line) for line in lines]
  return [row for row in found if row["kind"] == kind]


def speeds(workdir: pathlib.Path, after_step: int) -> dict[str, float]:
  """Returns the medians of a run's rate and of its waiting for data.

  Args:
    workdir: of the run.
    after_step: rows up to this step hold the start, or a trace.

  Raises:
    RunError: the run has logged nothing.
  """
  logged = rows(workdir, "train")
  if not logged:
    raise errors.RunError(f"{workdir} has logged no step")
  late = [row for row in logged if row["step"] > after_step] or logged
  rate = statistics.median(row["songs_per_s"] for row in late)
  waiting = statistics.median(row["data_wait_share"] for row in late)
  return {
    "patches_per_s": rate,
    "data_wait_share": waiting,
    "rows": len(late),
  } | {key: late[-1][key] for key in _LAST if key in late[-1]}
