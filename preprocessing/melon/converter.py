"""Converts a Melon folder to a song store; `melon_lmdb` is its command."""

import collections
from collections.abc import Sequence
import contextlib
import hashlib
import json
import pathlib
import shutil
import sys
import time
from typing import Any

import numpy as np
import tqdm

from pcl_jax.audio import melspectrogram
from pcl_jax.audio import song_patches
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.common import usable_cores
from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from preprocessing.melon import conversion
from preprocessing.melon import exclusion
from preprocessing.melon import melon_ledger
from preprocessing.melon import melon_meta
from preprocessing.melon import melon_source

# 58,898 of Melon's 707,989 songs (8.3 %) never had a spectrogram, and about
# 1 % of the files are known to be bad.
MAX_SKIPPED_SHARE = 0.1
# Threads hold the interpreter's lock for 0.3 of 2.1 ms a song, so that some
# seven are kept busy; few are faster than processes, which take 0.5 s to start
# and 0.2 ms a song to hand over. See benchmarks/converter.py.
MOST_THREADS = 4
LEAST_SONGS_FOR_PROCESSES = 4000
_SONGS_PER_COMMIT = 256
_COMMIT_BYTES = 1 << 26
_SETTINGS_FILE = "melon_lmdb.json"


def _check_inputs(melon_dir: pathlib.Path, num_songs: int) -> None:
  if not num_songs:
    raise errors.InputError(
      f"{melon_dir / melon_meta.FOLDER / melon_meta.SONG_FILE} lists no song: "
      "there is nothing to convert."
    )
  has_folder = (melon_dir / melon_source.FOLDER).is_dir()
  if not has_folder and not melon_source.find_tars(melon_dir):
    raise errors.InputError(
      f"{melon_dir} has neither tars arena_mel_*.tar nor a folder arena_mel. "
      "Give with --melon_dir the folder that holds them and kakao_meta/."
    )


def _is_finished(
  store: pathlib.Path, settings_path: pathlib.Path, settings: dict[str, Any]
) -> bool:
  """Returns whether the store is there; refuses one of other settings."""
  partial = store.with_name(store.name + storage.PARTIAL)
  if not store.exists() and not partial.exists():
    settings_path.parent.mkdir(parents=True, exist_ok=True)
    storage.write_json(settings_path, settings)
    return False
  try:
    differing = storage.differences(storage.read_json(settings_path), settings)
  except (OSError, ValueError, AttributeError):
    differing = [f"{settings_path} does not say which"]
  if differing:
    place = store if store.exists() else partial
    raise errors.InputError(
      f"{place} was begun from another source or with other settings "
      f"({'; '.join(differing)}), and songs of the two would be mixed. Delete "
      "that folder to start over, or give another --out."
    )
  return store.exists()


