"""Reads a prepared tagging set, and embeds its clips in bounded memory."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import json
import os
import pathlib
from typing import Any

from jaxtyping import Bool, Float, Float16
import numpy as np

from pcl_jax import embed
from pcl_jax import errors
from pcl_jax import melspectrogram
from pcl_jax.data import plan as plans
from pcl_jax.data import song_store
from pcl_jax.evaluation import labelled

FORMAT_VERSION = 1
METADATA = "metadata.json"
AGGREGATION = "mean of patch embeddings"
SPLITS = {
  "train": labelled.TRAIN,
  "validation": labelled.VALIDATION,
  "test": labelled.TEST,
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

  def clips(self) -> Iterator[Clip]:
    """Yields all clips, in the order training, validation, test.

    Raises:
      InputError: a file is damaged.
    """
    for name, split in SPLITS.items():
      source = self._sources[name]
      for place in range(len(source)):
        try:
          record = source[place]
          mel = record["mel"].reshape(-1, song_store.MEL_BANDS)
        except Exception as error:
          raise self._damaged(error) from error
        labels = np.zeros(len(self.tags), bool)
        labels[np.asarray(record["tags"], int)] = True
        yield Clip(record["id"].decode(), split, labels, mel)


def _patches_of(
  mel: Float16[np.ndarray, "frames bands"],
) -> Float16[np.ndarray, "patches patch_frames bands"]:
  """Cuts a clip into whole patches; a shorter one is padded with silence."""
  _, starts = embed.patch_grid(np.array([len(mel)]))
  lacking = plans.PATCH_FRAMES - len(mel)
  if lacking > 0:
    mel = np.pad(
      mel, ((0, lacking), (0, 0)), constant_values=melspectrogram.SILENCE
    )
  whole = mel[: len(starts) * plans.PATCH_FRAMES]
  return whole.reshape(len(starts), plans.PATCH_FRAMES, -1)


class _Means:
  """Features of the patches of many clips, and then their means."""

  def __init__(self, embedder: Callable, batch_patches: int):
    shape = (batch_patches, plans.PATCH_FRAMES, song_store.MEL_BANDS)
    self._embedder = embedder
    self._batch = np.zeros(shape, np.float16)
    self._owners = np.zeros(batch_patches, np.int64)
    self._filled = 0
    self._sums: list[np.ndarray] = []
    self._counts: list[int] = []

  def add(self, patches: Float16[np.ndarray, "patches frames bands"]) -> None:
    """Takes the patches of the next clip."""
    owner = len(self._counts)
    self._counts.append(len(patches))
    self._sums.append(np.zeros(()))
    for patch in patches:
      self._batch[self._filled] = patch
      self._owners[self._filled] = owner
      self._filled += 1
      if self._filled == len(self._batch):
        self._encode()

  def _encode(self) -> None:
    # What an earlier batch left behind the patches is encoded and dropped, so
    # that there is one shape and one compilation.
    features = np.asarray(self._embedder(self._batch), np.float64)
    for owner, row in zip(self._owners[: self._filled], features, strict=False):
      self._sums[owner] = self._sums[owner] + row
    self._filled = 0

  def means(self) -> Float[np.ndarray, "clips features"]:
    """Returns the mean of each clip, float32 [clips, features]."""
    if self._filled:
      self._encode()
    counts = np.array(self._counts)[:, None]
    return (np.stack(self._sums) / counts).astype(np.float32)


def embed_clips(
  tagging_set: TaggingSet,
  embedders: Sequence[Callable],
  *,
  batch_patches: int = 64,
  progress: Callable[[Iterator[Clip]], Iterator[Clip]] = iter,
) -> tuple[labelled.LabelledSet, list[Float[np.ndarray, "clips _"]]]:
  """Embeds all clips of a set; read once, a clip and a batch are in memory.

  Args:
    tagging_set: the set.
    embedders: functions of patches [batch_patches, 256, 48] to features
      [batch_patches, features], as of `embed.make_embedder`.
    batch_patches: patches encoded at once, of any clips.
    progress: wraps the clips, for a progress bar.

  Returns:
    The clips' labels and splits, and of each embedder the mean over the
    features of a clip's whole, non-overlapping patches (a shorter clip is
    padded with silence), float32 [clips, features].

  Raises:
    InputError: a file of the set is damaged.
  """
  means = [_Means(one, batch_patches) for one in embedders]
  ids, labels, split = [], [], []
  for clip in progress(tagging_set.clips()):
    patches = _patches_of(clip.mel)
    for one in means:
      one.add(patches)
    ids.append(clip.id)
    labels.append(clip.labels)
    split.append(clip.split)
  found = labelled.LabelledSet(
    name=tagging_set.name,
    tags=tagging_set.tags,
    ids=tuple(ids),
    labels=np.array(labels),
    split=np.array(split),
    one_each=tagging_set.one_each,
  )
  return found, [one.means() for one in means]
