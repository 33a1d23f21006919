"""What training says while it goes on: losses, speed, waiting for data."""

import time
from typing import Any

import jax

from pcl_jax.common import console
from pcl_jax.training import metric_writers

say = console.say  # Part of this module's interface.
_MUCH_WAITING = 0.2  # Share of the time.
_FIRST_STEPS = 20  # They say little of what is to come.


class Meter:
  """Measures songs per second and the share of time waiting for data."""

  def __init__(self):
    self._compiled = False
    self.reset()

  def leave_out_compilation(self) -> None:
    """Measures anew after the first step, which was compiled."""
    if not self._compiled:
      self._compiled = True
      self.reset()

  def reset(self) -> None:
    """Starts to measure anew."""
    self._start, self._waited_s, self._patches = time.perf_counter(), 0.0, 0

  def add(self, patches: int, waited_s: float) -> None:
    """Counts one batch."""
    self._patches += patches
    self._waited_s += waited_s

  def read(self) -> dict[str, float]:
    """Returns the figures since the last reset, and resets."""
    elapsed_s = max(time.perf_counter() - self._start, 1e-9)
    row = {
      "songs_per_s": round(self._patches / elapsed_s, 2),
      "data_wait_share": round(self._waited_s / elapsed_s, 4),
    }
    self.reset()
    return row


def in_words(terms: dict[str, float]) -> str:
  """Returns the terms of a loss in one line."""
  return "  ".join(f"{name} {value:.4f}" for name, value in terms.items())


def fetch(terms: dict[str, jax.Array]) -> dict[str, float]:
  """Returns the terms of a loss as numbers; waits for the device."""
  return {name: float(value) for name, value in jax.device_get(terms).items()}


class LateLog:
  """Logs the losses of a step when the next one is under way.

  Fetching them at once would make the host wait for the device, and the device
  then for the host.
  """

  def __init__(self, writer: metric_writers.Writer):
    self._writer = writer
    self._pending = None
    self._has_advised = False

  def put(self, row: dict[str, Any], terms: dict[str, jax.Array]) -> None:
    """Keeps a row and the terms of its loss until `flush`."""
    self._pending = (row, terms)

  def flush(self) -> None:
    """Writes what is pending."""
    if self._pending is None:
      return
    (row, terms), self._pending = self._pending, None
    losses = fetch(terms)
    step = row.pop("step")
    self._writer.write("train", step, row | losses)
    console.say(
      f"epoch {row['epoch']} step {step}: {in_words(losses)} | "
      f"{row['songs_per_s']:.0f} songs/s | "
      f"waiting for data {row['data_wait_share']:.0%}"
    )
    is_slow = row["data_wait_share"] > _MUCH_WAITING and step > _FIRST_STEPS
    if is_slow and not self._has_advised:
      self._has_advised = True
      console.say(
        "the loader holds training back: raise --config.data.threads up to the "
        "number of cores, move the data set to a faster disk or to memory, or, "
        "on a disk that seeks slowly, use --config.data.order=blocks "
        "(docs/data.md says when)"
      )
