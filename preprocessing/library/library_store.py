"""Decodes an own library into a song store."""

from collections.abc import Iterable, Iterator
import dataclasses
import hashlib
import itertools
import json
import pathlib
import shutil

import numpy as np
import tqdm

from pcl_jax.audio import channel_mix
from pcl_jax.audio import decode
from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.common import prefetch
from pcl_jax.common import storage
from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from pcl_jax.library import music_files
from preprocessing.library import decoding
from preprocessing.library import recognition
from preprocessing.library import song_records
from preprocessing.library.song_records import SongFile

_COMMIT_SONGS = 32
_TOLERANCE_S = 0.5
_COMMIT_BYTES = 1 << 27  # Hours of audio a song: committed sooner.

_FRAME_S = (
  melspectrogram.SETTINGS.hop_samples / melspectrogram.SETTINGS.sample_rate_hz
)

_Decoded = tuple[SongFile, np.ndarray | None]


@dataclasses.dataclass(frozen=True)
class Window:
  """The part of every track that is used, and of which channels.

  Attributes:
    from_s: its begin, in seconds.
    to_s: its end; None for the track's end.
    min_s: how long a track is at least; one that reaches `to_s` is long enough.
    channels: what is taken of several, one of `channel_mix.CHOICES`.
  """

  from_s: float = 0.0
  to_s: float | None = None
  min_s: float = 0.0
  channels: str = channel_mix.MEAN

  def is_short(self, length_s: float) -> bool:
    """Returns whether a track is too short; clips of 30 s have 29.9 or so."""
    least_s = min(self.min_s, self.to_s or self.min_s)
    return length_s < least_s - _TOLERANCE_S


@dataclasses.dataclass(frozen=True)
class Base:
  """The data set that is brought up to date.

  Attributes:
    store: the folder of its song store.
    records: path -> record of the files it was made of.
    ids: ids of all songs that it has or once had.
    anew: whether all is decoded again, and no feature copied.
  """

  store: pathlib.Path
  records: dict[str, SongFile]
  ids: frozenset[int]
  anew: bool = False


def _too_short(record: SongFile, length_s: float, window: Window) -> SongFile:
  """Returns the record of a file that is left out since it is too short."""
  reason = f"it is {length_s:.1f} s long, shorter than --min_s={window.min_s:g}"
  return dataclasses.replace(
    record, reason=reason, duplicate_of="", short_s=length_s
  )


def _decode(
  audio_dir: pathlib.Path, record: SongFile, window: Window
) -> _Decoded:
  """Returns a file's record and feature, or the record with the reason."""
  part = audio_dir / record.path, window.from_s, window.to_s
  found = decoding.decode(*part, window.channels)
  feature, reason = found.feature, found.reason
  if feature is not None:
    audio = recognition.digest(audio_dir / record.path)
    record = dataclasses.replace(record, audio=audio, damage=found.damage)
    length_s = window.from_s + (len(feature) - 1) * _FRAME_S
    if window.is_short(length_s):
      return _too_short(record, length_s, window), None
    if not melspectrogram.is_silent(feature):
      digest = hashlib.sha256(np.ascontiguousarray(feature, "<f2")).hexdigest()
      return dataclasses.replace(record, sha256=digest), feature
    reason = song_records.SILENT
    if window.channels != channel_mix.LOUDEST:
      loud = decoding.decode(*part, channel_mix.LOUDEST).feature
      if loud is not None and not melspectrogram.is_silent(loud):
        reason = song_records.SILENT_MIX[window.channels]
  return dataclasses.replace(record, reason=reason, needs=found.needs), None


def _copied(base: Base, songs: Iterable[SongFile]) -> Iterator[_Decoded]:
  """Yields the features that a finished store has."""
  store = song_store.SongStore(base.store)
  for record in songs:
    position = int(np.searchsorted(store.song_ids, record.id))
    yield record, store.read_song(position)


def _commit(
  writer: song_writer.SongWriter, records: list[SongFile], songs: list
) -> None:
  """Commits features, and with them what became of the files so far."""
  if records:
    note = json.dumps([dataclasses.asdict(one) for one in records])
    writer.add(songs, note.encode())


