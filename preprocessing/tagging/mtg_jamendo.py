"""MTG-Jamendo's lists: four subsets, each with five splits of its tracks.

The files end their lines with CR LF, and a row has one column for each of its
tags; a careless reader takes the last tag of each row for another one.
"""

import pathlib
import re

from pcl_jax.common import errors
from preprocessing.tagging import tagging_clips

NAME = "mtg_jamendo"
# Subset -> name in the files, number of tags, beginnings of their names.
_CATEGORIES = ("genre", "instrument", "mood/theme")
SUBSETS = {
  "top50": ("top50tags", 50, _CATEGORIES),
  "genre": ("genre", 87, ("genre",)),
  "instrument": ("instrument", 40, ("instrument",)),
  "moodtheme": ("moodtheme", 56, ("mood/theme",)),
}
NUM_SPLITS = 5
# Tracks of split 0 in training, validation and test.
PUBLISHED = {
  "top50": (32_136, 10_888, 11_356),
  "genre": (32_572, 11_043, 11_479),
  "instrument": (14_395, 5_466, 5_115),
  "moodtheme": (9_949, 3_802, 4_231),
}
_COLUMNS = ["TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS"]
_FIRST_TAG = _COLUMNS.index("TAGS")
_LOOKS = {  # Column -> what its fields look like.
  0: re.compile(r"track_[0-9]+"),
  3: re.compile(r"[0-9]+/[0-9]+\.mp3"),
  4: re.compile(r"(?=.*[1-9])[0-9]{1,6}(\.[0-9]*)?"),
}


def file_name(subset: str, split: int) -> str:
  """Returns the name of a list, for a subset and one of its three parts."""
  part = tagging_clips.SPLITS[split]
  return f"autotagging_{SUBSETS[subset][0]}-{part}.tsv"


def _find_lists(lists: pathlib.Path, subset: str, number: int) -> pathlib.Path:
  names = [file_name(subset, split) for split in tagging_clips.SPLITS]
  below = (f"split-{number}", f"splits/split-{number}")
  places = [*below, f"data/splits/split-{number}", "."]
  for place in places:
    if all((lists / place / name).is_file() for name in names):
      return lists / place
  raise errors.InputError(
    f"{lists} has no lists of {subset}, split {number}: looked for "
    f"{', '.join(names)} in {', '.join(places)}. They are in the repository "
    "MTG/mtg-jamendo-dataset on GitHub, folder data/splits: give it, or a copy "
    "of it, as --lists."
  )


def _part(part: str, length_s: float) -> tuple[float, float | None]:
  """Returns where the used part of a track begins and ends."""
  if part == tagging_clips.WHOLE or length_s <= tagging_clips.CENTRE_S:
    return 0.0, None
  from_s = round((length_s - tagging_clips.CENTRE_S) / 2, 3)
  return from_s, round(from_s + tagging_clips.CENTRE_S, 3)


def _rows(path: pathlib.Path, subset: str) -> list[tuple[list[str], set[str]]]:
  """Reads a list: first columns and tags of each row."""
  header, *lines = tagging_clips.read_lines(path)
  if header.rstrip("\t").split("\t") != _COLUMNS:
    raise errors.InputError(
      f"{path} begins with {header[:80]!r}; the first line of a list of "
      f"MTG-Jamendo is {' '.join(_COLUMNS)}, separated by tabs. Get the file "
      "again."
    )
  categories = SUBSETS[subset][2]
  rows = []
  for number, line in enumerate(lines, 2):
    fields = [field.strip() for field in line.split("\t")]
    tags = set(filter(None, fields[_FIRST_TAG:]))
    right = tags and all(
      tag.partition("---")[0] in categories and tag.partition("---")[2]
      for tag in tags
    )
    if not right:
      raise errors.InputError(
        f"{path}, row {number}: the tags are {sorted(tags)[:5]}; from column "
        f"{_FIRST_TAG + 1} on, each row has at least one, written "
        f"CATEGORY---TAG, and the categories of {subset} are "
        f"{', '.join(categories)}. Is it a list of another subset?"
      )
    if not all(look.fullmatch(fields[i]) for i, look in _LOOKS.items()):
      raise errors.InputError(
        f"{path}, row {number}: id, path and length are {fields[0][:40]!r}, "
        f"{fields[3][:40]!r} and {fields[4][:20]!r}; they look like "
        "track_0000241, 41/241.mp3 and 203.5. Get the file again."
      )
    rows.append((fields, tags))
  return rows


def read(
  lists: pathlib.Path, subset: str, number: int, part: str
) -> tagging_clips.ClipList:
  """Reads the three lists of a subset and split.

  Args:
    lists: the folder data/splits of the data set's repository, what it is in,
      or the folder of one split.
    subset: a key of SUBSETS.
    number: the number of the split, 0 to 4.
    part: the part of a track to use: WHOLE, or CENTRE, which is the middle
      29.1 s by the length in the lists.

  Raises:
    InputError: a file is absent or is no such list, the number of tags is not
      the subset's, or a track is in them twice.
  """
  folder = _find_lists(lists, subset, number)
  rows = {
    split: _rows(folder / file_name(subset, split), subset)
    for split in tagging_clips.SPLITS
  }
  used = {tag for some in rows.values() for _, tags in some for tag in tags}
  tags = sorted(used)
  if len(tags) != SUBSETS[subset][1]:
    shown = ", ".join(tags[:3] + ["..."] + tags[-3:])
    raise errors.InputError(
      f"the lists of {subset} in {folder} have {len(tags)} different tags "
      f"({shown}); the subset has {SUBSETS[subset][1]}. They were cut or "
      "changed: get them again."
    )
  column = {tag: i for i, tag in enumerate(tags)}
  clips = [
    tagging_clips.Clip(
      fields[0],
      fields[3],
      split,
      tuple(sorted(column[tag] for tag in found)),
      *_part(part, float(fields[4])),
    )
    for split, some in rows.items()
    for fields, found in some
  ]
  tagging_clips.check(clips, str(folder))
  published = None
  if number == 0 and tuple(map(len, rows.values())) != PUBLISHED[subset]:
    published = sum(PUBLISHED[subset])
  return tagging_clips.ClipList(
    name=f"{NAME}-{subset}-split{number}-{part}",
    part=part,
    tags=tuple(tags),
    clips=tuple(clips),
    published=published,
  )
