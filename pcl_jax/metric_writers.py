"""Where the numbers of a run go: metrics.jsonl, which is the truth, and curves.

TensorBoard's event files are written beside it for those who like curves.
"""

import json
import os
import pathlib
from typing import Any

import tensorboardX

from pcl_jax import hosts

FILE_NAME = "metrics.jsonl"


def drop_after(path: pathlib.Path, step: int) -> None:
  """Drops rows past a step, and a torn last one, from a run's numbers.

  Args:
    path: of metrics.jsonl; nothing happens where it is absent.
    step: training goes on after it.
  """
  if not path.exists():
    return
  kept = []
  for line in path.read_text().splitlines(keepends=True):
    try:
      row = json.loads(line)
    except json.JSONDecodeError:
      break  # Torn by a kill; nothing whole comes after it.
    if line.endswith("\n") and row["step"] <= step:
      kept.append(line)
  partial = path.with_name(path.name + ".partial")
  partial.write_text("".join(kept))
  partial.replace(path)


class MutedWriter:
  """Takes what `MetricWriter` does and writes nothing."""

  def write(self, kind: str, step: int, row: dict[str, Any]) -> None:
    """Does nothing."""

  def close(self) -> None:
    """Does nothing."""


class MetricWriter:
  """Writes rows of numbers, one a line, and the same as TensorBoard events."""

  def __init__(self, workdir: str | os.PathLike[str], first_step: int):
    """Opens a run's numbers for more of them.

    Args:
      workdir: folder of the run.
      first_step: step the run goes on from; later rows are dropped.
    """
    path = pathlib.Path(workdir) / FILE_NAME
    drop_after(path, first_step)
    self._file = open(path, "a", buffering=1)  # noqa: SIM115
    self._events = tensorboardX.SummaryWriter(
      os.fspath(pathlib.Path(workdir) / "tensorboard"),
      purge_step=first_step + 1 if first_step else None,
      flush_secs=10,
    )

  def write(self, kind: str, step: int, row: dict[str, Any]) -> None:
    """Writes one row.

    Args:
      kind: `train` or `validation`.
      step: number of steps taken.
      row: plain numbers by name.
    """
    self._file.write(json.dumps({"kind": kind, "step": step} | row) + "\n")
    for name, value in row.items():
      self._events.add_scalar(f"{kind}/{name}", value, step)

  def close(self) -> None:
    """Flushes and closes both."""
    self._file.close()
    self._events.close()


Writer = MetricWriter | MutedWriter


def open_writer(workdir: str | os.PathLike[str], first_step: int) -> Writer:
  """Opens a run's numbers; of several processes the first writes them.

  Args:
    workdir: folder of the run.
    first_step: step the run goes on from; later rows are dropped.
  """
  if hosts.is_first():
    return MetricWriter(workdir, first_step)
  return MutedWriter()
