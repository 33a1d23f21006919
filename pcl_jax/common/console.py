"""Lines for people: tables, and what is printed above a progress bar."""

from collections.abc import Iterable
import sys

import tqdm

from pcl_jax.common import hosts


def say(text: str) -> None:
  """Prints a line above the progress bar; only the first process does."""
  if not hosts.is_first():
    return
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