def _fill(
  writer: song_writer.SongWriter,
  decoded: Iterable[_Decoded],
  known: dict[str, SongFile],
  base: Base | None,
) -> dict[str, SongFile]:
  """Commits features as they come; of two alike, the first is the song.

  A new file with the feature of a song whose file is gone is that song.
  """
  lost = _lost(base, known)
  known = dict(known)
  first = {one.sha256: one.path for one in known.values() if not one.reason}
  records, songs, size = [], [], 0
  for record, feature in decoded:
    if feature is not None:
      same = first.setdefault(record.sha256, record.path)
      if same != record.path:
        record = song_records.as_duplicate(record, same)
      else:
        if base and record.id not in base.ids:
          known_id = lost.pop(record.sha256, record.id)
          record = dataclasses.replace(record, id=known_id)
        songs.append((record.id, feature))
        size += feature.nbytes
    records.append(record)
    known[record.path] = record
    if len(records) >= _COMMIT_SONGS or size >= _COMMIT_BYTES:
      _commit(writer, records, songs)
      records, songs, size = [], [], 0
  _commit(writer, records, songs)
  return known


def _noted(
  writer: song_writer.SongWriter,
  audio_dir: pathlib.Path,
  now: dict[str, music_files.Stamp],
  kept: dict[str, SongFile],
) -> dict[str, SongFile]:
  """Returns the records that an interrupted run committed and that hold.

  A song that was committed stands, even if its file is another by now: that
  shows when the data set is finished and compared with the folder again. It
  does not if its audio is known to lie elsewhere.
  """
  found = [SongFile(**one) for note in writer.notes for one in json.loads(note)]
  records = {one.path: one for one in found}
  left_out = {path: one for path, one in records.items() if one.reason}
  places = {one.id: path for path, one in kept.items()}
  songs = {
    path: one
    for path, one in records.items()
    if not one.reason and places.get(one.id, path) == path
  }
  return songs | recognition.unchanged(audio_dir, now, left_out)


def _lost(base: Base | None, known: dict[str, SongFile]) -> dict[str, int]:
  """Returns feature -> id of the songs whose files are not found."""
  if base is None:
    return {}
  found = {one.id for one in known.values()}
  return {
    one.sha256: one.id
    for one in base.records.values()
    if not one.reason and one.id not in found
  }


def _measured(
  records: dict[str, SongFile], base: Base, window: Window
) -> dict[str, SongFile]:
  """Returns records as `window.min_s` has them, without those to decode."""
  store = song_store.SongStore(base.store)
  frames = dict(
    zip(store.song_ids.tolist(), store.frames.tolist(), strict=True)
  )
  found = {}
  for path, one in records.items():
    song = records.get(one.duplicate_of, one)
    length_s = song.short_s
    if not song.reason:
      length_s = window.from_s + (frames[song.id] - 1) * _FRAME_S
    if length_s is not None and window.is_short(length_s):
      one = _too_short(one, length_s, window)
    elif length_s is not None and song.reason:
      continue
    found[path] = one
  return found


def _link(base: Base, store: pathlib.Path) -> None:
  """Gives a finished store, which never changes, a second name."""
  partial = store.with_name(store.name + ".partial")
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir()
  storage.link_or_copy(base.store / "data.mdb", partial / "data.mdb")
  partial.rename(store)


def _check_songs(
  writer: song_writer.SongWriter, folder: pathlib.Path, audio_dir: pathlib.Path
) -> None:
  if writer.done:
    return
  skipped = storage.read_made_json(folder / song_records.SKIPPED)
  short = sum("--min_s" in one["reason"] for one in skipped)
  remedy = f"Readable are {decode.FORMATS}."
  if short:
    remedy = f"{short} are too short: give a smaller --min_s."
  raise errors.InputError(
    f"none of the {len(skipped)} audio files of {audio_dir} can be used; "
    f"the first is {skipped[0]['file']}: {skipped[0]['reason']}. All are in "
    f"{folder / song_records.SKIPPED}. {remedy}"
  )


