"""Features and labels brought together, and refused where they do not fit."""

from collections.abc import Sequence
import dataclasses

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int
import numpy as np

from pcl_jax.common import errors
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import probe_training

_LEAST_STD = 1e-8
_PARTS = {
  labelled_sets.TRAIN: "training",
  labelled_sets.VALIDATION: "validation",
  labelled_sets.TEST: "test",
}
WITHOUT_SONG = "labels without a song"
WITHOUT_LABELS = "songs without labels"


def subset(
  labelled: labelled_sets.LabelledSet, kept: Bool[np.ndarray, " songs"]
) -> labelled_sets.LabelledSet:
  """Returns a set of some of the songs, in their order."""
  return dataclasses.replace(
    labelled,
    ids=tuple(labelled.ids[i] for i in np.flatnonzero(kept)),
    labels=labelled.labels[kept],
    split=labelled.split[kept],
  )


def align(
  labelled: labelled_sets.LabelledSet, ids: Sequence[str]
) -> tuple[
  labelled_sets.LabelledSet, Int[np.ndarray, " songs"], dict[str, int]
]:
  """Finds the features of a set's songs.

  Args:
    labelled: the task.
    ids: of the songs there are features of, in the features' order.

  Returns:
    The set restricted to songs with features, the row of each in `ids`, and
    how many labels have no song and how many songs no labels.

  Raises:
    InputError: there is a song twice in `ids`, or none of the set's.
  """
  rows = {song: row for row, song in enumerate(ids)}
  if len(rows) < len(ids):
    raise errors.InputError(
      f"{len(ids) - len(rows)} of {len(ids)} songs are there more than once: a "
      "song has one embedding. Leave out the others."
    )
  found = np.array([rows.get(song, -1) for song in labelled.ids], np.int64)
  if not (found >= 0).any():
    raise errors.InputError(
      f"none of the {len(labelled.ids)} songs of {labelled.name} is among the "
      f"{len(ids)} songs that have features (its first id is "
      f"{labelled.ids[0] if labelled.ids else None!r}, theirs "
      f"{ids[0] if ids else None!r}). Give features of the same data set."
    )
  named = set(labelled.ids)
  counts = {
    WITHOUT_SONG: int((found < 0).sum()),
    WITHOUT_LABELS: sum(song not in named for song in ids),
  }
  kept = {reason: count for reason, count in counts.items() if count}
  return subset(labelled, found >= 0), found[found >= 0], kept


def check_labels(labelled: labelled_sets.LabelledSet) -> None:
  """Refuses a set that probes cannot be trained on.

  Raises:
    InputError: its parts differ in length, one of the three parts of the
      split is empty, or a song of a `one_each` set has not one tag.
  """
  songs, tags = labelled.labels.shape
  lengths = {
    "ids": (len(labelled.ids), songs),
    "split": (len(labelled.split), songs),
    "tags": (len(labelled.tags), tags),
  }
  for what, (found, asked) in lengths.items():
    if found != asked:
      raise errors.InputError(
        f"{labelled.name} has labels of shape [{songs}, {tags}] and {found} "
        f"{what}; {asked} are asked for. Make the set again."
      )
  for part, name in _PARTS.items():
    if not (labelled.split == part).any():
      raise errors.InputError(
        f"{labelled.name} has no {name} songs among its {songs}; training, "
        "validation and test songs are all needed. Give another split or more "
        "songs."
      )
  counts = labelled.labels.sum(axis=1)
  if labelled.one_each and (counts != 1).any():
    wrong = np.flatnonzero(counts != 1)
    raise errors.InputError(
      f"{labelled.name} asks for one tag a song, and {len(wrong)} songs have "
      f"none or several (first: {labelled.ids[wrong[0]]} has "
      f"{counts[wrong[0]]}). Correct or leave out these songs."
    )


def check_features(
  features: Float[np.ndarray, "rows d"],
  labelled: labelled_sets.LabelledSet,
  owners: Int[np.ndarray, " rows"] | None,
) -> Int[np.ndarray, " rows"]:
  """Refuses features that are not those of a set's songs.

  Args:
    features: of each song, or of each patch.
    labelled: the task.
    owners: which song of the set each patch is of; None: one row a song.

  Returns:
    The song of each row.

  Raises:
    InputError: wrong length, not finite, or a song without a row.
  """
  songs = len(labelled.ids)
  if owners is None:
    owners = np.arange(songs)
  if len(features) != len(owners):
    raise errors.InputError(
      f"there are {len(features)} rows of features and {len(owners)} songs or "
      f"patches in {labelled.name}: one row each is asked for, in the set's "
      "order."
    )
  without = songs - len(np.unique(owners))
  if without or owners.min(initial=0) < 0 or owners.max(initial=0) >= songs:
    raise errors.InputError(
      f"{without} songs of {labelled.name} have no patch, or patches name "
      f"songs outside of 0..{songs - 1}. Leave these songs out of the set."
    )
  broken = ~np.isfinite(features).all(axis=1)
  if broken.any():
    first = labelled.ids[owners[np.flatnonzero(broken)[0]]]
    raise errors.InputError(
      f"{int(broken.sum())} rows of features of {labelled.name} are not "
      f"finite numbers (first: that of {first}). The encoder or the audio is "
      "damaged: embed these songs again."
    )
  return owners.astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Scale:
  """Mean and standard deviation of the training features, float32 [d]."""

  mean: Float[np.ndarray, " d"]
  std: Float[np.ndarray, " d"]

  def apply(
    self, features: Float[np.ndarray, "rows d"]
  ) -> Float[np.ndarray, "rows d"]:
    """Standardises features; float32."""
    out = features.astype(np.float32)  # A copy, changed in place.
    out -= self.mean[None]
    out /= self.std[None]
    return out


def measure_scale(features: Float[np.ndarray, "rows d"]) -> Scale:
  """Measures mean and deviation; a constant feature is not scaled."""
  mean = features.mean(axis=0, dtype=np.float64)
  std = features.std(axis=0, dtype=np.float64)
  std = np.where(std > _LEAST_STD, std, 1.0)
  return Scale(mean.astype(np.float32), std.astype(np.float32))


def prepare(
  features: Float[np.ndarray, "rows d"],
  labelled: labelled_sets.LabelledSet,
  owners: Int[np.ndarray, " rows"] | None = None,
  scale: Scale | None = None,
) -> tuple[probe_training.Examples, Scale]:
  """Standardises features and lays them on the device.

  Args:
    features: of each song, or of each patch.
    labelled: the task.
    owners: which song of the set each patch is of; None: one row a song.
    scale: to standardise by; None: that of the training rows.

  Raises:
    InputError: features or labels break a rule.
  """
  check_labels(labelled)
  owners = check_features(features, labelled, owners)
  part = labelled.split[owners]
  train = np.flatnonzero(part == labelled_sets.TRAIN).astype(np.int32)
  validation = np.flatnonzero(part == labelled_sets.VALIDATION)
  scale = scale or measure_scale(features[train])
  examples = probe_training.Examples(
    features=jnp.asarray(scale.apply(features)),
    owners=jnp.asarray(owners),
    labels=jnp.asarray(labelled.labels, jnp.float32),
    train=train,
    validation=validation.astype(np.int32),
    one_each=labelled.one_each,
  )
  return examples, scale
