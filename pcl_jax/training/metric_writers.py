"""Where the numbers of a run go: metrics.jsonl, trackers and the terminal."""

from collections.abc import Callable, Sequence
import contextlib
import errno
import json
import math
import os
import pathlib
import time
from typing import Any

import jax

from pcl_jax.common import console
from pcl_jax.common import hosts
from pcl_jax.common import storage
from pcl_jax.training import trackers

FILE_NAME = "metrics.jsonl"
_MUCH_WAITING = 0.2  # Share of the time.
_FIRST_STEPS = 20  # They say little of what is to come.


def drop_after(path: pathlib.Path, step: int) -> None:
  """Drops rows past a step, and a torn last one, from a metrics.jsonl."""
  if not path.exists():
    return
  kept = []
  for line in path.read_bytes().splitlines(keepends=True):
    try:
      row = json.loads(line)
    except ValueError:  # No json, or no text.
      break  # Torn by a kill; nothing whole comes after it.
    if line.endswith(b"\n") and row["step"] <= step:
      kept.append(line.decode())
  storage.write_text(path, "".join(kept))


class _Rows:
  """Appends lines to a file; what a full disk refuses is written later."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    self._waiting = b""
    self._failures = 0

  def write(self, line: str) -> None:
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
    self._waiting, self._failures = b"", 0

  def close(self) -> None:
    os.close(self._file)
    if self._waiting:
      rows = self._waiting.count(b"\n")
      console.warn(f"{rows} rows of {self._path} could not be written")


class MetricWriter:
  """Writes rows of numbers, one a line, and gives the same to trackers.

  The first process writes; in others nothing happens.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    first_step: int,
    followers: Sequence[trackers.Tracker] = (),
  ):
    """Opens a run's numbers; rows after `first_step` are dropped.

    Args:
      workdir: folder of the run.
      first_step: the step that it goes on from.
      followers: what gets all finite numbers as well.
    """
    self._has_advised = False
    if hosts.is_first():
      path = pathlib.Path(workdir) / FILE_NAME
      drop_after(path, first_step)
      self._rows = _Rows(path)
      self._followers = followers

  def write(self, kind: str, step: int, row: dict[str, Any]) -> None:
    """Writes one row of numbers by name, after so many steps.

    A number that is not finite becomes null, as json has no word for it.
    """
    if not hosts.is_first():
      return
    finite = {k: v if math.isfinite(v) else None for k, v in row.items()}
    self._rows.write(json.dumps({"kind": kind, "step": step} | finite))
    shown = {f"{kind}/{k}": v for k, v in finite.items() if v is not None}
    for one in self._followers:
      one.add(shown, step)

  def write_step(
    self, row: dict[str, Any], losses: dict[str, float], left: str = ""
  ) -> None:
    """Writes and prints a row of training; advises once on a slow loader.

    The time that is left is printed alone, as it is never the same twice.
    """
    step, epoch = row["step"], row["epoch"]
    others = {name: value for name, value in row.items() if name != "step"}
    self.write("train", step, others | losses)
    console.say(
      f"epoch {epoch} step {step}: {format_terms(losses)} | "
      f"{row['songs_per_s']:.0f} songs/s | "
      f"waiting for data {row['data_wait_share']:.0%}"
      f"{left and f' | {left}'}"
    )
    is_slow = row["data_wait_share"] > _MUCH_WAITING and step > _FIRST_STEPS
    if is_slow and not self._has_advised:
      self._has_advised = True
      console.say(
        "the loader holds training back: raise --config.data.threads up to the "
        "number of cores, move the data set to a faster disk or to memory, use "
        "--config.data.order=resident if it fits into the memory of the "
        "devices, or --config.data.order=blocks on a disk that seeks slowly "
        "(docs/data.md says when)"
      )

  def close(self) -> None:
    """Flushes and closes."""
    if hosts.is_first():
      self._rows.close()
      for one in self._followers:
        one.close()


class Meter:
  """Measures songs per second and the share of time waiting for data.

  One meter is for all epochs: the time of a step is seen where the next one is
  recorded, so that the first step of an epoch alone would seem to take none.
  """

  def __init__(self, clock: Callable[[], float] = time.perf_counter):
    self._clock, self._compiled = clock, False
    self._reset()

  def _reset(self) -> None:
    self._start, self._before_s = self._clock(), 0.0
    self._waited_s, self._patches = 0.0, 0

  def pause(self) -> None:
    """Leaves out the time from now until `go_on`."""
    self._before_s += self._clock() - self._start

  def go_on(self) -> None:
    """Ends a pause."""
    self._start = self._clock()

  def leave_out_compilation(self) -> None:
    """Starts to measure after the first step, which was compiled."""
    if not self._compiled:
      self._compiled = True
      self._reset()

  def add(self, patches: int, waited_s: float) -> None:
    """Counts one batch."""
    self._patches += patches
    self._waited_s += waited_s

  def read(self) -> dict[str, float]:
    """Returns the figures since the last call, and starts again."""
    elapsed_s = self._before_s + self._clock() - self._start
    elapsed_s = max(elapsed_s, 1e-9)
    row = {
      "songs_per_s": round(self._patches / elapsed_s, 2),
      "data_wait_share": round(self._waited_s / elapsed_s, 4),
    }
    self._reset()
    return row


def format_terms(terms: dict[str, float]) -> str:
  """Returns the terms of a loss in one line."""
  return "  ".join(f"{name} {value:.4f}" for name, value in terms.items())


def fetch(terms: dict[str, jax.Array]) -> dict[str, float]:
  """Returns the terms of a loss as numbers; waits for the device."""
  return {name: float(value) for name, value in jax.device_get(terms).items()}
