"""Reads a prepared tagging set, and embeds its clips in bounded memory."""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import os
from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Float16, Int
import numpy as np

from pcl_jax.audio import melspectrogram
from pcl_jax.audio import song_patches
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import storage
from pcl_jax.data import song_store
from pcl_jax.embedding import song_encoder
from pcl_jax.evaluation import mel_baselines
from pcl_jax.evaluation.tagging import labelled_sets

FORMAT_VERSION = 1
METADATA = "metadata.json"
CLIPS = "clips.json"  # Split -> ids of its clips, in the order of the records.
SPLITS = {
  "train": labelled_sets.TRAIN,
  "validation": labelled_sets.VALIDATION,
  "test": labelled_sets.TEST,
}
_REMEDY = "Prepare it with python -m preprocessing.tagging_sets."


@dataclasses.dataclass(frozen=True)
class Clip:
  """One record.

  Attributes:
    id: its id in the set.
    split: TRAIN, VALIDATION or TEST.
    labels: which tags it has, [tags].
    mel: its feature, [frames, 48].
  """

  id: str
  split: int
  labels: Bool[np.ndarray, " tags"]
  mel: Float16[np.ndarray, "frames bands"]


class TaggingSet:
  """A prepared set.

  Attributes:
    directory: its folder.
    name: name with split, part and, if it lacks clips, how many it has.
    tags: names of the tags.
    single_label: whether a clip has exactly one tag.
    partial: whether it lacks clips of the published set.
    part: which part of the audio was used.
    left_out: reason -> number of clips that were not prepared.
  """

  def __init__(self, directory: str | os.PathLike[str]):
    """Opens a set.

    Args:
      directory: its folder.

    Raises:
      InputError: it is no prepared set, or its feature has other settings
        than the feature of this code and its encoders.
    """
    self.directory = file_names.path(directory)
    path = self.directory / METADATA
    if not path.exists():
      raise errors.InputError(
        f"{directory} is not a prepared tagging set (no {METADATA} in it). "
        f"{_REMEDY}"
      )
    try:
      meta = storage.read_json(path)
      version = meta["format_version"]
      self.name, self.part = str(meta["name"]), str(meta["part"])
      self.tags = tuple(map(str, meta["tags"]))
      self.single_label = bool(meta["one_each"])
      self.partial = bool(meta["partial"])
      self.left_out: dict[str, int] = dict(meta["left_out"])
      feature = dict(meta["feature"])
    except (ValueError, KeyError, TypeError) as error:
      raise errors.InputError(
        f"{path} is damaged or not of a tagging set ({error!r}). {_REMEDY}"
      ) from error
    if version != FORMAT_VERSION:
      raise errors.InputError(
        f"{path} has format version {version}, this version of pcl_jax reads "
        f"{FORMAT_VERSION}. {_REMEDY}"
      )
    melspectrogram.check_settings(feature, os.fspath(path))
    self._sources = self._open()

  def _open(self) -> dict[str, Any]:
    # Half a second, and needed by this command alone.
    import tensorflow_datasets as tfds

    try:
      builder = tfds.builder_from_directory(self.directory)
      return {name: builder.as_data_source(name) for name in SPLITS}
    # The library's errors for absent and damaged files are of many kinds.
    except Exception as error:
      raise self._damaged(error) from error

  def _damaged(self, error: Exception) -> errors.InputError:
    text = str(error).strip().splitlines() or [""]
    return errors.InputError(
      f"{self.directory} cannot be read ({type(error).__name__}: "
      f"{text[0][:200]}): files are missing or damaged. Copy it again, or "
      f"delete it. {_REMEDY}"
    )

  def __len__(self) -> int:
    return sum(map(len, self._sources.values()))

  def places(self) -> dict[str, tuple[str, int]]:
    """Returns the split and the number in it of each clip, by id.

    Raises:
      InputError: the list of the clips is missing or damaged.
    """
    path = self.directory / CLIPS
    try:
      ids = storage.read_json(path)
      return {
        clip: (name, place)
        for name in SPLITS
        for place, clip in enumerate(ids[name])
      }
    except (OSError, ValueError, KeyError, TypeError) as error:
      raise self._damaged(error) from error

  def read(self, name: str, place: int) -> Clip:
    """Reads one record.

    Args:
      name: name of its split, a key of SPLITS.
      place: number of the record in the split.

    Raises:
      InputError: a file is damaged.
    """
    try:
      record = self._sources[name][place]
      mel = record["mel"].reshape(-1, song_store.MEL_BANDS)
    except Exception as error:
      raise self._damaged(error) from error
    labels = np.zeros(len(self.tags), bool)
    labels[np.asarray(record["tags"], int)] = True
    return Clip(record["id"].decode(), SPLITS[name], labels, mel)

  def clips(self) -> Iterator[Clip]:
    """Yields all clips, in the order training, validation, test.

    Raises:
      InputError: a file is damaged.
    """
    for name in SPLITS:
      for place in range(len(self._sources[name])):
        yield self.read(name, place)

  def labelled(
    self, clips: Iterable[tuple[str, int, np.ndarray]]
  ) -> labelled_sets.LabelledSet:
    """Returns clips, given by id, split and labels, without their audio."""
    ids, split, labels = zip(*clips, strict=True)
    return labelled_sets.LabelledSet(
      self.name,
      self.tags,
      ids,
      np.array(labels),
      np.array(split),
      self.single_label,
    )


