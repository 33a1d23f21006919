"""Writes a tagging set as TensorFlow Datasets reads it, without TensorFlow.

The set is made in OUT.partial: shards of ArrayRecord files, each under a
temporary name first and then with a note of what became of its clips, so that
an interrupted run goes on with the next shard. Once complete, they get the
names and the metadata that `tfds.builder_from_directory` looks for, in
OUT.partial/ready, which is then renamed to OUT.

The shards are written here, since the writer of the library's builders holds a
gigabyte in memory and then asks for TensorFlow.
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import functools
import pathlib
import shutil
from typing import Any

from array_record.python import array_record_module
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer
import tqdm

from pcl_jax.common import prefetch
from pcl_jax.common import storage
from pcl_jax.data import song_store
from pcl_jax.evaluation.tagging import prepared_sets
from preprocessing.library import decoding
from preprocessing.tagging import tagging_clips
from preprocessing.tagging.tagging_clips import Clip

SHARD_CLIPS = 64  # Of whole tracks, some hundred megabytes.
BEGUN = "begun.json"
READY = "ready"
_SHARDS = "shards"
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_FORMAT = "array_record"


@dataclasses.dataclass(frozen=True)
class Shard:
  """Clips of one split that are written together.

  Attributes:
    name: the name of its file while the set is made.
    split: the split of all its clips.
    clips: the clips in their order.
  """

  name: str
  split: int
  clips: tuple[Clip, ...]


@dataclasses.dataclass(frozen=True)
class Note:
  """What became of the clips of a shard.

  Attributes:
    ids: the clips that are in its file.
    bytes: the size of all its records.
    missing: ids of clips without a file.
    unreadable: id -> why the clip's audio cannot be used.
    too_short: ids left out by the split's rule.
  """

  ids: list[str]
  bytes: int
  missing: list[str]
  unreadable: dict[str, str]
  too_short: list[str]


def _shards_of(clips: Iterable[Clip]) -> list[Shard]:
  """Lays out the shards; they depend on the clips alone."""
  shards = []
  for split, name in tagging_clips.SPLITS.items():
    some = [clip for clip in clips if clip.split == split]
    for number, first in enumerate(range(0, len(some), SHARD_CLIPS)):
      part = tuple(some[first : first + SHARD_CLIPS])
      shards.append(Shard(f"{name}-{number:05d}", split, part))
  return shards


@functools.cache
def features_of(tags: tuple[str, ...]) -> tfds.features.FeaturesDict:
  """Returns what a record holds, in the library's terms."""
  return tfds.features.FeaturesDict(
    {
      "id": tfds.features.Text(doc="of the clip, as the set has it"),
      "mel": tfds.features.Tensor(
        shape=(None, song_store.MEL_BANDS),
        dtype=np.float16,
        encoding="bytes",  # As they are; a list of floats takes twice as much.
        doc="log-mel feature, frames by bands; metadata.json has its settings",
      ),
      "tags": tfds.features.Sequence(
        tfds.features.ClassLabel(names=list(tags)), doc="of the clip"
      ),
    }
  )


def serialize(
  features: tfds.features.FeaturesDict, example: dict[str, Any]
) -> bytes:
  """Returns a record, whose bytes are the same in every process.

  The library itself orders the fields by a hash that differs from process to
  process.
  """
  serializer = example_serializer.ExampleSerializer(
    features.get_serialized_info()
  )
  message = serializer.get_tf_example(features.encode_example(example))
  return message.SerializeToString(deterministic=True)


