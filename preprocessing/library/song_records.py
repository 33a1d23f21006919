"""What has become of each audio file of an own library."""

from collections.abc import Iterable
import dataclasses
import json
import os
import pathlib
from typing import Any

from pcl_jax.audio import channel_mix
from pcl_jax.audio import containers
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.library import music_files

FILE_NAME = "song_files.jsonl"
SKIPPED = "skipped.json"
# Reasons: of a silent song, and of one that is not by its loudest channel.
SILENT = "it is silent from beginning to end"
SILENT_MIX = {
  channel_mix.MEAN: "its channels cancel each other out; --channels=loudest "
  "takes one",
  channel_mix.LEFT: "its left channel is silent; --channels=loudest takes one "
  "that is not",
}


@dataclasses.dataclass(frozen=True)
class SongFile:
  """What has become of an audio file.

  Attributes:
    path: its path in the library's folder, with '/'.
    id: the id of its song.
    bytes: the file's length.
    mtime_ns: the time of its last change.
    sha256: the hash of its feature; empty if it has none.
    reason: why it is left out; empty if it is a song of the store.
    duplicate_of: path of the song that has the same feature, or empty.
    needs: what was missing to read it (`containers.ACCESS`), or empty.
    short_s: its length, if it is left out since it is too short.
    audio: the digest of its encoded audio (`library.audio_digests`); empty if
      it has no feature, or was read by an earlier version.
    damage: what is missing of its sound, though it is a song; mostly empty.
  """

  path: str
  id: int
  bytes: int
  mtime_ns: int
  sha256: str = ""
  reason: str = ""
  duplicate_of: str = ""
  needs: str = ""
  short_s: float | None = None
  audio: str = ""
  damage: str = ""

  @property
  def stamp(self) -> music_files.Stamp:
    """The file's length and time of change."""
    return self.bytes, self.mtime_ns


def count_silent(records: Iterable[SongFile]) -> dict[str, int]:
  """Counts the files left out since they are silent, by key of library.json."""
  reasons = [one.reason for one in records]
  return {
    "silent": reasons.count(SILENT),
    "silent_mix": sum(map(reasons.count, SILENT_MIX.values())),
  }


def write_records(path: pathlib.Path, records: Iterable[SongFile]) -> None:
  """Writes one line for each file, sorted by path."""
  lines = [
    json.dumps(dataclasses.asdict(one)) + "\n"
    for one in sorted(records, key=lambda one: one.path)
  ]
  storage.write_text(path, "".join(lines))


def read_records(path: pathlib.Path) -> dict[str, SongFile]:
  """Reads the lines of `write_records`: path -> record; none if it is absent.

  Raises:
    InputError: a line is damaged.
  """
  if not path.exists():
    return {}
  try:
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [SongFile(**json.loads(line)) for line in lines]
  except (OSError, ValueError, TypeError) as error:
    raise errors.InputError(
      f"{path} cannot be read ({error}). Copy it again, or make the data set "
      "again with --force."
    ) from error
  return {one.path: one for one in found}


def worth_another_try(audio_dir: pathlib.Path, record: SongFile) -> bool:
  """Returns whether what a file lacked is there now."""
  if record.needs == containers.ACCESS:
    return os.access(audio_dir / record.path, os.R_OK)
  return bool(record.needs)  # A decoder that earlier versions did not bring.


def as_duplicate(record: SongFile, song: str) -> SongFile:
  """Returns a record as that of a file with the audio of the song at a path."""
  return dataclasses.replace(
    record, reason=f"it has the same audio as {song}", duplicate_of=song
  )


def write_skipped(
  path: pathlib.Path, ids: dict[str, int], records: dict[str, SongFile]
) -> None:
  """Writes skipped.json: all songs that ever were and are not in the store.

  Args:
    path: the file to write.
    ids: path -> id of all songs that ever were.
    records: path -> record of all files that are there.
  """
  skipped = []
  for name, song_id in sorted(ids.items(), key=lambda one: one[1]):
    record = records.get(name)
    reason = record.reason if record else "it is no longer in the folder"
    if reason:
      entry: dict[str, Any] = {"id": song_id, "file": name, "reason": reason}
      if record and record.duplicate_of:
        entry["duplicate_of"] = record.duplicate_of
      skipped.append(entry)
  storage.write_json(path, skipped)
