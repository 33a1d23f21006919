"""Errors written for people, and how a command reports them."""

from collections.abc import Callable
import errno
import os
import sys

from pcl_jax.common import file_names
from pcl_jax.common import programs

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
# What a disk says in the middle of a file; Python does not say which file.
OF_DISKS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))


class _ForPeople(Exception):
  """Has a message for people, which commands print without a traceback.

  It is the whole report: the file or key, the value, the rule and the remedy.
  """

  def __str__(self) -> str:
    return programs.fit(super().__str__())


class InputError(_ForPeople, ValueError):
  """Something the user supplied breaks a rule."""


class RunError(_ForPeople, RuntimeError):
  """A run cannot go on, for a reason that shows only while it runs."""


def run_command(main: Callable[[], int | None]) -> None:
  """Runs a command's `main` and exits; errors for people have no traceback.

  The exit code is 2 after an `InputError` or if a file cannot be used, and 1
  after a `RunError`. Whatever text is printed, the terminal takes it.
  """
  file_names.print_any_text()
  sys.exit(_report(main) or 0)


def _report(main: Callable[[], int | None]) -> int | None:
  try:
    return main()
  except _ForPeople as error:
    print(f"error: {file_names.shown(str(error))}", file=sys.stderr)
    return EXIT_BAD_INPUT if isinstance(error, InputError) else EXIT_FAILED
  except BrokenPipeError:  # The reader, such as `head`, has seen enough.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_FAILED
  except OSError as error:
    if error.filename is None and error.errno not in OF_DISKS:
      raise
    name = file_names.shown(os.fsdecode(error.filename or "a file"))
    print(
      f"error: {name} cannot be read or written ({error.strerror}). "
      "Give a place that exists and that you may use, on a disk with room.",
      file=sys.stderr,
    )
    return EXIT_BAD_INPUT
  except KeyboardInterrupt:
    print("interrupted; the same command line goes on", file=sys.stderr)
    return 130