def _write(
  writer: song_writer.SongWriter,
  audio_dir: pathlib.Path,
  base: Base | None,
  known: dict[str, SongFile],
  copied: Iterable[_Decoded],
  todo: list[SongFile],
  window: Window,
  threads: int,
) -> dict[str, SongFile]:
  """Commits what is copied, and decodes the rest; returns all records."""
  bar = tqdm.tqdm(
    todo, "audio", len(known) + len(todo), initial=len(known), unit="file"
  )
  decoded = prefetch.in_order(
    lambda record: _decode(audio_dir, record, window),
    bar,
    threads=threads,
    ahead=2 * threads,
  )
  return _fill(writer, itertools.chain(copied, decoded), known, base)


def write_store(
  audio_dir: pathlib.Path,
  folder: pathlib.Path,
  base: Base | None,
  window: Window,
  threads: int,
) -> None:
  """Writes the song store, the list of songs left out and the files' records.

  Interrupted, it goes on with what was committed.

  Args:
    audio_dir: the library's folder.
    folder: where songs.lmdb, skipped.json, song_ids.json and song_files.jsonl
      are written. A song_ids.json that is there says which ids are taken.
    base: the data set that songs are recognised by, and features copied from.
    window: the part of every track that is used.
    threads: how many files are decoded at once.

  Raises:
    InputError: no file is usable, `base` is damaged, or the disk is full.
  """
  now = music_files.sound_stamps(audio_dir)
  _check_files(now, audio_dir)
  found: dict[str, SongFile] = {}
  if base:
    found = recognition.recognise(audio_dir, now, base.records, threads)
  there = recognition.read_ids(folder / music_files.IDS)
  ids = recognition.number(now, there, found)
  recognition.write_ids(folder / music_files.IDS, audio_dir, ids)
  kept: dict[str, SongFile] = {}
  if base and not base.anew:
    kept = _measured(found, base, window)
  todo = [
    SongFile(path, ids.ids[path], *stamp)
    for path, stamp in now.items()
    if path not in kept
  ]
  # Of a file and a link to it, the file is the song.
  todo.sort(key=lambda one: (audio_dir / one.path).is_symlink())
  if base and not todo and _songs(base.records) == _songs(kept):
    _link(base, folder / song_store.FILE_NAME)
    _write_lists(audio_dir, folder, ids, kept)
    return
  writer = song_writer.SongWriter(folder / song_store.FILE_NAME)
  try:
    noted = _noted(writer, audio_dir, now, found)
    known = kept | noted
    songs = [
      one for path, one in kept.items() if not one.reason and path not in noted
    ]
    copied = _copied(base, songs) if base else ()
    todo = [one for one in todo if one.path not in known]
    records = _write(
      writer, audio_dir, base, known, copied, todo, window, threads
    )
    _write_lists(audio_dir, folder, ids, records)
    _check_songs(writer, folder, audio_dir)
    source = dataclasses.asdict(window)
    channels = source.pop("channels")  # One of the feature's settings.
    made_by = {"made_by": "preprocessing.own_library"}
    writer.finish(made_by | source, channels)
  finally:
    writer.close()


def _check_files(now: dict[str, music_files.Stamp], audio_dir: pathlib.Path):
  if not now:
    raise errors.InputError(
      f"{audio_dir} has no audio file in it or below. Readable are "
      f"{decode.FORMATS}: give the folder of your music as --audio."
    )


def _songs(records: dict[str, SongFile]) -> set[int]:
  return {one.id for one in records.values() if not one.reason}


def _write_lists(
  audio_dir: pathlib.Path,
  folder: pathlib.Path,
  ids: recognition.Ids,
  records: dict[str, SongFile],
) -> None:
  """Writes the records, and the ids that some of them have found."""
  places = {path: one.id for path, one in records.items()}
  ids = recognition.place(ids, places)
  recognition.write_ids(folder / music_files.IDS, audio_dir, ids)
  song_records.write_records(folder / song_records.FILE_NAME, records.values())
  song_records.write_skipped(folder / song_records.SKIPPED, ids.ids, records)