def _check_disk(store: pathlib.Path, ledger: melon_ledger.Ledger) -> None:
  """Warns of a disk that may be too small; refuses one that must be."""
  total, _ = ledger.source_bytes()
  begun = store.with_name(store.name + storage.PARTIAL) / "data.mdb"
  there = begun.stat().st_size if begun.exists() else 0
  # Sources of float64, which are rare, need the least.
  needed, least = max(total // 2 - there, 0), max(total // 4 - there, 0)
  free = shutil.disk_usage(store.parent).free
  if free >= needed:
    return
  message = (
    f"the store of {total / 1e9:.3g} GB of spectrograms needs about "
    f"{needed / 1e9:.3g} GB more, and the disk of {store.parent} has "
    f"{free / 1e9:.3g} GB free"
  )
  if free < least:
    raise errors.InputError(
      f"{message}. Make room, or give an --out on another disk."
    )
  print(f"warning: {message}", file=sys.stderr)


class _Committer:
  """Gathers batches, commits them, and shows how far it is."""

  def __init__(
    self, writer: song_writer.SongWriter, ledger: melon_ledger.Ledger
  ):
    self._writer, self._ledger = writer, ledger
    self._songs, self._records, self._bytes = [], [], 0
    self._settled, self._begin = 0, time.monotonic()
    total, done = ledger.source_bytes()
    self.progress = tqdm.tqdm(
      total=total, initial=done, unit="B", unit_scale=True, disable=None
    )

  def take(self, batch: conversion.Batch) -> None:
    songs, record = self._ledger.settle(batch)
    self._songs += songs
    self._records.append(record)
    self._bytes += sum(feature.nbytes for _, feature in songs)
    self._settled += len(batch.songs) + len(batch.unusable)
    seconds = max(time.monotonic() - self._begin, 1e-9)
    self.progress.set_postfix_str(
      f"{self._settled / seconds:.0f} songs/s", refresh=False
    )
    self.progress.update(batch.num_bytes)
    count = max(len(self._songs), len(self._records))
    if count >= _SONGS_PER_COMMIT or self._bytes >= _COMMIT_BYTES:
      self.commit()

  def commit(self) -> None:
    if not self._records:
      return
    # Of a song that came twice, the better place came later; sorted stably.
    songs = sorted(self._songs, key=lambda one: one[0])
    note = json.dumps(self._records).encode()
    self._writer.add(list(dict(songs).items()), note)
    self._songs, self._records, self._bytes = [], [], 0


def _convert(
  writer: song_writer.SongWriter,
  ledger: melon_ledger.Ledger,
  job: conversion.Job,
  workers: int,
  processes: bool,
) -> None:
  """Converts what is not settled yet: unpacked files first, then tars."""
  if settled := ledger.num_settled():
    print(f"going on: {settled} songs are settled already")
  committer = _Committer(writer, ledger)
  with contextlib.closing(committer.progress):
    for plan in (ledger.file_tasks, ledger.tar_tasks):
      with conversion.run_tasks(
        plan(), job, workers, processes=processes
      ) as batches:
        for batch in batches:
          committer.take(batch)
      committer.commit()


def _check_skipped(
  skipped: list[dict[str, Any]],
  num_songs: int,
  max_skipped_share: float,
  skipped_path: pathlib.Path,
) -> dict[str, int]:
  """Returns reason -> songs, most frequent first; refuses too large a share."""
  counts = collections.Counter(one["reason"] for one in skipped)
  reasons = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
  unwished = {name: n for name, n in reasons.items() if name != "excluded"}
  total = sum(unwished.values())
  share = total / num_songs
  if share > max_skipped_share:
    reason, count = next(iter(unwished.items()))
    raise errors.InputError(
      f"{total} of {num_songs} songs ({share:.1%}) would be left out, "
      f"most often as {reason!r} ({count}); at most {max_skipped_share:.1%} "
      f"may be. {skipped_path} lists them all. Complete the files, or accept "
      "the loss with --max_skipped_share; the songs converted so far are kept "
      "and the same command line goes on."
    )
  return reasons


def _print_summary(
  store: song_store.SongStore, reasons: dict[str, int], num_songs: int
) -> None:
  s = melspectrogram.SETTINGS
  frames = int(store.frames.sum(dtype=np.int64))
  hours = frames * s.hop_samples / s.sample_rate_hz / 3600
  short = int((store.frames < song_patches.FRAMES).sum())
  print(f"{len(store)} of {num_songs} songs, {frames} frames, {hours:.1f} h")
  print(
    f"{short} songs are shorter than {song_patches.FRAMES} frames; they are "
    "kept and padded with silence when read"
  )
  left_out = sum(reasons.values())
  print(f"{left_out} songs left out ({left_out / num_songs:.1%})")
  for reason, count in reasons.items():
    print(f"  {reason}: {count}")


def _settings(
  meta_dir: pathlib.Path, min_frames: int, excluded: dict[int, str]
) -> dict[str, Any]:
  """Returns what an unfinished store must have been begun with."""
  ids = np.array(sorted(excluded), "<u4")
  return {
    "song_meta_sha256": melon_meta.files_sha256(meta_dir)[melon_meta.SONG_FILE],
    "min_frames": min_frames,
    "excluded": len(ids),
    "excluded_sha256": hashlib.sha256(ids.tobytes()).hexdigest(),
  }


def build_song_store(
  melon_dir: pathlib.Path,
  data_dir: pathlib.Path,
  *,
  min_frames: int = 1,
  exclude: Sequence[str] = (),
  max_skipped_share: float = MAX_SKIPPED_SHARE,
  workers: int | None = None,
  processes: bool | None = None,
) -> pathlib.Path:
  """Converts Melon's spectrogram files to data_dir/songs.lmdb.

  A store that exists is left as it is; an interrupted run is continued.

  Args:
    melon_dir: holds kakao_meta/ and arena_mel/ or arena_mel_*.tar.
    data_dir: the data set's folder; it is made if need be.
    min_frames: a song with fewer frames is left out.
    exclude: songs to leave out; see `exclusion.excluded_songs`.
    max_skipped_share: the largest share of the songs of song_meta.json, in
      [0, 1], that may be left out, not counting `exclude`.
    workers: how many read and convert at a time; one a core if None.
    processes: whether they are processes, not threads; by the numbers of
      songs and workers if None.

  Returns:
    The folder of the store.

  Raises:
    InputError: the source does not exist, too many songs are left out, the
      disk is full, or an unfinished store of another source is in the way.
    RunError: a worker process was killed.
  """
  melon_dir, data_dir = pathlib.Path(melon_dir), pathlib.Path(data_dir)
  store_path = data_dir / song_store.FILE_NAME
  meta_dir = melon_dir / melon_meta.FOLDER
  song_ids = melon_meta.read_songs(meta_dir).ids.astype(np.int64)
  _check_inputs(melon_dir, len(song_ids))
  excluded = exclusion.excluded_songs(exclude, song_ids)
  settings = _settings(meta_dir, min_frames, excluded)
  if _is_finished(store_path, data_dir / _SETTINGS_FILE, settings):
    print(f"{store_path} exists already: nothing to do")
    return store_path
  workers = workers or usable_cores.count()
  if processes is None:
    is_large = len(song_ids) >= LEAST_SONGS_FOR_PROCESSES
    processes = is_large and workers > MOST_THREADS
  with contextlib.closing(song_writer.SongWriter(store_path)) as writer:
    ledger = melon_ledger.Ledger(song_ids, excluded, melon_dir, writer.notes)
    _check_disk(store_path, ledger)
    job = conversion.Job(melon_dir, song_ids, min_frames)
    _convert(writer, ledger, job, workers, processes)
    skipped = ledger.left_out(melon_dir)
    skipped_path = data_dir / "skipped.json"
    storage.write_json(skipped_path, skipped)
    for line in ledger.oddities():
      print(line)
    reasons = _check_skipped(
      skipped, len(song_ids), max_skipped_share, skipped_path
    )
    writer.finish({"kind": "melon", **settings, "left_out": reasons})
  _print_summary(song_store.SongStore(store_path), reasons, len(song_ids))
  return store_path
