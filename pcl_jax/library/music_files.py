"""The audio files of a folder of music."""

from collections.abc import Iterable
import os
import pathlib

IDS = "song_ids.json"  # Path -> id of each song of an own library.
SOUND = (  # Suffixes; what cannot be decoded is named with the reason.
  ".wav .wave .flac .ogg .oga .opus .mp3 .mp2 .aif .aiff .aifc .au .snd .caf "
  ".w64 .rf64 .m4a .m4b .aac .wma .alac .ape .wv .mpc .tta .dsf .dff .ra .mka "
  ".ac3 .amr .tak"
).split()
_NOT_THERE = (-1, -1)

Stamp = tuple[int, int]  # A file's length in bytes, its time of change in ns.


def find_files(folder: pathlib.Path, suffixes: Iterable[str]) -> list[str]:
  """Lists the files with some suffixes anywhere in a folder.

  Args:
    folder: where to look; names that begin with a dot are passed over, links
      to folders are followed, and each folder is visited once.
    suffixes: as '.mp3', in any case.

  Returns:
    Paths relative to the folder, with '/', sorted.
  """
  wanted = {suffix.lower() for suffix in suffixes}
  seen, found = set(), []
  for root, folders, files in os.walk(folder, followlinks=True):
    real = os.path.realpath(root)
    if real in seen:
      folders.clear()
      continue
    seen.add(real)
    folders[:] = sorted(name for name in folders if name[0] != ".")
    relative = pathlib.Path(root).relative_to(folder)
    found += [
      (relative / name).as_posix()
      for name in files
      if name[0] != "." and os.path.splitext(name)[1].lower() in wanted
    ]
  return sorted(found)


def stamp(path: str | os.PathLike[str]) -> Stamp:
  """Returns a file's stamp; that of a link that leads nowhere is (-1, -1)."""
  try:
    known = os.stat(path)
  except OSError:
    return _NOT_THERE
  return known.st_size, known.st_mtime_ns


def stamps(folder: pathlib.Path, suffixes: Iterable[str]) -> dict[str, Stamp]:
  """Returns the files with some suffixes, and the stamp of each."""
  return {path: stamp(folder / path) for path in find_files(folder, suffixes)}
