"""The audio files of a folder of music."""

import codecs
import collections
from collections.abc import Iterable, Iterator
import dataclasses
import functools
import os
import pathlib

from pcl_jax.audio import decode
from pcl_jax.common import file_names
from pcl_jax.library import playlist_files

IDS = "song_ids.json"  # Path -> id of each song of an own library.
SOUND = frozenset(  # Suffixes of files that are sound, or are named as damaged.
  ".wav .wave .flac .ogg .oga .opus .mp3 .mp2 .aif .aiff .aifc .au .snd .caf "
  ".w64 .rf64 .m4a .m4b .aac .wma .alac .ape .wv .mpc .tta .dsf .dff .ra .mka "
  ".ac3 .amr .tak".split()
)
_NOT_THERE = (-1, -1)
_HEAD_BYTES = 512
_SHOWN, _SHOWN_KINDS = 3, 10
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"%PDF", b"PK\3\4", b"BM")

Stamp = tuple[int, int]  # A file's length in bytes, its time of change in ns.


@dataclasses.dataclass(frozen=True)
class Found:
  """What a folder holds.

  Attributes:
    sound: paths of the audio files, relative to the folder, with '/', sorted.
    others: suffix -> how many files are no sound.
    hidden: paths passed over, since their names begin with a dot, that have the
      suffix of sound or are folders.
    closed: folders, and files without a suffix of sound, that cannot be read.
  """

  sound: list[str]
  others: dict[str, int]
  hidden: list[str]
  closed: list[str]

  def passed_over(self) -> str:
    """Describes in one line what is not used; empty if there is nothing."""
    parts = []
    if self.others:
      kinds = [f"{one or 'no suffix'} {n}" for one, n in self.others.items()]
      more = ["..."] if len(kinds) > _SHOWN_KINDS else []
      kinds = ", ".join(kinds[:_SHOWN_KINDS] + more)
      parts.append(f"{sum(self.others.values())} that are no sound ({kinds})")
    for paths, words in (
      (self.hidden, "whose names begin with a dot"),
      (self.closed, "that cannot be read"),
    ):
      if paths:
        more = ", ..." if len(paths) > _SHOWN else ""
        parts.append(
          f"{len(paths)} {words} ({', '.join(paths[:_SHOWN])}{more})"
        )
    text = f"files passed over: {', '.join(parts)}" if parts else ""
    return file_names.shown(text)


def _is_hidden(name: str) -> bool:
  return name[0] == "." and not name.startswith("...")  # "...And Justice".


def _suffix(name: str) -> str:
  return os.path.splitext(name)[1].lower()


def _walk(
  root: str, hidden: list[str], closed: list[str]
) -> Iterator[tuple[str, os.DirEntry]]:
  """Yields the files of a folder and their paths in it.

  Links to folders are followed after all else, so that a folder goes by its own
  path if it has one; each is visited once.
  """
  todo, links, seen = [("", root)], collections.deque(), set()
  while todo or links:
    relative, folder = todo.pop() if todo else links.popleft()
    real = os.path.realpath(folder)
    if real in seen:
      continue
    seen.add(real)
    try:
      with os.scandir(folder) as found:
        entries = sorted(found, key=lambda one: one.name)
    except OSError:
      closed.append(relative.rstrip("/") or ".")
      continue
    for one in entries:
      path = relative + one.name
      if _is_hidden(one.name):
        if os.path.isdir(one.path) or _suffix(one.name) in SOUND:
          hidden.append(path)
      elif os.path.isdir(one.path):
        place = (path + "/", one.path)
        links.append(place) if one.is_symlink() else todo.append(place)
      else:
        yield path, one


def _is_text(head: bytes) -> bool:
  try:
    text = codecs.getincrementaldecoder("utf-8")().decode(head)
  except UnicodeDecodeError:
    return False
  return text.isprintable() or all(
    one.isprintable() or one.isspace() for one in text
  )


@functools.cache
def _holds_sound(path: str, known: Stamp) -> bool:
  """Returns whether a file that no suffix speaks for holds sound."""
  del known  # It is judged again when it has changed.
  try:
    with open(path, "rb") as file:
      head = file.read(_HEAD_BYTES)
  except OSError:  # It has gone meanwhile, or the disk fails.
    return False
  if not head or head.startswith(_PICTURES) or _is_text(head):
    return False
  return bool(decode.probe(path))


def look_through(folder: pathlib.Path) -> Found:
  """Looks for audio files anywhere in a folder.

  Files with the suffix of sound are taken without a look inside, those of
  playlists are passed over; of all others the content decides.

  Args:
    folder: where to look. Names that begin with a dot are passed over, links to
      folders are followed, and each folder is visited once, by its own path if
      that lies in `folder`.
  """
  hidden, closed, sound = [], [], []
  others: collections.Counter[str] = collections.Counter()
  for path, one in _walk(os.fspath(folder), hidden, closed):
    suffix = _suffix(one.name)
    if suffix in SOUND:
      sound.append(path)
    elif suffix not in playlist_files.SUFFIXES:
      if not os.path.isfile(one.path):
        others[suffix] += 1
      elif not os.access(one.path, os.R_OK):
        closed.append(path)
      elif _holds_sound(one.path, stamp(one.path)):
        sound.append(path)
      else:
        others[suffix] += 1
  return Found(sorted(sound), dict(others.most_common()), hidden, closed)


def find_files(folder: pathlib.Path, suffixes: Iterable[str]) -> list[str]:
  """Lists the files with some suffixes, found as `look_through` does.

  Args:
    folder: where to look.
    suffixes: as '.m3u', in lower case; names may have them in any case.

  Returns:
    Paths relative to the folder, with '/', sorted.
  """
  wanted = frozenset(suffixes)
  found = _walk(os.fspath(folder), [], [])
  return sorted(path for path, one in found if _suffix(one.name) in wanted)


def stamp(path: str | os.PathLike[str]) -> Stamp:
  """Returns a file's stamp; that of a link that leads nowhere is (-1, -1)."""
  try:
    known = os.stat(path)
  except OSError:
    return _NOT_THERE
  return known.st_size, known.st_mtime_ns


def stamps(folder: pathlib.Path, paths: Iterable[str]) -> dict[str, Stamp]:
  """Returns the stamps of files of a folder: path -> stamp."""
  return {path: stamp(folder / path) for path in paths}


def sound_stamps(folder: pathlib.Path) -> dict[str, Stamp]:
  """Returns the audio files of a folder, and the stamp of each."""
  return stamps(folder, look_through(folder).sound)


def playlist_stamps(folder: pathlib.Path) -> dict[str, Stamp]:
  """Returns the playlist files of a folder, and the stamp of each."""
  return stamps(folder, find_files(folder, playlist_files.SUFFIXES))
