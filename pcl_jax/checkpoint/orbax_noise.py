"""Keeps quiet what orbax says of an error beside raising it.

A file that cannot be read or written makes it log pages of tracebacks, and
coroutines that it has abandoned end later, where nobody hears them. The one
message that a person needs is made of the error it raises.
"""

from collections.abc import Iterator
import contextlib
import gc
import logging
import pathlib
import sys
import time

_ABANDONED = "Event loop is closed"
_SETTLE_S = 0.3


@contextlib.contextmanager
def silenced() -> Iterator[None]:
  """Drops the log of orbax and the ends of its abandoned coroutines."""
  hook, logger = sys.unraisablehook, logging.getLogger("absl")

  def quiet(unraisable: "sys.UnraisableHookArgs") -> None:
    if _ABANDONED not in str(unraisable.exc_value):
      hook(unraisable)

  def is_of_others(record: logging.LogRecord) -> bool:
    return "orbax" not in pathlib.Path(record.pathname).parts

  logger.addFilter(is_of_others)
  sys.unraisablehook = quiet
  try:
    yield
  finally:
    logger.removeFilter(is_of_others)
    if sys.unraisablehook is quiet:
      sys.unraisablehook = hook


def settle() -> None:
  """Waits until what orbax has abandoned after an error is at its end."""
  time.sleep(_SETTLE_S)
  gc.collect()
