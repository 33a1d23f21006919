"""Names of files: bytes underneath, text for people.

A name is a string as Python lists it: a byte that is no text stands in it as a
lone surrogate (`os.fsdecode`), so that the name opens its file. UTF-8 holds no
surrogates, so whoever shows or writes a name takes a function of this module.
"""

import codecs
import contextlib
import io
import os
import pathlib
import re
import sys

_Name = str | os.PathLike[str]

# Control characters, separators of lines, and halves of characters.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_HANDLER = "pcl_jax.shown"


def path(text: _Name) -> pathlib.Path:
  """Returns a path as a person gives it; `~` is the user's folder."""
  # pathlib's own method raises where there is no such user, and this one where
  # there cannot be.
  with contextlib.suppress(ValueError):
    text = os.path.expanduser(text)
  return pathlib.Path(text)


def _escaped(character: str) -> str:
  r"""Returns \xe9 for a byte that is no text, else Python's own escape."""
  code = ord(character)
  if 0xDC80 <= code <= 0xDCFF:
    return f"\\x{code - 0xDC00:02x}"
  return character.encode("unicode_escape").decode("ascii")


def shown(name: _Name) -> str:
  r"""Returns a name as one line of text, which people read.

  Bytes that are no text, line breaks and other control characters become
  escapes, as in caf\xe9 and two\nlines.
  """
  return _UNSEEN.sub(lambda found: _escaped(found[0]), os.fspath(name))


def to_text(name: str) -> tuple[str, bytes | None]:
  """Returns a name as text for a file in UTF-8, and its bytes if it is none.

  A name of UTF-8 is its own text; of any other, the text is what `shown` gives,
  and only the bytes say which name it is.
  """
  content = os.fsencode(name)
  try:
    return content.decode("utf-8"), None
  except UnicodeDecodeError:
    return shown(content.decode("utf-8", "surrogateescape")), content


def is_text(name: str) -> bool:
  """Tells whether a name's bytes are UTF-8; one that no file has is no text."""
  try:
    return to_text(name)[1] is None
  except UnicodeEncodeError:
    return False


def from_text(text: str, content: bytes | None) -> str:
  """Returns the name of which `to_text` made this."""
  return os.fsdecode(text.encode("utf-8") if content is None else content)


def _escape_rest(error: UnicodeError) -> tuple[str, int]:
  if not isinstance(error, UnicodeEncodeError):
    raise error
  rest = error.object[error.start : error.end]
  return "".join(map(_escaped, rest)), error.end


def print_any_text() -> None:
  """Lets stdout and stderr escape what their encoding has no code for.

  It is the terminal's encoding, or for a pipe what the locale says.
  """
  codecs.register_error(_HANDLER, _escape_rest)
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors=_HANDLER)
