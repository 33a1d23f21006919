"""Which clips of a set's lists a folder of audio has."""

from collections.abc import Iterable
import dataclasses
import pathlib

from pcl_jax.common import errors
from pcl_jax.library import library_files
from preprocessing.tagging import tagging_clips

_LOW = ".low"  # MTG-Jamendo's smaller files are called 948.low.mp3.
SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Coverage:
  """Clips and files, matched.

  Attributes:
    files: id of a clip -> its file, relative to the folder.
    missing: clips without a file.
    without_labels: files that the lists do not have.
  """

  files: dict[str, str]
  missing: tuple[tagging_clips.Clip, ...]
  without_labels: tuple[str, ...]


def key_of(path: str) -> str:
  """Returns what a clip's path and its file have in common.

  That is the folder it lies in and its name without suffix: copies differ in
  the folders above and in the audio format.
  """
  folder, _, name = path.rpartition("/")
  stem = name.rpartition(".")[0] or name
  return f"{folder.rpartition('/')[2]}/{stem.removesuffix(_LOW)}"


def cover(source: pathlib.Path, clip_list: tagging_clips.ClipList) -> Coverage:
  """Looks for the audio of all clips.

  Args:
    source: folder with audio files anywhere in it.
    clip_list: the set's lists.

  Raises:
    InputError: the folder is absent, has none of the clips, or has a clip in
      two files.
  """
  if not source.is_dir():
    raise errors.InputError(
      f"{source} is not a folder: give the folder of the set's audio as "
      "--source."
    )
  found: dict[str, list[str]] = {}
  for path in library_files.find_files(source, library_files.SOUND):
    found.setdefault(key_of(path), []).append(path)
  files, missing = {}, []
  for clip in clip_list.clips:
    paths = found.get(key_of(clip.path), [])
    if len(paths) > 1:
      raise errors.InputError(
        f"{source} has the clip {clip.path} in {len(paths)} files, "
        f"{paths[0]} and {paths[1]}: give the folder of one copy as --source."
      )
    if paths:
      files[clip.id] = paths[0]
    else:
      missing.append(clip)
  if not files:
    raise errors.InputError(
      f"{source} has none of the {len(clip_list.clips)} clips of "
      f"{clip_list.name}; looked for files named like "
      f"{clip_list.clips[0].path}, in any audio format and at any depth, and "
      f"found {sum(map(len, found.values()))} other audio files. Give the "
      "folder of the set's audio as --source."
    )
  known = {key_of(clip.path) for clip in clip_list.clips}
  for paths in clip_list.excluded.values():
    known |= {key_of(path) for path in paths}
  others = [p for key, some in found.items() if key not in known for p in some]
  return Coverage(files, tuple(missing), tuple(sorted(others)))


def shown(names: Iterable[str]) -> str:
  """Names the first few of many, and says how many more there are."""
  names = list(names)
  more = len(names) - SHOWN
  return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