class Embedded(NamedTuple):
  """Clips and their features.

  Attributes:
    labelled: the clips.
    features: features of each clip or of each patch, float32 [rows, features].
    song_index: clip of each row, if rows are patches.
  """

  labelled: labelled_sets.LabelledSet
  features: Float[np.ndarray, "rows features"]
  song_index: Int[np.ndarray, " rows"] | None = None


def embed_clips(
  tagging_set: TaggingSet,
  embedder: Callable,
  *,
  per_patch: bool = False,
  batch_patches: int = song_encoder.BATCH_PATCHES,
  progress: Callable[[Iterator[Clip]], Iterable[Clip]] = iter,
) -> Embedded:
  """Embeds all clips of a set; few clips and batches are in memory at once.

  Args:
    tagging_set: the set.
    embedder: patches [batch_patches, 256, 48] to features [batch_patches,
      features], as `compiled_encoder.make_embedder` returns it.
    per_patch: whether to return the features of all patches.
    batch_patches: patches encoded at once, of any clips.
    progress: wraps the clips, for a progress bar.

  Returns:
    The mean over the features of each clip's whole, non-overlapping patches (a
    shorter clip is padded with silence), or the features of each patch.

  Raises:
    InputError: a file of the set is damaged.
  """
  seen: list[tuple[str, int, np.ndarray]] = []

  def pieces():
    for number, clip in enumerate(progress(tagging_set.clips())):
      seen.append((clip.id, clip.split, clip.labels))
      yield number, song_patches.cut(clip.mel).patches

  batches = song_patches.gathered(pieces(), batch_patches)
  found = song_patches.encoded(embedder, batches)
  if per_patch:
    song_index, features = map(np.concatenate, zip(*found, strict=True))
    features = features.astype(np.float32)
    return Embedded(tagging_set.labelled(seen), features, song_index)
  means, _ = song_patches.mean_vectors(found, len(tagging_set))
  return Embedded(tagging_set.labelled(seen), means)


def mel_statistics(tagging_set: TaggingSet) -> Embedded:
  """Computes mean and standard deviation of each band over time: a baseline.

  Args:
    tagging_set: the set.

  Returns:
    48 means, then 48 standard deviations of the feature of each clip.

  Raises:
    InputError: a file of the set is damaged.
  """
  seen, rows = [], []
  for clip in tagging_set.clips():
    seen.append((clip.id, clip.split, clip.labels))
    rows.append(mel_baselines.mean_and_std(clip.mel))
  return Embedded(tagging_set.labelled(seen), np.array(rows, np.float32))
