"""Where the numbers of a run go: metrics.jsonl, which is the truth, and curves.

TensorBoard's event files are written beside it for those who like curves.
"""

from collections.abc import Iterator
import contextlib
import errno
import json
import math
import os
import pathlib
from typing import Any

import tensorboardX

from pcl_jax.common import console
from pcl_jax.common import hosts

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


class _Rows:
  """Appends lines to a file; what a full disk refuses is written later."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    self._waiting = b""
    self._failures = 0

  def write(self, line: str) -> None:
    """Writes a line, and those before it that could not be written."""
    self._waiting += line.encode() + b"\n"
    end = os.fstat(self._file).st_size
    try:
      written = os.write(self._file, self._waiting)
      if written < len(self._waiting):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
      # No torn line stays: a part of one is written again as a whole.
      with contextlib.suppress(OSError):
        os.ftruncate(self._file, end)
      self._failures += 1
      if self._failures == 1:
        console.warn(
          f"{self._path} cannot be written ({error.strerror}). Training goes "
          "on, and its rows are kept and tried again with each further one: "
          "make room"
        )
      return
    if self._failures:
      console.warn(
        f"{self._path} is written again, after {self._failures} failures; no "
        "row is lost"
      )
      self._failures = 0
    self._waiting = b""

  def close(self) -> None:
    """Closes the file, and says what of it is lost."""
    os.close(self._file)
    if self._waiting:
      rows = self._waiting.count(b"\n")
      console.warn(f"{rows} rows of {self._path} could not be written")


class _Curves:
  """TensorBoard events, which may fail: training does not need them."""

  def __init__(self, folder: pathlib.Path, first_step: int):
    self._folder, self._writer = folder, None
    with self._surviving():
      self._writer = tensorboardX.SummaryWriter(
        os.fspath(folder),
        purge_step=first_step + 1 if first_step else None,
        flush_secs=10,
      )

  @contextlib.contextmanager
  def _surviving(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:  # noqa: BLE001  Whatever a tracker raises.
      self._writer = None
      console.warn(
        f"no more TensorBoard events are written into {self._folder} "
        f"({error!r}). Training goes on; {FILE_NAME} has all numbers"
      )

  def add(self, name: str, value: float | int, step: int) -> None:
    """Adds a point to a curve."""
    if self._writer is None:
      return
    with self._surviving():
      # Its thread writes; a dead one would let the queue fill up and block.
      if not self._writer.file_writer.event_writer._worker.is_alive():
        raise RuntimeError("its thread has died")
      self._writer.add_scalar(name, value, step)

  def close(self) -> None:
    """Flushes and closes."""
    if self._writer is None:
      return
    with self._surviving():
      if not self._writer.file_writer.event_writer._worker.is_alive():
        raise RuntimeError("its thread has died")
      self._writer.close()


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
    self._rows = _Rows(path)
    self._curves = _Curves(pathlib.Path(workdir) / "tensorboard", first_step)

  def write(self, kind: str, step: int, row: dict[str, Any]) -> None:
    """Writes one row.

    Args:
      kind: `train`, `validation` or `skipped`.
      step: number of steps taken.
      row: plain numbers by name; those that are not finite become null, as
        json has no word for them.
    """
    finite = {k: v if math.isfinite(v) else None for k, v in row.items()}
    self._rows.write(json.dumps({"kind": kind, "step": step} | finite))
    for name, value in finite.items():
      if value is not None:
        self._curves.add(f"{kind}/{name}", value, step)

  def close(self) -> None:
    """Flushes and closes both."""
    self._rows.close()
    self._curves.close()


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
