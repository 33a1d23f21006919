"""Reads a prepared tagging set, and embeds its clips in bounded memory."""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import json
import os
import pathlib
from typing import Any

from jaxtyping import Bool, Float, Float16, Int
import numpy as np

from pcl_jax.audio import melspectrogram
from pcl_jax.audio import song_patches
from pcl_jax.common import errors
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
    id: as the set has it.
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
    name: with split, part and, if it lacks clips, how many it has.
    tags: names.
    one_each: exactly one tag a clip.
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
        than this code's, which an encoder's has too.
    """
    self.directory = pathlib.Path(directory)
    path = self.directory / METADATA
    if not path.exists():
      raise errors.InputError(
        f"{directory} is not a prepared tagging set (no {METADATA} in it). "
        f"{_REMEDY}"
      )
    try:
      meta = json.loads(path.read_text(encoding="utf-8"))
      version = meta["format_version"]
      self.name, self.part = str(meta["name"]), str(meta["part"])
      self.tags = tuple(map(str, meta["tags"]))
      self.one_each = bool(meta["one_each"])
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
    """Returns where each clip is: id -> name of its split, and its number.

    Raises:
      InputError: the list of the clips is missing or damaged.
    """
    path = self.directory / CLIPS
    try:
      ids = json.loads(path.read_text(encoding="utf-8"))
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
      name: of the split, a key of SPLITS.
      place: of the record in it.

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


class _Labels:
  """Gathers what clips say of themselves as they pass."""

  def __init__(self, tagging_set: TaggingSet):
    self._set = tagging_set
    self._clips: list[tuple[str, Any, int]] = []

  def passing(self, clips: Iterator[Clip]) -> Iterator[Clip]:
    for clip in clips:
      self._clips.append((clip.id, clip.labels, clip.split))
      yield clip

  def labelled(self) -> labelled_sets.LabelledSet:
    ids, labels, split = zip(*self._clips, strict=True)
    return labelled_sets.LabelledSet(
      name=self._set.name,
      tags=self._set.tags,
      ids=ids,
      labels=np.array(labels),
      split=np.array(split),
      one_each=self._set.one_each,
    )


Progress = Callable[[Iterator[Clip]], Iterable[Clip]]


def _encoded(
  clips: Iterator[Clip], embedder: Callable, batch_patches: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields numbers of clips and the features of a patch of each."""
  pieces = (
    (number, song_patches.cut(clip.mel).patches)
    for number, clip in enumerate(clips)
  )
  batches = song_patches.gathered(pieces, batch_patches)
  yield from song_patches.encoded(embedder, batches)


def embed_clips(
  tagging_set: TaggingSet,
  embedder: Callable,
  *,
  batch_patches: int = song_encoder.BATCH_PATCHES,
  progress: Progress = iter,
) -> tuple[labelled_sets.LabelledSet, Float[np.ndarray, "clips features"]]:
  """Embeds all clips of a set; few clips and batches are in memory at once.

  Args:
    tagging_set: the set.
    embedder: patches [batch_patches, 256, 48] to features [batch_patches,
      features], as of `song_encoder.make_embedder`.
    batch_patches: patches encoded at once, of any clips.
    progress: wraps the clips, for a progress bar.

  Returns:
    The clips' labels and splits, and the mean over the features of each clip's
    whole, non-overlapping patches (a shorter clip is padded with silence),
    float32 [clips, features].

  Raises:
    InputError: a file of the set is damaged.
  """
  labels = _Labels(tagging_set)
  clips = labels.passing(iter(progress(tagging_set.clips())))
  found = _encoded(clips, embedder, batch_patches)
  means, _ = song_patches.mean_vectors(found, len(tagging_set))
  return labels.labelled(), means


def embed_patches(
  tagging_set: TaggingSet,
  embedder: Callable,
  *,
  batch_patches: int = song_encoder.BATCH_PATCHES,
  progress: Progress = iter,
) -> tuple[
  labelled_sets.LabelledSet,
  Float[np.ndarray, "patches features"],
  Int[np.ndarray, " patches"],
]:
  """Embeds all patches of a set's clips, and keeps each in memory.

  Args:
    tagging_set: the set.
    embedder: as of `embed_clips`.
    batch_patches: likewise.
    progress: likewise.

  Returns:
    The clips' labels and splits, the features of their whole patches, float32
    [patches, features], and which clip each patch is of.

  Raises:
    InputError: a file of the set is damaged.
  """
  labels = _Labels(tagging_set)
  clips = labels.passing(iter(progress(tagging_set.clips())))
  encoded = list(_encoded(clips, embedder, batch_patches))
  owners, features = map(np.concatenate, zip(*encoded, strict=True))
  return labels.labelled(), features.astype(np.float32), owners


def mel_statistics(
  tagging_set: TaggingSet,
) -> tuple[labelled_sets.LabelledSet, Float[np.ndarray, "clips statistics"]]:
  """Computes mean and standard deviation of each band over time: a baseline.

  Args:
    tagging_set: the set.

  Returns:
    The clips' labels and splits; 48 means, then 48 standard deviations of the
    feature of each clip, float32 [clips, 96].

  Raises:
    InputError: a file of the set is damaged.
  """
  labels = _Labels(tagging_set)
  rows = np.zeros((len(tagging_set), 2 * song_store.MEL_BANDS), np.float32)
  clips = labels.passing(tagging_set.clips())
  for row, clip in zip(rows, clips, strict=True):
    row[:] = mel_baselines.mean_and_std(clip.mel)
  return labels.labelled(), rows
