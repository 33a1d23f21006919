"""Names that are the same although they are written in different ways."""

import collections
import functools
import re
import unicodedata

# Before NFKC, which takes some of these for a space and an accent.
_SAME = {ord(one): "'" for one in "`´‘’‚‛′ʹʻʼʽˈꞌ＇"}  # noqa: RUF001
_SAME |= {ord(one): '"' for one in "“”„‟″ʺ«»＂"}
_SAME |= {ord(one): "-" for one in "−⁃"}  # noqa: RUF001
_JOINERS = "\u200c\u200d"  # Scripts need them; names do not differ in them.
_SAME |= {ord(one): "" for one in _JOINERS}
_SAME |= {one: "" for one in range(0xFE00, 0xFE10)}  # Forms of emoji.
_SAME |= {ord(one): "/" for one in "\u2044\u2215\u29f8"}
_SAME[0x301C] = "~"  # What Windows has for it is no dash.
# Blanks that are neither spaces nor controls.
_BLANKS = "\u034f\u115f\u1160\u2800\u3164\uffa0"

_BYTES = re.compile("[\udc80-\udcff]")  # As Python reads a file's name.


def _visible(one: str) -> str:
  """Returns a character, a space for a kind of space, or nothing."""
  if one.isspace() or one in _BLANKS:
    return " " if one.isspace() or one == "\u2800" else ""
  kind = unicodedata.category(one)
  if kind == "Cs":
    return "\ufffd"
  return "" if kind in ("Cc", "Cf") and one not in _JOINERS else one


def _western(found: re.Match) -> str:
  """Returns what a byte of a file's name is in Western European text."""
  return bytes([ord(found[0]) - 0xDC00]).decode("cp1252", errors="replace")


def clean(name: str) -> str:
  """Returns a name with composed accents, single spaces, nothing invisible.

  Bytes of a file's name that are no UTF-8 are read as Western European ones.
  """
  if not (name.isascii() and name.isprintable()):
    name = _BYTES.sub(_western, name)
    name = "".join(map(_visible, unicodedata.normalize("NFC", name)))
  return " ".join(name.split())


@functools.lru_cache(maxsize=1 << 16)
def key(name: str) -> str:
  """Returns what two spellings of one name have in common.

  That is all but letter case, the form of accents and of wide letters, kinds of
  spaces, dashes, apostrophes and quotation marks, and characters of no width.
  Accents themselves, punctuation and articles distinguish names.
  """
  name = clean(name)
  if name.isascii():
    return name.lower().replace("`", "'")
  name = unicodedata.normalize("NFKC", name.translate(_SAME)).casefold()
  name = unicodedata.normalize("NFKC", name).translate(_SAME)
  return clean(
    "".join("-" if unicodedata.category(one) == "Pd" else one for one in name)
  )


class Spellings:
  """Counts the ways in which names are written."""

  def __init__(self):
    """Begins with no name."""
    self._counts: dict[str, collections.Counter[str]] = {}

  def add(self, name: str, of: str | None = None) -> str:
    """Counts a name; returns its key, which is `of` where that is given."""
    known = key(name) if of is None else of
    self._counts.setdefault(known, collections.Counter())[clean(name)] += 1
    return known

  def _sorted(self, known: str) -> dict[str, int]:
    """Returns the spellings of a key, the most frequent first."""
    counts = self._counts[known].items()
    return dict(sorted(counts, key=lambda one: (-one[1], one[0])))

  def shown(self, known: str) -> str:
    """Returns the most frequent spelling of a key, of several the first."""
    return next(iter(self._sorted(known)))

  def merged(self) -> dict[str, dict[str, int]]:
    """Returns the names of several spellings: shown -> spelling -> count."""
    return {
      self.shown(one): self._sorted(one)
      for one in sorted(self._counts)
      if len(self._counts[one]) > 1
    }
