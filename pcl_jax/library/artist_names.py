"""Single artists in what tags call the artist.

Taggers may list the artists one by one (the tag ARTISTS). Where they do not,
`A feat. B` and `A; B` are always two, and `A & B` is two only where both are
artists by themselves somewhere in the library: `Simon & Garfunkel`, `AC/DC`
and `Earth, Wind & Fire` stay one.
"""

from collections.abc import Iterable, Set
import re

from pcl_jax.library import name_keys

RULES = ("known", "always", "never")
_SAFE = re.compile(r"[;\0]")
_GUEST = re.compile(
  r"[\s,]*[(\[]\s*(?:feat|ft|featuring)\b\.?\s*([^)\]]*)[)\]]"
  r"|[\s,]+(?:feat|ft|featuring)\b\.?\s+",
  re.I,
)
# Between two artists, or inside the name of one.
_BETWEEN = re.compile(
  r"\s+(?:[&+×]|x|vs\.?|and|und|et|y|e|with|con|mit|avec|meets)\s+"
  r"|\s*[,、]\s*(?:(?:&|and)\s+)?|\s*/\s*",
  re.I,
)
_MOST_CUTS = 50


def split_values(values: Iterable[str], pattern: re.Pattern) -> list[str]:
  """Splits values; drops blanks, and repetitions in any spelling."""
  found: dict[str, str] = {}
  for value in values:
    for part in pattern.split(value):
      part = name_keys.clean(part or "")
      if part:
        found.setdefault(name_keys.key(part), part)
  return list(found.values())


def listed(values: Iterable[str], display: Iterable[str]) -> list[str]:
  """Returns the artists that the tag ARTISTS lists.

  Args:
    values: what stands in it. Old taggers join several by '/'; they are told
      from a name with that sign by what is displayed.
    display: the values of the tag ARTIST.
  """
  whole = name_keys.key("\n".join(display))
  found = []
  for value in split_values(values, _SAFE):
    parts = value.split("/")
    while parts:
      ends = range(len(parts), 0, -1)
      joined = ["/".join(parts[:end]).strip() for end in ends]
      # The longest that is displayed, or else the rest as it stands.
      end, name = next(
        (
          pair
          for pair in zip(ends, joined, strict=True)
          if pair[1] and name_keys.key(pair[1]) in whole
        ),
        (len(parts), joined[0]),
      )
      found.append(name)
      parts = parts[end:]
  return split_values(found, _SAFE)


def without_guests(values: Iterable[str], rule: str = "known") -> list[str]:
  """Splits values where two artists are meant for certain.

  Args:
    values: those of the tag ARTIST.
    rule: one of `RULES`; with `never`, guests (`feat.`) are not split off.
  """
  found = split_values(values, _SAFE)
  return found if rule == "never" else split_values(found, _GUEST)


def known_names(names: Iterable[str]) -> set[str]:
  """Returns the keys of names, without those that consist of the others."""
  found = {name_keys.key(name): name for name in names}
  return {key for key, name in found.items() if not _parts(name, found.keys())}


def single(names: Iterable[str], known: Set[str], rule: str) -> list[str]:
  """Splits names that hold several artists.

  Args:
    names: as `without_guests` returns them.
    known: the `known_names` of the library.
    rule: `known` splits where every part is in `known`, `always` at every sign
      that may stand between artists, `never` nowhere.
  """
  found = []
  for name in names:
    parts = _parts(name, known) if rule == "known" else []
    if rule == "always":
      parts = _BETWEEN.split(name)
    found += parts or [name]
  return split_values(found, _SAFE)


def _parts(name: str, known: Set[str]) -> list[str]:
  """Returns the fewest known names that a name consists of, or nothing."""
  cuts = [match.span() for match in _BETWEEN.finditer(name)]
  if len(cuts) > _MOST_CUTS:
    return []
  starts = [0] + [end for _, end in cuts]
  stops = [start for start, _ in cuts] + [len(name)]
  # best[i]: the names that the text from the i-th start on consists of.
  best: list[list[str] | None] = [None] * len(starts) + [[]]
  for first in reversed(range(len(starts))):
    for last in range(first, len(starts)):
      part, rest = name[starts[first] : stops[last]], best[last + 1]
      whole = first == 0 and last == len(starts) - 1
      if whole or rest is None or name_keys.key(part) not in known:
        continue
      if best[first] is None or len(best[first]) > len(rest) + 1:
        best[first] = [part, *rest]
  return best[0] or []
