"""What a part is told, and how it times and writes its figures down."""

from collections.abc import Callable, Sequence
import dataclasses
import json
import pathlib
import statistics
import time
from typing import Any

RESULTS = "results.jsonl"
ROOT = pathlib.Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Context:
  """What a part is told.

  Attributes:
    part: its name.
    out: folder of figures, logs and traces.
    scratch: folder of data sets, runs and compiled programs, which later parts
      and later calls find again.
    tiny: whether all sizes are those that a CPU takes in seconds.
    tree: another checkout of the project to measure beside this one, or None.
    ends_at: the time, as of `time.time`, at which it should be done.
  """

  part: str
  out: pathlib.Path
  scratch: pathlib.Path
  tiny: bool
  tree: pathlib.Path | None
  ends_at: float

  @property
  def seconds_left(self) -> float:
    """The time that is left to this part."""
    return self.ends_at - time.time()

  def has(self, seconds: float, what: str) -> bool:
    """Tells whether so much time is left; says what is left out if not."""
    if self.seconds_left >= seconds:
      return True
    self.record(what, left_out=f"{self.seconds_left:.0f} s are left")
    return False

  def record(self, name: str, **figures: Any) -> None:
    """Prints a figure and adds it to the results.

    Args:
      name: what was measured.
      **figures: numbers and words that JSON can hold; None is left out.
    """
    figures = {k: v for k, v in figures.items() if v is not None}
    row = {"part": self.part, "name": name} | figures
    with open(self.out / RESULTS, "a") as file:
      file.write(json.dumps(row) + "\n")
    print(in_words(row), flush=True)


def in_words(row: dict[str, Any]) -> str:
  """Returns a row of the results as a line for people."""
  figures = [
    f"{key} {value:,.4g}" if isinstance(value, float) else f"{key} {value}"
    for key, value in row.items()
    if key not in ("part", "name")
  ]
  return f"{row['part']}: {row['name']}: {', '.join(figures)}"


def in_ms(seconds: Sequence[float]) -> dict[str, float]:
  """Returns the median, least and most of some seconds, in milliseconds."""
  return {
    "ms": statistics.median(seconds) * 1e3,
    "ms_least": min(seconds) * 1e3,
    "ms_most": max(seconds) * 1e3,
  }


def time_calls(
  call: Callable[[], Any],
  wait: Callable[[Any], Any],
  rounds: int,
  inner: int = 1,
) -> list[float]:
  """Times a call that has been made before; one call warms the caches.

  Args:
    call: starts what is timed.
    wait: takes what the last call returned and waits until it is there.
    rounds: how many times are taken.
    inner: calls in a row of each.

  Returns:
    Seconds of a call in each round.
  """
  wait(call())
  found = []
  for _ in range(rounds):
    begin = time.perf_counter()
    for _ in range(inner):
      last = call()
    wait(last)
    found.append((time.perf_counter() - begin) / inner)
  return found
