"""MagnaTagATune's annotations: two splits of the same partition, always named.

In both, clips whose path begins with 0 to b are training, c validation and d to
f testing, and both use the 50 most frequent tags. 25k keeps clips without any
of them; 21k leaves out those and clips of 29.1 s or less. The scores of one
embedding on the two differ by several points.
"""

import csv
import pathlib
import re

import numpy as np

from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.data import catalogues
from preprocessing.tagging import tagging_clips

NAME = "magnatagatune"
FILE = "annotations_final.csv"
VARIANTS = ("25k", "21k")
NUM_TAGS = 50
# Missing, or no audio, in the published archive.
BAD_CLIPS = ("35644", "55753", "57881")
PUBLISHED_ROWS = 25_863
PUBLISHED = {"25k": PUBLISHED_ROWS - len(BAD_CLIPS), "21k": 21_108}
_BAD = "missing or corrupt in the published archive"
_UNTAGGED = "none of the 50 tags"
_SHORTEST_S = 29.1
_PATH = re.compile(r"([0-9a-f])/[^/]+\.mp3")
_SPLIT_OF = dict.fromkeys("0123456789ab", catalogues.TRAIN) | {
  "c": catalogues.VALIDATION,
  "d": catalogues.TEST,
  "e": catalogues.TEST,
  "f": catalogues.TEST,
}

_Rows = tuple[list[str], list[tuple[str, str, list[str]]]]


def _check_header(path: pathlib.Path, header: list[str]) -> None:
  tags = header[1:-1]
  if header[0] != "clip_id" or header[-1] != "mp3_path":
    raise errors.InputError(
      f"{path} begins with the columns {header[0][:20]!r} to "
      f"{header[-1][:20]!r}; {FILE} of MagnaTagATune has clip_id, one column "
      "for each tag and mp3_path, separated by tabs. Get the file again."
    )
  repeated = sorted({tag for tag in tags if tags.count(tag) > 1})
  if repeated or len(tags) < NUM_TAGS:
    what = f"names {repeated[0]!r} twice" if repeated else "is too short"
    raise errors.InputError(
      f"{path}: the header, of {len(tags)} tags, {what}; at least {NUM_TAGS} "
      "different tags are needed. Get the file again."
    )


def _read_rows(path: pathlib.Path) -> _Rows:
  """Returns the names of the tags, and id, path and values of each clip."""
  lines = tagging_clips.read_lines(path)
  try:
    # No line end is left in a field, so rows and lines are the same.
    rows = [next(csv.reader([line], delimiter="\t")) for line in lines]
  except csv.Error as error:
    raise errors.InputError(
      f"{path} is no table separated by tabs ({error}). Get the file again."
    ) from error
  header = rows[0]
  _check_header(path, header)
  found = []
  for number, row in enumerate(rows[1:], 2):
    clip, values, name = row[0], row[1:-1], row[-1]
    is_named = clip.isascii() and clip.isdigit() and _PATH.fullmatch(name)
    has_tags = len(row) == len(header) and set(values) <= {"0", "1"}
    if not (is_named and has_tags):
      raise errors.InputError(
        f"{path}, row {number}: {len(row)} columns, clip_id {clip[:20]!r}, "
        f"mp3_path {name[:60]!r}, tags {sorted(set(values))[:4]}; the header "
        f"has {len(header)} columns, clip_id and mp3_path look like 2 and "
        "f/name.mp3, where the folder is 0 to 9 or a to f, and each tag is 0 "
        "or 1. Get the file again."
      )
    found.append((clip, name, values))
  if not found:
    raise errors.InputError(f"{path} has no clip. Get the file again.")
  return header[1:-1], found


def _most_frequent(names: list[str], annotated: np.ndarray) -> list[str]:
  """Returns the 50 most frequent tags; ties in the order of the columns."""
  order = np.argsort(-annotated.sum(axis=0), kind="stable")[:NUM_TAGS]
  return [names[column] for column in order]


def _read_tags(path: pathlib.Path, names: list[str]) -> list[str]:
  """Reads 50 of the tags in their order, one a line."""
  tags = [line.strip() for line in tagging_clips.read_lines(path)]
  unknown = sorted(set(tags) - set(names))
  if unknown:
    raise errors.InputError(
      f"{path} names tags that {FILE} has no column for: "
      f"{', '.join(map(repr, unknown[:5]))} ({len(unknown)} in all). Give a "
      "list of MagnaTagATune's tags as --tags, or leave it out."
    )
  if len(tags) != NUM_TAGS or len(set(tags)) != NUM_TAGS:
    raise errors.InputError(
      f"{path} has {len(tags)} lines and {len(set(tags))} different tags; "
      f"{NUM_TAGS} tags, one a line, are needed."
    )
  return tags


def _find(lists: pathlib.Path) -> pathlib.Path:
  path = lists / FILE
  if not path.is_file():
    raise errors.InputError(
      f"{lists} has no {FILE}: it is published with the data set "
      "(mirg.city.ac.uk, The MagnaTagATune Dataset). Put it next to "
      "the folders 0 to f, or give its folder as --lists."
    )
  return path


def _excluded(
  variant: str, found: list[tuple[str, str, list[str]]], labels: np.ndarray
) -> dict[str, tuple[str, ...]]:
  bad = [name for clip, name, _ in found if clip in BAD_CLIPS]
  excluded = {f"{_BAD} (clips {', '.join(BAD_CLIPS)})": tuple(bad)}
  if variant == "21k":
    untagged = [
      name
      for (_, name, _), row in zip(found, labels, strict=True)
      if not row.any() and name not in bad
    ]
    excluded[_UNTAGGED] = tuple(untagged)
  return {reason: names for reason, names in excluded.items() if names}


def read(
  lists: pathlib.Path, variant: str, tags_file: pathlib.Path | None = None
) -> tagging_clips.ClipList:
  """Reads the annotations.

  Args:
    lists: the folder of annotations_final.csv.
    variant: the split, `25k` or `21k`.
    tags_file: 50 tags in their order; by default the 50 most frequent, the
      most frequent first.

  Raises:
    InputError: the file is absent or is not the annotations, or the list of
      tags does not fit them.
  """
  path = _find(lists)
  names, found = _read_rows(path)
  annotated = np.array([values for _, _, values in found]) == "1"
  tags = (
    _read_tags(tags_file, names)
    if tags_file
    else _most_frequent(names, annotated)
  )
  labels = annotated[:, [names.index(tag) for tag in tags]]
  excluded = _excluded(variant, found, labels)
  gone = {name for some in excluded.values() for name in some}
  every = [
    tagging_clips.Clip(
      clip, name, _SPLIT_OF[name[0]], tuple(np.flatnonzero(row).tolist())
    )
    for (clip, name, _), row in zip(found, labels, strict=True)
  ]
  tagging_clips.check(every, str(path))
  shortest = melspectrogram.SETTINGS.sample_rate_hz * _SHORTEST_S
  return tagging_clips.ClipList(
    name=f"{NAME}-{variant}",
    part=tagging_clips.WHOLE,
    tags=tuple(tags),
    clips=tuple(clip for clip in every if clip.path not in gone),
    published=None if len(found) == PUBLISHED_ROWS else PUBLISHED[variant],
    excluded=excluded,
    # The next number of frames: right to a hop, 0.016 s.
    min_frames=(
      melspectrogram.num_frames(round(shortest)) + 1 if variant == "21k" else 0
    ),
  )
