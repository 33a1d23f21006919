"""Bundles from a model hub, by addresses such as hf://user/name@revision."""

import pathlib
import re

from pcl_jax.common import errors

PREFIX = "hf://"
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def is_address(place: object) -> bool:
  """Tells whether a place is an address of a hub, not a folder."""
  return isinstance(place, str) and place.startswith(PREFIX)


def check_folder(place: object) -> None:
  """Raises InputError where a folder is needed, and a place is an address."""
  if str(place).startswith("hf:/"):  # A path has lost one stroke.
    raise errors.InputError(
      f"{place} is an address, and this command needs a folder: download it, "
      "for example by `hf download USER/NAME --local-dir=FOLDER`."
    )


def download(address: str, files: tuple[str, ...]) -> tuple[pathlib.Path, str]:
  """Downloads some files of a repository, or finds them where they are kept.

  Args:
    address: hf://USER/NAME, with @REVISION for a branch, tag or commit.
    files: names.

  Returns:
    The folder, and the address with the commit.

  Raises:
    InputError: the address is none, the library is not installed, or there is
      no such repository, no access or no connection.
  """
  found = _ADDRESS.fullmatch(address)
  if found is None:
    raise errors.InputError(
      f"{address} is no address of a hub: give hf://USER/NAME, or "
      "hf://USER/NAME@REVISION."
    )
  try:
    import huggingface_hub
  except ImportError as error:
    raise errors.InputError(
      f"{address} needs the package huggingface_hub: install it with pip "
      'install "pcl_jax[hub]".'
    ) from error
  name, revision = found.groups()
  try:
    folder = huggingface_hub.snapshot_download(
      name, revision=revision, allow_patterns=list(files)
    )
  except Exception as error:  # Errors of its HTTP client come through too.
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise errors.InputError(
      f"{address} cannot be downloaded ({reason[:200]}): check the name and "
      "the connection, and log in with `hf auth login` where it is private."
    ) from error
  path = pathlib.Path(folder)
  return path, f"{PREFIX}{name}@{path.name}"
