"""Lines for people: tables, and what is printed above a progress bar."""

from collections.abc import Iterable
import sys
import time

import tqdm

from pcl_jax.common import hosts

_said_s = time.monotonic()


def quiet_s() -> float:
  """Returns for how many seconds `say` has printed nothing."""
  return time.monotonic() - _said_s


def say(text: str) -> None:
  """Prints a line above the progress bar; only the first process does."""
  global _said_s
  if not hosts.is_first():
    return
  _said_s = time.monotonic()
  tqdm.tqdm.write(text, file=sys.stdout)
  sys.stdout.flush()


def warn(text: str) -> None:
  """Prints a warning above the progress bar, in any process."""
  tqdm.tqdm.write(f"warning: {text}", file=sys.stderr)
  sys.stderr.flush()


def grid(head: list[str], rows: Iterable[list[str]]) -> list[str]:
  """Lays out cells in columns, aligned to the left; returns lines of text."""
  rows = [head, *rows]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
