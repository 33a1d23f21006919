"""The packages that a data set of free music is made of."""

import dataclasses
import pathlib
import re
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


_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")  # Debian's rule.


def _check(path: pathlib.Path, number: int, package: Package) -> None:
  """Raises InputError where a value is none; names are those of folders."""
  effects = package.music_among_effects
  texts = isinstance(effects, list | tuple) and all(
    isinstance(one, str) for one in effects
  )
  wrong = [] if texts else [("music_among_effects", "a list of texts")]
  for field in ("version", "sha256", "licence"):
    if not isinstance(getattr(package, field), str):
      wrong.append((field, "a text"))
  for field in ("name", "scenarios_with"):
    value = getattr(package, field)
    fits = isinstance(value, str) and _NAME.fullmatch(value)
    if not fits and (field == "name" or value != ""):
      wrong.append((field, "a package's name, as `game-data`"))
  if wrong:
    field, rule = wrong[0]
    raise errors.InputError(
      f"{path}: in package {number} {field} is {getattr(package, field)!r}; "
      f"it must be {rule}."
    )


def read(path: pathlib.Path = DEFAULT) -> list[Package]:
  """Reads a list of packages.

  Raises:
    InputError: it cannot be read, or an entry lacks a value, or has others or
      bad ones.
  """
  try:
    tables = tomllib.loads(path.read_text(encoding="utf-8"))["package"]
    found = [Package(**table) for table in tables]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.InputError(
      f"{path} is no list of packages ({error}): give one as "
      f"{DEFAULT} is, with name, version, sha256 and licence of each."
    ) from error
  for number, package in enumerate(found, 1):
    _check(path, number, package)
  names = [one.name for one in found]
  if not found or len(set(names)) < len(names):
    raise errors.InputError(
      f"{path} has no package, or one twice: name each package once."
    )
  return found
