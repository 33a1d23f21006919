"""Songs with tags and a split: what probes are trained and measured on."""

import dataclasses

from jaxtyping import Bool, Int
import numpy as np

from pcl_jax.data import catalogues

TRAIN, VALIDATION, TEST = (
  catalogues.TRAIN,
  catalogues.VALIDATION,
  catalogues.TEST,
)


@dataclasses.dataclass(frozen=True)
class LabelledSet:
  """A tagging task, without the audio.

  Attributes:
    name: of the task and its split, never without the split: a score means
      nothing otherwise (`magnatagatune-25k`).
    tags: name of each column of `labels`.
    ids: of the songs or clips.
    labels: which song has which tag, [songs, tags].
    split: TRAIN, VALIDATION or TEST of each song.
    one_each: exactly one tag a song (GTZAN), so that accuracy is the metric.
  """

  name: str
  tags: tuple[str, ...]
  ids: tuple[str, ...]
  labels: Bool[np.ndarray, "songs tags"]
  split: Int[np.ndarray, " songs"]
  one_each: bool = False
