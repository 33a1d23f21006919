"""GTZAN's fault-filtered lists: 930 clips, ten genres, no artist twice.

Kereliuk, Sturm and Larsen (2015) made the split. Public copies of the audio are
known to have an unreadable jazz.00054: it may be absent.
"""

import pathlib
import re

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from preprocessing.tagging import tagging_clips

NAME = "gtzan"
GENRES = tuple(
  "blues classical country disco hiphop jazz metal pop reggae rock".split()
)
FILES = {
  catalogues.TRAIN: "train_filtered.txt",
  catalogues.VALIDATION: "valid_filtered.txt",
  catalogues.TEST: "test_filtered.txt",
}
PUBLISHED = 443 + 197 + 290
MAY_LACK = frozenset({"jazz.00054"})
_LINE = re.compile(r"([a-z]+)/(([a-z]+)\.[0-9]{5})\.wav")
_WHERE = (
  "They are published with the code of the paper 'Deep Learning and Music "
  "Adversaries' (Kereliuk, Sturm, Larsen 2015; GitHub: coreyker/dnn-mgr) and "
  "copied in jongpillee/music_dataset_split, folder GTZAN_split"
)


def _find_lists(lists: pathlib.Path) -> pathlib.Path:
  for folder in (lists, lists / "gtzan_filtered", lists / "GTZAN_split"):
    if all((folder / name).is_file() for name in FILES.values()):
      return folder
  absent = [name for name in FILES.values() if not (lists / name).is_file()]
  raise errors.InputError(
    f"{lists} lacks {', '.join(absent)}: GTZAN is measured on its "
    f"fault-filtered split, whose lists are {', '.join(FILES.values())}. "
    f"{_WHERE}. Give their folder as --lists."
  )


def _parse(path: pathlib.Path, line: str, split: int) -> tagging_clips.Clip:
  found = _LINE.fullmatch(line)
  if not found or found[1] != found[3] or found[1] not in GENRES:
    raise errors.InputError(
      f"{path}: {line[:80]!r} is no line of a GTZAN list. Each is "
      "GENRE/GENRE.00000.wav, and the genres are "
      f"{', '.join(GENRES)}: get the lists again."
    )
  label = GENRES.index(found[1])
  return tagging_clips.Clip(found[2], line, split, (label,))


def read(lists: pathlib.Path) -> tagging_clips.ClipList:
  """Reads the three lists in the folder `lists`.

  Raises:
    InputError: a file is absent or has a line of another kind, or a clip is
      in two of them.
  """
  folder = _find_lists(lists)
  clips = [
    _parse(folder / name, line, split)
    for split, name in FILES.items()
    for line in tagging_clips.read_lines(folder / name)
  ]
  tagging_clips.check(clips, str(folder))
  return tagging_clips.ClipList(
    name="gtzan-filtered",
    part=tagging_clips.WHOLE,
    tags=GENRES,
    clips=tuple(clips),
    published=None if len(clips) == PUBLISHED else PUBLISHED,
    may_lack=MAY_LACK,
    single_label=True,
  )
