"""A folder that one process at a time writes to.

The lock is the system's, on FOLDER/.lock, so it ends with the process however
that ends. FOLDER/.lock.holder says who holds it. Both are removed at the end.
"""

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import socket
import sys
import time

import filelock

from pcl_jax.common import errors
from pcl_jax.common import storage

FILES = _LOCK, _HOLDER = ".lock", ".lock.holder"
_WAIT_S = 0.5  # A holder that ends may be removing the file just now.


@contextlib.contextmanager
def hold(
  folder: str | os.PathLike[str], what: str, *, wait: bool = False
) -> Iterator[None]:
  """Holds a folder's lock for the body of a `with`.

  The body also begins where nothing can be written to the folder, since
  writing then says what is wrong, and, with a warning, on a disk without locks.

  A folder that did not exist is made, and removed if it is empty at the end.
  `what` names the command that holds it, for the message to another. With
  `wait`, another one that holds it is waited for, however long it takes.

  Raises:
    InputError: another process holds it, or a part of the path is a file.
  """
  folder = pathlib.Path(folder)
  # The mode lets other users of a shared folder lock the file that stays behind
  # when a process is killed.
  wait_s = -1 if wait else _WAIT_S
  lock = filelock.FileLock(
    folder / _LOCK, wait_s, mode=0o666, fallback_to_soft=False
  )
  made: list[pathlib.Path] = []
  _take(lock, folder, what, made)
  try:
    yield
  finally:
    with contextlib.suppress(OSError):
      if lock.is_locked:
        for name in FILES:  # While it is still locked.
          (folder / name).unlink(missing_ok=True)
    lock.release()
    with contextlib.suppress(OSError):
      for one in made:
        one.rmdir()


def _acquire(
  lock: filelock.FileLock, folder: pathlib.Path, made: list[pathlib.Path]
) -> None:
  """Makes a folder, adds what was made of its path to a list, and locks it."""
  while True:
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    made += [one for one in new if one not in made]
    folder.mkdir(parents=True, exist_ok=True)
    try:
      lock.acquire()
      return
    except FileNotFoundError:  # The holder has ended, and removed the folder.
      if folder.exists():
        raise


def _take(
  lock: filelock.FileLock,
  folder: pathlib.Path,
  what: str,
  made: list[pathlib.Path],
) -> None:
  try:
    _acquire(lock, folder, made)
  except (FileExistsError, NotADirectoryError) as error:
    raise errors.InputError(
      f"{folder} is not a folder, or lies below a file: give another."
    ) from error
  except filelock.Timeout as error:
    raise errors.InputError(
      f"{folder} is being written to by {_holder(folder)}: let it end, or end "
      "it, and give this command line again; or give another folder."
    ) from error
  except OSError as error:
    if os.access(folder, os.W_OK):
      print(
        f"warning: {folder} cannot be locked ({error.strerror}): make sure "
        "that no other command writes there",
        file=sys.stderr,
      )
  else:
    holder = {
      "process": os.getpid(),
      "host": socket.gethostname(),
      "since": time.strftime("%Y-%m-%d %H:%M:%S"),
      "what": what,
    }
    with contextlib.suppress(OSError):  # The lock holds without it.
      (folder / _HOLDER).write_text(json.dumps(holder))


def _holder(folder: pathlib.Path) -> str:
  try:
    holder = storage.read_json(folder / _HOLDER)
    return (
      f"{holder['what']} (process {holder['process']} on {holder['host']}, "
      f"since {holder['since']})"
    )
  except (OSError, ValueError, KeyError, TypeError):
    return "another process"  # It has begun just now.
