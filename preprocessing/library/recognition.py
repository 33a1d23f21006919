"""Recognises files of a library that were moved, renamed or tagged anew.

A song is its audio: whatever becomes of its file, it keeps its id and feature.
"""

import collections
from collections.abc import Iterable, Mapping
import dataclasses
import os
import pathlib

import tqdm

from pcl_jax.common import prefetch
from pcl_jax.common import storage
from pcl_jax.library import audio_digests
from pcl_jax.library import music_files
from preprocessing.library import song_records
from preprocessing.library.song_records import SongFile

_Stamps = Mapping[str, music_files.Stamp]
_Records = Mapping[str, SongFile]


@dataclasses.dataclass(frozen=True)
class Ids:
  """The ids of a library's songs, as song_ids.json has them.

  Attributes:
    ids: path -> id; the one path of each song that ever was, where it was last.
    moved: paths that songs had before -> id; playlists may name them.
  """

  ids: dict[str, int]
  moved: dict[str, int]


def read_ids(path: pathlib.Path) -> Ids:
  """Reads song_ids.json; no ids if it is absent.

  Raises:
    InputError: it cannot be read.
  """
  if not path.exists():
    return Ids({}, {})
  content = storage.read_made_json(path)
  return Ids(content["ids"], content.get("moved", {}))


def write_ids(path: pathlib.Path, audio_dir: pathlib.Path, ids: Ids) -> None:
  """Writes song_ids.json."""
  here = os.fspath(audio_dir.resolve())
  storage.write_json(path, {"audio_dir": here, **dataclasses.asdict(ids)})


def digest(path: pathlib.Path) -> str:
  """Returns the digest of a file's audio; empty if it cannot be read."""
  try:
    return audio_digests.digest(path)
  except OSError:
    return ""


def unchanged(
  audio_dir: pathlib.Path, now: _Stamps, records: _Records
) -> dict[str, SongFile]:
  """Returns the records of the files that are as they were."""
  return {
    path: one
    for path, one in records.items()
    if now.get(path) == one.stamp
    and not song_records.worth_another_try(audio_dir, one)
  }


def recognise(
  audio_dir: pathlib.Path, now: _Stamps, then: _Records, threads: int
) -> dict[str, SongFile]:
  """Returns the records of files whose audio was there before.

  Args:
    audio_dir: the library's folder.
    now: the files that are there, with their stamps.
    then: path -> record of the files that were there.
    threads: how many files are read at once.

  Returns:
    Path -> record, with the id that the audio had. A duplicate takes the place
    of a song whose audio is found nowhere else.
  """
  kept = unchanged(audio_dir, now, then)
  lost = {
    path: one for path, one in then.items() if one.audio and path not in kept
  }
  todo = [path for path in now if path not in kept] if lost else []
  found = prefetch.in_order(
    lambda path: digest(audio_dir / path),
    tqdm.tqdm(todo, "recognising", unit="file", disable=None if todo else True),
    threads=threads,
    ahead=2 * threads,
  )
  digests = dict(zip(todo, found, strict=True))
  by_audio = collections.defaultdict(list)
  for path, one in sorted(
    lost.items(), key=lambda pair: (bool(pair[1].reason), pair[0])
  ):
    by_audio[one.audio].append(path)
  in_place = {p for p in todo if p in lost and lost[p].audio == digests[p]}
  moves = {}
  for path in sorted(todo, key=lambda path: (path not in in_place, path)):
    places = by_audio[digests[path]]
    if places:
      old = path if path in in_place else places[0]
      places.remove(old)
      moves[old] = path
      size, mtime_ns = now[path]
      kept[path] = dataclasses.replace(
        lost[old], path=path, bytes=size, mtime_ns=mtime_ns
      )
  return _with_songs(kept, then, moves)


def _with_songs(
  kept: dict[str, SongFile], then: _Records, moves: Mapping[str, str]
) -> dict[str, SongFile]:
  """Returns records in which every duplicate is one of a song."""
  heirs: dict[str, str] = {}  # Song that is gone -> duplicate in its place.
  made = {}
  for path, one in sorted(kept.items()):
    if one.duplicate_of:
      song = moves.get(one.duplicate_of, one.duplicate_of)
      if song not in kept or kept[song].sha256 != one.sha256:
        if song not in then:
          continue  # Nobody knows where its feature is.
        heir = heirs.setdefault(song, path)
        if heir == path:
          one = dataclasses.replace(
            one, id=then[song].id, reason="", duplicate_of=""
          )
        song = heir
      if one.duplicate_of:
        one = song_records.as_duplicate(one, song)
    made[path] = one
  return made


def number(paths: Iterable[str], there: Ids, kept: _Records) -> Ids:
  """Returns the ids of all paths: recognised, as before, or new.

  Args:
    paths: the files that are there.
    there: the ids so far.
    kept: what `recognise` gave.
  """
  ids = {path: one.id for path, one in kept.items()}
  taken = set(ids.values())
  free = max([*there.ids.values(), *there.moved.values(), *taken], default=-1)
  for path in paths:
    if path in ids:
      continue
    known = there.ids.get(path)
    if known is None or known in taken:
      free = known = free + 1
    ids[path] = known
  return place(there, ids)


def place(there: Ids, ids: Mapping[str, int]) -> Ids:
  """Returns ids in which some songs lie elsewhere than before.

  Args:
    there: the ids so far.
    ids: path -> id of all files that are there.
  """
  taken = set(ids.values())
  left = {path: one for path, one in there.ids.items() if path not in ids}
  gone = {path: one for path, one in left.items() if one not in taken}
  before = there.moved | {p: one for p, one in left.items() if one in taken}
  return Ids(
    dict(sorted((gone | ids).items(), key=lambda pair: (pair[1], pair[0]))),
    {path: one for path, one in before.items() if path not in ids},
  )


def is_moved(now: _Stamps, then: _Records) -> bool:
  """Returns whether most files lie, under their names, in another folder."""
  names = collections.Counter(
    (os.path.basename(path), size) for path, (size, _) in now.items()
  )
  found = 0
  for path, one in then.items():
    key = os.path.basename(path), one.bytes
    found += names[key] > 0
    names[key] -= 1
  return 2 * found > len(then)


def count(then: _Records, after: _Records) -> dict[str, int]:
  """Counts what has become of files, for people.

  Args:
    then: path -> record of the files before.
    after: path -> record of the files now.
  """
  places = {one.id: path for path, one in then.items()}
  counts = dict.fromkeys(
    ("added", "moved", "removed", "changed", "touched", "kept"), 0
  )
  left = set(then)
  for path, one in after.items():
    old = then.get(places.get(one.id, path))
    same = old is not None and one.audio == old.audio != ""
    if path not in then:
      counts["added" if old is None else "moved"] += 1
      left.discard(places.get(one.id, path))
    elif then[path].stamp != one.stamp:
      counts["touched" if same else "changed"] += 1
    counts["kept"] += same or (old is not None and old.stamp == one.stamp)
    left.discard(path)
  return counts | {"removed": len(left)}
