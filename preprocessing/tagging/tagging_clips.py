"""Clips with tags and a split, as the lists of a published set have them."""

from collections.abc import Iterable
import dataclasses
import hashlib
import json
import pathlib

from pcl_jax.common import errors
from pcl_jax.data import catalogues

SPLITS = {
  catalogues.TRAIN: "train",
  catalogues.VALIDATION: "validation",
  catalogues.TEST: "test",
}
WHOLE = "whole"
CENTRE = "centre"
CENTRE_S = 29.1


@dataclasses.dataclass(frozen=True)
class Clip:
  """One row of a set's lists.

  Attributes:
    id: the id that the set has for it.
    path: the path of its audio in the lists.
    split: TRAIN, VALIDATION or TEST.
    labels: columns of its tags, ascending.
    from_s: the begin of the part of the audio that is used.
    to_s: the end of that part; None for the file's end.
  """

  id: str
  path: str
  split: int
  labels: tuple[int, ...]
  from_s: float = 0.0
  to_s: float | None = None


@dataclasses.dataclass(frozen=True)
class ClipList:
  """What the lists of a set say, before any audio is looked for.

  Attributes:
    name: set and split: a score means nothing without them.
    part: which part of the audio is used, WHOLE or CENTRE.
    tags: the name of each column.
    clips: the clips of the split, in the order of the lists.
    published: how many clips the published split has, where these lists are
      not of the published length; else None.
    excluded: reason -> paths of the clips that the split leaves out by rule.
    may_lack: ids of clips that public copies are known to have damaged.
    min_frames: a clip with fewer frames is left out by rule.
    single_label: whether each clip has exactly one tag.
  """

  name: str
  part: str
  tags: tuple[str, ...]
  clips: tuple[Clip, ...]
  published: int | None = None
  excluded: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
  may_lack: frozenset[str] = frozenset()
  min_frames: int = 0
  single_label: bool = False

  def digest(self) -> str:
    """Returns a sha256 of all that decides what is prepared."""
    content = dataclasses.asdict(self)
    content["may_lack"] = sorted(self.may_lack)
    # The name that finished sets have in their digests.
    content["one_each"] = content.pop("single_label")
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_lines(path: pathlib.Path) -> list[str]:
  r"""Reads the lines of a list, ended by \n, \r\n or \r; no blank ones.

  Raises:
    InputError: the file is absent, not text in UTF-8, or empty.
  """
  try:
    text = path.read_bytes().decode("utf-8-sig")
  except FileNotFoundError as error:
    raise errors.InputError(
      f"there is no file {path}: give the folder of the lists as --lists."
    ) from error
  except UnicodeDecodeError as error:
    raise errors.InputError(
      f"{path} is not text in UTF-8 ({error}). Get the file again."
    ) from error
  # Not splitlines, which also ends lines at characters that names may have.
  lines = text.replace("\r", "\n").split("\n")
  lines = [line.rstrip(" ") for line in lines if line.strip()]
  if not lines:
    raise errors.InputError(f"{path} is empty. Get the file again.")
  return lines


def check(clips: Iterable[Clip], where: str) -> None:
  """Refuses clips of `where` that come twice, and splits without a clip."""
  ids, paths, splits = {}, {}, set()
  for clip in clips:
    for kind, seen, key in (("id", ids, clip.id), ("path", paths, clip.path)):
      if key in seen:
        both = f"{SPLITS[seen[key]]} and {SPLITS[clip.split]}"
        raise errors.InputError(
          f"{where}: the {kind} {key!r} is there twice (in {both}). A clip "
          "belongs to one split and has one row: get the lists again."
        )
      seen[key] = clip.split
    splits.add(clip.split)
  for split, name in SPLITS.items():
    if split not in splits:
      raise errors.InputError(
        f"{where}: no clip is in the split {name}. Get the lists again."
      )