class Writer:
  """Makes a set in OUT.partial, shard by shard."""

  def __init__(
    self,
    work: pathlib.Path,
    source: pathlib.Path,
    files: dict[str, str],
    clip_list: tagging_clips.ClipList,
    features_from: Sequence[prepared_sets.TaggingSet] = (),
  ):
    """Lays out the shards.

    Args:
      work: the folder to make the set in.
      source: the folder of the audio.
      files: id -> file of the clips that have one.
      clip_list: the set's lists.
      features_from: prepared sets of the same tracks, whose features are taken
        instead of decoding the files.
    """
    self._prepared = {
      clip: (one, *place)
      for one in features_from
      for clip, place in one.places().items()
    }
    self._folder = work / _SHARDS
    self._folder.mkdir(parents=True, exist_ok=True)
    self._source, self._files = source, files
    self._list = clip_list
    self.shards = _shards_of(clip_list.clips)

  def note(self, shard: Shard) -> Note | None:
    """Returns what became of a shard's clips, or None if it is not written."""
    path = self._folder / f"{shard.name}.json"
    return Note(**storage.read_made_json(path)) if path.exists() else None

  def write(self, threads: int) -> list[Note]:
    """Writes the shards that are not there or have unreadable clips.

    Returns:
      A note of each shard.
    """
    todo = [shard for shard in self.shards if self._is_undone(shard)]
    clips = [clip for shard in todo for clip in shard.clips]
    clips = [clip for clip in clips if clip.id in self._files]
    done = len(self._files) - len(clips)
    bar = tqdm.tqdm(clips, "audio", len(self._files), initial=done, unit="clip")
    decoded = prefetch.in_order(
      self._decode, bar, threads=threads, ahead=2 * threads
    )
    for shard in todo:
      self._write_shard(shard, decoded)
    return [self.note(shard) for shard in self.shards]

  def _is_undone(self, shard: Shard) -> bool:
    note = self.note(shard)
    if note is None or note.unreadable:
      return True
    return any(clip in self._files for clip in note.missing)

  def _decode(self, clip: Clip) -> decoding.Decoded:
    if clip.id in self._prepared:
      prepared, split, place = self._prepared[clip.id]
      return decoding.Decoded(prepared.read(split, place).mel)
    path = self._source / self._files[clip.id]
    return decoding.decode(path, clip.from_s, clip.to_s)

  def _write_shard(
    self, shard: Shard, decoded: Iterator[decoding.Decoded]
  ) -> None:
    features = features_of(self._list.tags)
    note, size = Note([], 0, [], {}, []), 0
    with storage.write_aside(self._folder / shard.name) as partial:
      writer = array_record_module.ArrayRecordWriter(
        str(partial), "group_size:1"
      )
      for clip in shard.clips:
        if clip.id not in self._files:
          note.missing.append(clip.id)
          continue
        found = next(decoded)
        if found.feature is None:
          note.unreadable[clip.id] = found.reason
        elif len(found.feature) < self._list.min_frames:
          note.too_short.append(clip.id)
        else:
          mel = np.ascontiguousarray(found.feature, "<f2")
          record = serialize(
            features, {"id": clip.id, "mel": mel, "tags": list(clip.labels)}
          )
          writer.write(record)
          note.ids.append(clip.id)
          size += len(record)
      writer.close()
    storage.write_json(
      self._folder / f"{shard.name}.json",
      dataclasses.asdict(dataclasses.replace(note, bytes=size)),
    )

  def finish(self, metadata: dict[str, Any], description: str) -> pathlib.Path:
    """Returns a folder with the shards and their metadata.

    Args:
      metadata: the content of `metadata.json`, fit for json.
      description: one sentence for people.
    """
    # The library wants small letters, digits and '_'.
    name = self._list.name.replace("-", "_")
    ready = self._folder.parent / READY
    shutil.rmtree(ready, ignore_errors=True)
    ready.mkdir()
    infos = [self._place(ready, name, split) for split in tagging_clips.SPLITS]
    ids = {name: [] for name in tagging_clips.SPLITS.values()}
    for shard in self.shards:
      ids[tagging_clips.SPLITS[shard.split]] += self.note(shard).ids
    storage.write_json(ready / prepared_sets.CLIPS, ids)
    tfds.folder_dataset.write_metadata(
      data_dir=ready,
      features=features_of(self._list.tags),
      split_infos=infos,
      version="1.0.0",
      check_data=False,  # It would read with TensorFlow.
      description=description,
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(metadata),
    )
    return ready

  def _place(
    self, ready: pathlib.Path, name: str, split: int
  ) -> tfds.core.SplitInfo:
    """Gives the shards of a split, but for empty ones, their last names."""
    notes = {s: self.note(s) for s in self.shards if s.split == split}
    filled = {shard: note for shard, note in notes.items() if note.ids}
    template = tfds.core.ShardedFileTemplate(
      data_dir=ready,
      template=_TEMPLATE,
      dataset_name=name,
      split=tagging_clips.SPLITS[split],
      filetype_suffix=_FORMAT,
    )
    for number, shard in enumerate(filled):
      target = template.sharded_filepath(
        shard_index=number, num_shards=len(filled)
      )
      # A second name, so that a crash leaves the file under the first.
      storage.link_or_copy(self._folder / shard.name, target)
    return tfds.core.SplitInfo(
      name=tagging_clips.SPLITS[split],
      shard_lengths=[len(note.ids) for note in filled.values()],
      num_bytes=sum(note.bytes for note in filled.values()),
      filename_template=template,
    )
