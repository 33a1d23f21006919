"""What a stage is, and how the time of a part of it is told of the whole."""

from collections.abc import Callable
import pathlib
import time
from typing import NamedTuple

from jaxtyping import Float
import numpy as np

from benchmarks.melon_size import made_melon

Seconds = Float[np.ndarray, "2"]  # Of the clock, and of the processor.


class Done(NamedTuple):
  """What a stage did.

  Attributes:
    note: of what, for the table.
    seconds: of the whole, where only a part was run; else None.
  """

  note: str
  seconds: Seconds | None = None


# Prepares a stage, and returns what is timed.
Stage = Callable[[pathlib.Path, made_melon.Sizes], Callable[[], Done]]


def now() -> Seconds:
  """Returns the clock and the processor time of this process."""
  return np.array([time.perf_counter(), time.process_time()])
