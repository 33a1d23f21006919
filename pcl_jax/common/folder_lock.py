"""A folder that one process at a time writes to.

The lock is the system's (flock) on FOLDER/.lock, so that it ends with the
process however that ends; the file says who holds it and is removed at the end.
"""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import json
import os
import pathlib
import socket
import sys
import time

from pcl_jax.common import errors

FILE_NAME = ".lock"
_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def hold(folder: str | os.PathLike[str], what: str) -> Iterator[None]:
  """Holds a folder's lock for the body of a `with`.

  Where nothing can be written to the folder there is nothing to lock, and the
  body begins: writing says what is wrong. So it does, with a warning, on a disk
  that has no locks.

  Args:
    folder: made if need be; removed again at the end if the body left nothing
      in it.
    what: the command that holds it, for the message to another.

  Raises:
    InputError: another process holds it, or a part of the path is a file.
  """
  folder = pathlib.Path(folder)
  made = [one for one in (folder, *folder.parents) if not one.exists()]
  descriptor = _take(folder, what)
  try:
    yield
  finally:
    if descriptor is not None:
      # While it is still locked: who finds it gone makes another.
      with contextlib.suppress(OSError):
        (folder / FILE_NAME).unlink()
      os.close(descriptor)
    with contextlib.suppress(OSError):
      for one in made:
        one.rmdir()


def _take(folder: pathlib.Path, what: str) -> int | None:
  """Returns the locked file's descriptor, None where there can be no lock."""
  path = folder / FILE_NAME
  while True:
    try:
      descriptor = _open(path)
    except (FileExistsError, NotADirectoryError) as error:
      raise errors.InputError(
        f"{folder} is not a folder, or lies in what is none: give another."
      ) from error
    except OSError:
      return None
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      if error.errno not in _UNSUPPORTED:
        message = _message(folder, descriptor)
        os.close(descriptor)
        raise errors.InputError(message) from error
      print(
        f"warning: the disk of {folder} has no locks ({error.strerror}): see "
        "to it that no other command writes there",
        file=sys.stderr,
      )
    if _is_same(descriptor, path):
      break
    os.close(descriptor)  # Its holder has removed it in between.
  holder = {
    "process": os.getpid(),
    "host": socket.gethostname(),
    "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    "what": what,
  }
  with contextlib.suppress(
    OSError
  ):  # Another user's file: locked all the same.
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)
  return descriptor


def _open(path: pathlib.Path) -> int:
  path.parent.mkdir(parents=True, exist_ok=True)
  try:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
  except PermissionError:
    return os.open(path, os.O_RDONLY)


def _is_same(descriptor: int, path: pathlib.Path) -> bool:
  try:
    return os.path.samestat(os.fstat(descriptor), os.stat(path))
  except FileNotFoundError:
    return False


def _message(folder: pathlib.Path, descriptor: int) -> str:
  try:
    holder = json.loads(os.pread(descriptor, 4096, 0))
    who = (
      f"{holder['what']} (process {holder['process']} on {holder['host']}, "
      f"since {holder['since']})"
    )
  except (OSError, ValueError, KeyError, TypeError):
    who = "another process"  # It has begun just now.
  return (
    f"{folder} is being written to by {who}: let it end, or end it, and give "
    "this command line again; or give another folder."
  )
