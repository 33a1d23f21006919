"""The packages that a data set of free music is made of."""

import dataclasses
import pathlib
import tomllib

from pcl_jax.common import errors

DEFAULT = pathlib.Path(__file__).with_name("packages.toml")


@dataclasses.dataclass(frozen=True)
class Package:
  """A Debian package with music; packages.toml says what each value is."""

  name: str
  version: str
  sha256: str
  licence: str
  music_among_effects: tuple[str, ...] = ()
  scenarios_with: str = ""


def read(path: pathlib.Path = DEFAULT) -> list[Package]:
  """Reads a list of packages.

  Raises:
    InputError: it cannot be read, or an entry lacks a value or has others.
  """
  try:
    tables = tomllib.loads(path.read_text(encoding="utf-8"))["package"]
    found = [Package(**table) for table in tables]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.InputError(
      f"{path} is no list of packages ({error}): give one as "
      f"{DEFAULT} is, with name, version, sha256 and licence of each."
    ) from error
  names = [one.name for one in found]
  if not found or len(set(names)) < len(names):
    raise errors.InputError(
      f"{path} has no package, or one twice: name each package once."
    )
  return found
