"""Names that stand where there is no name: `Unknown Artist`, `VA`, `Other`."""

from collections.abc import Iterable
import pathlib
import re
import tomllib

from pcl_jax.library import name_keys

BUILT_IN = "+"  # Stands for the built-in names in a list that people give.
_LISTS = tomllib.loads(
  pathlib.Path(__file__).with_name("known_names.toml").read_text("utf-8")
)
# "Unknown Artist 2", "Unknown Album (3-12-2009 2-41-33 PM)".
_NUMBER = re.compile(r"[\s(\[{_-]*\d[\d\s:/_-]*(?:[ap]m)?[)\]}]*\Z")
_MOST_CHARS = 100
_BRACKETS = "[](){}<>"


def _key(name: str) -> str:
  return name_keys.key(name).replace(".", "")


class Placeholders:
  """A list of names that are none."""

  def __init__(self, kind: str, names: Iterable[str] = (BUILT_IN,)):
    """Takes a list.

    Args:
      kind: which built-in list: artists, albums, genres, folders or sections.
      names: the names; `BUILT_IN` stands for that list.
    """
    names = list(names)
    # Folders of a game may be called Game 1, those of an artist not Various 1.
    self._numbered = kind in ("artists", "albums", "genres")
    names += _LISTS[kind] if BUILT_IN in names else []
    self._keys = {_key(one) for one in names if one != BUILT_IN} - {""}

  def __contains__(self, name: str) -> bool:
    """Returns whether a name is none: bare, in brackets, or numbered."""
    known = _key(name)
    if len(known) > _MOST_CHARS:
      return False
    spellings = {known, known.strip(_BRACKETS).strip()}
    number = _NUMBER.search(known)
    if number and self._numbered:
      spellings.add(known[: number.start()].strip(_BRACKETS).strip())
    return not spellings.isdisjoint(self._keys)
