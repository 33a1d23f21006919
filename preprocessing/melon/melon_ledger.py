"""What is known about every song while a Melon folder is converted.

A song found more than once is taken from the first usable place: the unpacked
file, then the tars in the order of their numbers, then the order in the tar.
The order in time never matters, so that the result is the same whatever the
number of workers and interruptions. Each commit of the store carries a note of
what it settled; the notes of an interrupted run are read back.
"""

import collections
from collections.abc import Sequence
import functools
import json
import pathlib
from typing import Any

import numpy as np

from preprocessing.melon import conversion
from preprocessing.melon import melon_source

_NOWHERE = np.iinfo(np.int32).max
_SHOWN = 3
_FOLDER = conversion.FILES_OF_FOLDER


def _stamp(path: pathlib.Path) -> list[int]:
  found = path.stat()
  return [found.st_size, found.st_mtime_ns]


class Ledger:
  """Which songs are converted, which are unusable, which tars are read.

  Attributes:
    song_ids: the ids of the metadata, ascending, int64 [songs].
    excluded: songs that the user leaves out, id -> the choice that names it.
    files: unpacked files, id -> size and time of change.
    tars: the tars that are there, name -> size and time of change.
    finished: tars read to the end, name -> what was met in them.
  """

  def __init__(
    self,
    song_ids: np.ndarray,
    excluded: dict[int, str],
    melon_dir: pathlib.Path,
    notes: Sequence[bytes],
  ):
    """Looks at what is there and takes in an interrupted run's notes."""
    # int64, the type of a Python int: otherwise each look-up copies the array.
    self.song_ids = song_ids.astype(np.int64)
    self.excluded = excluded
    wanted = [one for one in song_ids.tolist() if one not in excluded]
    self.files = melon_source.find_files(melon_dir, wanted)
    self.tars = {
      path.name: _stamp(path) for path in melon_source.find_tars(melon_dir)
    }
    self.finished: dict[str, dict[str, Any]] = {}
    self._converted_from = np.full(len(song_ids), _NOWHERE, np.int32)
    self._unusable: dict[int, dict[str, Any]] = {}
    read = [record for note in notes for record in json.loads(note)]
    names = {record["source"] for record in read} | self.tars.keys()
    names = sorted(names - {_FOLDER}, key=melon_source.order)
    self._rank = {name: i for i, name in enumerate([_FOLDER, *names])}
    for record in read:
      self._take_in(record)

  def _take_in(self, record: dict[str, Any]) -> None:
    """Applies a note; forgets what was unusable in files changed since."""
    source = record["source"]
    for song_id in record["songs"]:
      self._is_better(song_id, source)
    # A tar that is gone was taken away when it was done with.
    is_same = self.tars.get(source, record["stamp"]) == record["stamp"]
    for entry in record["unusable"]:
      if source == _FOLDER:
        is_same = self.files.get(entry["id"]) == tuple(entry["stamp"])
      if is_same:
        self._note_unusable(entry, source)
    if record["finished"] and is_same:
      self.finished[source] = record["finished"]

  def _position(self, song_id: int) -> int:
    return int(np.searchsorted(self.song_ids, song_id))

  def _is_better(self, song_id: int, source: str) -> bool:
    """Adds a usable song; False where a better place had one."""
    i, rank = self._position(song_id), self._rank[source]
    if rank >= self._converted_from[i]:
      return False
    self._converted_from[i] = rank
    self._unusable.pop(song_id, None)
    return True

  def _note_unusable(self, entry: dict[str, Any], source: str) -> None:
    entry = entry | {"rank": self._rank[source]}
    known = self._unusable.get(entry["id"], entry)
    first = min(entry, known, key=lambda one: (one["rank"], one["place"]))
    is_usable = self._converted_from[self._position(entry["id"])] != _NOWHERE
    if first is entry and not is_usable:
      self._unusable[entry["id"]] = entry

  def settle(
    self, batch: conversion.Batch
  ) -> tuple[list[tuple[int, np.ndarray]], dict[str, Any]]:
    """Adds a batch; returns the songs to write and the record for the note."""
    songs = [
      one for one in batch.songs if self._is_better(one[0], batch.source)
    ]
    record = {
      "source": batch.source,
      "stamp": self.tars.get(batch.source),
      "songs": [song_id for song_id, _ in songs],
      "unusable": batch.unusable,
      "finished": batch.finished,
    }
    for entry in batch.unusable:
      self._note_unusable(entry, batch.source)
    if batch.finished:
      self.finished[batch.source] = batch.finished
    return songs, record

  def num_settled(self) -> int:
    """Returns how many songs are converted or known to be unusable."""
    converted = int((self._converted_from != _NOWHERE).sum())
    return converted + len(self._unusable)

  def source_bytes(self) -> tuple[int, int]:
    """Returns the bytes of all sources, and those that are done."""
    files = sum(size for size, _ in self.files.values())
    tars = sum(size for size, _ in self.tars.values())
    done = files - sum(self.files[i][0] for i in self._files_left())
    done += sum(self.tars[name][0] for name in self.finished.keys() & self.tars)
    return files + tars, done

  def _files_left(self) -> list[int]:
    ids = np.array(sorted(self.files), np.int64)
    places = np.searchsorted(self.song_ids, ids)
    ids = ids[self._converted_from[places] > self._rank[_FOLDER]].tolist()
    return [i for i in ids if self._unusable.get(i, {}).get("rank") != 0]

  def file_tasks(self) -> list[conversion.Task]:
    """Returns the unpacked files to read."""
    left, tasks = self._files_left(), []
    for start in range(0, len(left), conversion.FILES_PER_TASK):
      some = left[start : start + conversion.FILES_PER_TASK]
      tasks.append(
        conversion.Task(
          _FOLDER,
          np.searchsorted(self.song_ids, some),
          stamps={song_id: self.files[song_id] for song_id in some},
        )
      )
    return tasks

  def tar_tasks(self) -> list[conversion.Task]:
    """Returns the tars to read, and from each what no better place has yet.

    Call it after the unpacked files are converted.
    """
    allowed = np.ones(len(self.song_ids), bool)
    allowed[[self._position(one) for one in self.excluded]] = False
    unusable = collections.defaultdict(dict)
    for song_id, entry in self._unusable.items():
      unusable[entry["rank"]][song_id] = entry["place"]
    return [
      conversion.Task(
        name,
        np.flatnonzero(allowed & (self._converted_from > self._rank[name])),
        unusable=unusable[self._rank[name]],
      )
      for name in sorted(self.tars, key=melon_source.order)
      if name not in self.finished
    ]

  def damaged_tars(self) -> dict[str, str]:
    """Returns name -> what is wrong, in the order of the tars."""
    names = sorted(self.finished, key=melon_source.order)
    damages = {name: self.finished[name]["damage"] for name in names}
    return {name: damage for name, damage in damages.items() if damage}

  def oddities(self) -> list[str]:
    """Describes, in lines, what is wrong or unexpected in the tars."""
    damages = self.damaged_tars()
    lines = [
      f"{name} is damaged; its whole songs were used: {damages[name]}"
      for name in list(damages)[:_SHOWN]
    ]
    if more := list(damages)[_SHOWN:]:
      lines.append(f"  and {len(more)} more: {', '.join(more)}")
    gaps = [self.finished[name].get("gaps", 0) for name in damages]
    if sum(gaps):
      lost = sum(self.finished[name].get("gap_bytes", 0) for name in damages)
      lines.append(
        f"{sum(gaps)} gaps in damaged tars, {lost} bytes in all; songs in them "
        "are unreadable by their name in the tar, or missing where that is gone"
      )
    counts, examples = collections.Counter(), []
    for name in sorted(self.finished, key=melon_source.order):
      found = self.finished[name]
      counts.update(found["ignored"])
      counts["of a song that the metadata lack"] += found["unknown"]
      examples += [f"{name}:{member}" for member in found["examples"]]
    for kind, count in sorted((+counts).items()):
      lines.append(f"{count} members of tars ignored: {kind}")
    if examples:
      lines.append(f"  for example {', '.join(examples[:_SHOWN])}")
    return lines

  def _absence_in_tars(self) -> str:
    tars = self.tars.keys() | self.finished.keys()
    text = f" and in none of {len(tars)} tars" if tars else ""
    damages = [f"{name}: {one}" for name, one in self.damaged_tars().items()]
    if damages:
      text += f"; damaged: {'; '.join(damages[:_SHOWN])}"
    if more := damages[_SHOWN:]:
      text += f"; and {len(more)} more"
    return text

  def left_out(self, melon_dir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the entries of skipped.json, in the order of the ids."""
    in_tars = self._absence_in_tars()

    @functools.cache
    def has_folder(number: int) -> bool:
      return (melon_dir / melon_source.FOLDER / str(number)).exists()

    entries = []
    for song_id, rank in zip(
      self.song_ids.tolist(), self._converted_from.tolist(), strict=True
    ):
      entry = {"id": song_id, "file": melon_source.song_file(song_id)}
      if song_id in self.excluded:
        choice = self.excluded[song_id]
        entry |= {"reason": "excluded", "detail": f"--exclude={choice}"}
      elif song_id in self._unusable:
        known = self._unusable[song_id]
        entry = {key: known[key] for key in ("id", "file", "reason", "detail")}
      elif rank == _NOWHERE:
        number = song_id // melon_source.SONGS_PER_FOLDER
        what = "file" if has_folder(number) else f"folder {number}"
        detail = f"the {what} does not exist{in_tars}"
        entry |= {"reason": "missing", "detail": detail}
      else:
        continue
      entries.append(entry)
    return entries
