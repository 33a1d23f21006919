"""Files that are whole or absent, and what is compared about them."""

from collections.abc import Iterator, Mapping
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from typing import Any

from pcl_jax.common import errors

PARTIAL = ".partial"  # Suffix of a file that is being written.


@contextlib.contextmanager
def write_aside(
  path: str | os.PathLike[str], *, durable: bool = False
) -> Iterator[pathlib.Path]:
  """Yields a path to write to, `path`.partial, and renames it at the end.

  A reader never sees half a file, and an error leaves the old file as it was. A
  durable file survives a loss of power.
  """
  path = pathlib.Path(path)
  partial = path.with_name(path.name + PARTIAL)
  try:
    yield partial
    if durable:
      with open(partial, "rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
  except BaseException as error:
    partial.unlink(missing_ok=True)
    if isinstance(error, OSError) and error.filename is None:
      if error.errno in errors.OF_DISKS:
        error.filename = os.fspath(path)
    raise


def write_text(
  path: str | os.PathLike[str], text: str, *, durable: bool = False
) -> None:
  """Writes a text file in UTF-8, as `write_aside` does."""
  with write_aside(path, durable=durable) as partial:
    partial.write_text(text, encoding="utf-8")


def write_json(
  path: str | os.PathLike[str],
  value: Any,
  *,
  indent: int | None = 2,
  durable: bool = False,
) -> None:
  """Writes plain values as json in UTF-8, as `write_aside` does.

  Raises:
    ValueError: a number is not finite, for which json has no form.
  """
  write_text(path, json_text(value, indent), durable=durable)


def json_text(value: Any, indent: int | None = 2) -> str:
  """Returns plain values as json, with a line break at its end.

  Raises:
    ValueError: a number is not finite, for which json has no form.
  """
  text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
  if not text.isascii() and "\\ud" in ascii(text):
    # A file name that is not UTF-8 holds surrogates, which UTF-8 cannot.
    text = json.dumps(value, indent=indent, allow_nan=False)
  return text + "\n"


def read_json(path: str | os.PathLike[str]) -> Any:
  """Returns the content of a json file; raises OSError or ValueError."""
  return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))


def read_made_json(path: str | os.PathLike[str]) -> Any:
  """Reads json that one of the commands made for a data set.

  Raises:
    InputError: the file cannot be read, or holds no json.
  """
  try:
    return read_json(path)
  except (OSError, ValueError) as error:
    raise errors.InputError(
      f"{path} cannot be read ({error}). Copy it again, or delete the data "
      "set's folder and make it again."
    ) from error


def check_free(path: pathlib.Path, *, force: bool, suffix: str = "") -> None:
  """Raises InputError where a file may not be written or is named otherwise."""
  if suffix and path.suffix != suffix:
    raise errors.InputError(
      f"{path} does not end in {suffix}: give such an --out."
    )
  if os.path.lexists(path) and not (force and path.is_file()):
    raise errors.InputError(
      f"{path} exists: give another --out, or --force to replace a file."
    )


def check_writable(path: str | os.PathLike[str], remedy: str) -> None:
  """Refuses a file that cannot be written, before the work for it is done.

  Its folder is made.

  Args:
    path: of the file, which may be there.
    remedy: what the user should give in its place.

  Raises:
    InputError: the path is a folder, or its folder cannot be written to.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    raise errors.InputError(f"{path} is a folder, not a file: {remedy}.")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
      pass
  except OSError as error:
    raise errors.InputError(
      f"{path} cannot be written ({error.strerror}): {remedy}."
    ) from error


def link_or_copy(
  path: str | os.PathLike[str], target: str | os.PathLike[str]
) -> None:
  """Gives a file a second name; where there are no links, copies it."""
  try:
    os.link(path, target)
  except OSError:
    shutil.copyfile(path, target)


def sha256(path: str | os.PathLike[str]) -> str:
  """Returns the SHA-256 of a file's bytes, in hexadecimal."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def differences(
  there: Mapping[str, Any], here: Mapping[str, Any], place: str = "there"
) -> list[str]:
  """Describes settings that differ, by key, each as `KEY: PLACE 3, here 4`."""
  return [
    f"{key}: {place} {there.get(key)!r}, here {here.get(key)!r}"
    for key in sorted(there.keys() | here.keys())
    if there.get(key) != here.get(key)
  ]
