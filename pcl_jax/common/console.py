"""Lines for people: tables, and what is printed above a progress bar."""

from collections.abc import Iterable, Sequence
import shutil
import sys
import time

import tqdm

from pcl_jax.common import hosts

_COLUMNS = 100  # Of a screen that does not say how wide it is.
_LEAST_CHARS = 16  # Of a cell that is shortened.
_GAP, _DOTS = "  ", "..."

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


def shortened(text: str, width: int) -> str:
  """Returns a text of at most so many characters, cut out in its middle.

  More is kept of its end, where a path has the name of its file.
  """
  if len(text) <= width:
    return text
  left = max(width - len(_DOTS), 2)
  begin = left // 3
  return f"{text[:begin]}{_DOTS}{text[begin - left :]}"


def _narrowed(widths: list[int], places: list[int], most: int) -> None:
  """Makes the widest of some columns narrower until a line is short enough."""
  places = [one for one in places if widths[one] > _LEAST_CHARS]
  gaps = len(_GAP) * (len(widths) - 1)
  excess = sum(widths) + gaps - most
  while excess > 0 and places:
    widest = max(places, key=lambda one: widths[one])
    if widths[widest] == _LEAST_CHARS:
      return
    widths[widest] -= 1
    excess -= 1


def grid(
  head: list[str],
  rows: Iterable[list[str]],
  *,
  shorten: Sequence[str] = (),
) -> list[str]:
  """Lays out cells in columns, aligned to the left; returns lines of text.

  Args:
    head: name of each column.
    rows: the cells.
    shorten: columns whose cells are shortened where lines would be longer than
      the screen is wide, or than 100 characters where there is no screen.
  """
  rows = [head, *rows]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  if shorten:
    screen = shutil.get_terminal_size((_COLUMNS, 0)).columns
    _narrowed(widths, [head.index(one) for one in shorten], screen)
    rows = [list(map(shortened, row, widths)) for row in rows]
  return [_GAP.join(map(str.ljust, row, widths)).rstrip() for row in rows]
