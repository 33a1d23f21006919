"""Songs with tags and a split: what probes are trained and measured on."""

from collections.abc import Sequence
import dataclasses

from jaxtyping import Bool, Int
import numpy as np

from pcl_jax.common import errors
from pcl_jax.data import catalogues

TRAIN, VALIDATION, TEST = (
  catalogues.TRAIN,
  catalogues.VALIDATION,
  catalogues.TEST,
)
WITHOUT_SONG = "labels without a song"
WITHOUT_LABELS = "songs without labels"


@dataclasses.dataclass(frozen=True)
class LabelledSet:
  """A tagging task, without the audio.

  Attributes:
    name: name of the task and its split, never without the split: a score means
      nothing otherwise (`magnatagatune-25k`).
    tags: name of each column of `labels`.
    ids: ids of the songs or clips.
    labels: which song has which tag, [songs, tags].
    split: TRAIN, VALIDATION or TEST of each song.
    single_label: whether each song has exactly one tag (GTZAN), so that
      accuracy is the metric.
  """

  name: str
  tags: tuple[str, ...]
  ids: tuple[str, ...]
  labels: Bool[np.ndarray, "songs tags"]
  split: Int[np.ndarray, " songs"]
  single_label: bool = False

  @property
  def chosen_by(self) -> str:
    """The validation metric that chooses between probes."""
    return "accuracy" if self.single_label else "average_precision"

  def labels_of(self, part: int) -> Bool[np.ndarray, "some tags"]:
    """Returns the labels of the songs of a part, in the set's order."""
    return self.labels[self.split == part]

  def check(self) -> None:
    """Refuses a set that probes cannot be trained on.

    Raises:
      InputError: fields differ in length, one of the three parts of the split
        is empty, or a song of a single-label set does not have one tag.
    """
    songs, tags = self.labels.shape
    for field, expected in (("ids", songs), ("split", songs), ("tags", tags)):
      if (found := len(getattr(self, field))) != expected:
        raise errors.InputError(
          f"{self.name} has labels of shape [{songs}, {tags}] and {found} "
          f"{field}; there must be {expected}. Make the set again."
        )
    for part, name in enumerate(catalogues.SPLIT_NAMES):
      if not (self.split == part).any():
        raise errors.InputError(
          f"{self.name} has no {name} songs among its {songs}; training, "
          "validation and test songs are all needed. Give another split or "
          "more songs."
        )
    counts = self.labels.sum(axis=1)
    if self.single_label and (counts != 1).any():
      wrong = np.flatnonzero(counts != 1)
      raise errors.InputError(
        f"{self.name} needs one tag per song, but {len(wrong)} songs have "
        f"none or several (the first, {self.ids[wrong[0]]}, has "
        f"{counts[wrong[0]]}). Correct or leave out these songs."
      )


def align(
  labelled: LabelledSet, ids: Sequence[str]
) -> tuple[LabelledSet, Int[np.ndarray, " songs"], dict[str, int]]:
  """Finds the features of a set's songs.

  Args:
    labelled: the task.
    ids: ids of the songs that have features, in the order of the features.

  Returns:
    The set restricted to songs with features, the row of each in `ids`, and
    the number of labels without a song and of songs without labels.

  Raises:
    InputError: an id is repeated, or none is in the set.
  """
  rows = {song: row for row, song in enumerate(ids)}
  if len(rows) < len(ids):
    raise errors.InputError(
      f"{len(ids) - len(rows)} of {len(ids)} songs are repeated, but a song "
      "has one embedding. Leave out the others."
    )
  found = np.array([rows.get(song, -1) for song in labelled.ids], np.int64)
  kept = np.flatnonzero(found >= 0)
  if not len(kept):
    raise errors.InputError(
      f"none of the {len(labelled.ids)} songs of {labelled.name} is among the "
      f"{len(ids)} songs that have features (its first id is "
      f"{labelled.ids[0] if labelled.ids else None!r}, theirs "
      f"{ids[0] if ids else None!r}). Give features of the same data set."
    )
  counts = {
    WITHOUT_SONG: len(found) - len(kept),
    WITHOUT_LABELS: len(rows.keys() - set(labelled.ids)),
  }
  restricted = dataclasses.replace(
    labelled,
    ids=tuple(labelled.ids[i] for i in kept),
    labels=labelled.labels[kept],
    split=labelled.split[kept],
  )
  left_out = {reason: count for reason, count in counts.items() if count}
  return restricted, found[kept], left_out
