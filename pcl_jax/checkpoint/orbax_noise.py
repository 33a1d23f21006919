"""Silences what orbax prints besides the error that it raises.

A file that cannot be read or written makes orbax log pages of tracebacks, and
it abandons coroutines that end later with tracebacks of their own. The one
message that a person needs is made from the error.
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
  """Drops orbax's log records and tracebacks of its abandoned coroutines."""
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
  """Waits for the end of coroutines that orbax abandoned after an error."""
  time.sleep(_SETTLE_S)
  gc.collect()
