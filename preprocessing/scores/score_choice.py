"""Which scores of a corpus are rendered, and whose they are."""

import dataclasses
import importlib.util
import pathlib
import random
import re

from pcl_jax.common import errors

SUFFIXES = frozenset(".krn .abc .mxl .xml .musicxml .mid".split())
# Folders of exercises, and of files that hold many tunes each.
LEFT_OUT = frozenset(
  "airdsAirs demos essenFolksong leadSheet miscFolk nottingham-dataset "
  "oneills1850 theoryExercises".split()
)
_NUMBER = re.compile(r"(.+)[._-]\w{1,3}")


@dataclasses.dataclass(frozen=True)
class Score:
  """A score of a corpus.

  Attributes:
    path: its file, relative to the corpus, with '/'.
    composer: the corpus's folder that it lies in.
    collection: the folders below that, or else its name without the number at
      the end; empty where there is none.
  """

  path: str
  composer: str
  collection: str

  @property
  def audio(self) -> str:
    """The path of its recording."""
    return f"{self.path}.flac"


def corpus_folder() -> pathlib.Path:
  """Returns the folder of music21's corpus.

  Raises:
    InputError: music21 is not installed.
  """
  found = importlib.util.find_spec("music21")
  if found is None or not found.submodule_search_locations:
    raise errors.InputError(
      "music21, which has the scores, is not installed: "
      '`pip install "pcl_jax[scores]"`.'
    )
  return pathlib.Path(found.submodule_search_locations[0]) / "corpus"


def _score(path: pathlib.PurePosixPath) -> Score:
  composer, *folders, _ = path.parts
  collection = "/".join(folders)
  numbered = _NUMBER.fullmatch(path.stem)
  if not collection and numbered:
    collection = numbered[1]
  return Score(path.as_posix(), composer, collection)


def choose(corpus: pathlib.Path, count: int, seed: int) -> list[Score]:
  """Draws scores, of each composer in turn, so that none has most of them.

  Args:
    corpus: a folder with a folder of each composer.
    count: how many; all if there are fewer. The first of a larger choice with
      the same seed are those of a smaller one.
    seed: of the draw.

  Raises:
    InputError: the folder has no score.
  """
  paths = sorted(
    path.relative_to(corpus)
    for path in corpus.glob("*/**/*")
    if path.suffix.lower() in SUFFIXES and path.is_file()
  )
  composers: dict[str, list[Score]] = {}
  for path in paths:
    score = _score(pathlib.PurePosixPath(path.as_posix()))
    if score.composer not in LEFT_OUT:
      composers.setdefault(score.composer, []).append(score)
  if not composers:
    raise errors.InputError(
      f"{corpus} has no score in a composer's folder: give a corpus with "
      f"COMPOSER/SCORE, files {' '.join(sorted(SUFFIXES))}."
    )
  generator = random.Random(seed)
  for scores in composers.values():
    generator.shuffle(scores)
  turns = [
    (turn, composer)
    for composer, scores in composers.items()
    for turn in range(len(scores))
  ]
  return [composers[who][turn] for turn, who in sorted(turns)[:count]]
