"""Writes a song store; a later writer continues an interrupted one."""

from collections.abc import Iterable
import itertools
import json
import os
import pathlib
import shutil
from typing import Any
import zlib

from jaxtyping import Float16
import lmdb
import numpy as np

from pcl_jax.audio import channel_mix
from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import song_store

_CHUNK_PREFIX = b"__songs__:"  # What one commit added; gathered at the end.
_NOTE_PREFIX = b"__notes__:"  # What the writer's user kept; deleted at the end.
_FIRST_MAP_BYTES = 1 << 30


class SongWriter:
  """Writes a song store under a temporary name and renames it when finished.

  Interrupted at any moment, another writer of the same path goes on with the
  songs already committed (`done`).
  """

  def __init__(self, path: str | os.PathLike[str]):
    """Opens `path` + `.partial`, made by an earlier writer or new.

    Raises:
      InputError: the finished store exists already, or lacked only its name,
        which it has now. Or its disk is full, or what is there is damaged or
        another user's.
    """
    self._path = pathlib.Path(path)
    if self._path.exists():
      raise errors.InputError(
        f"{self._path} exists already and a song store is never changed: "
        "delete it to make it again, or give another output."
      )
    self._partial = self._path.with_name(self._path.name + storage.PARTIAL)
    self._partial.mkdir(parents=True, exist_ok=True)
    self._env = self._open()
    rows, self._commits = self._read_chunks()
    if not len(rows) and self._read(song_store.SONGS_KEY):
      self._rename()
      raise errors.InputError(
        f"{self._path} is finished: an earlier run was stopped just before it "
        "gave the store its name. Run the same command again."
      )
    self.done: set[int] = {int(i) for i in rows["id"]}
    self.notes: list[bytes] = [value for _, value in self._read(_NOTE_PREFIX)]

  def _open(self) -> lmdb.Environment:
    data = self._partial / "data.mdb"
    size = data.stat().st_size if data.exists() else 0
    try:
      # No writemap: with it, a full disk kills the process (SIGBUS).
      return lmdb.open(
        os.fspath(self._partial), map_size=max(_FIRST_MAP_BYTES, 2 * size)
      )
    except lmdb.ReadonlyError as error:  # The files are another user's.
      raise errors.InputError(
        f"{self._partial} cannot be opened ({error}): this user may not write "
        "its files. Run the command as the user who began it."
      ) from error
    except lmdb.Error as error:
      free = shutil.disk_usage(self._partial).free
      remedy = f"its disk has {free} bytes free: make room, or use a local disk"
      if size:
        remedy += (
          ". Where there is room it is damaged, as by a loss of power: delete "
          f"{self._partial}, and the same command begins anew"
        )
      raise errors.InputError(
        f"{self._partial} cannot be opened ({error}); {remedy}."
      ) from error

  def _read(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
    """Returns what the commits left under a prefix, in their order."""
    with self._env.begin() as txn:
      cursor = txn.cursor()
      found = cursor if cursor.set_range(prefix) else ()
      found = itertools.takewhile(lambda one: one[0].startswith(prefix), found)
      return [(key[len(prefix) :], value) for key, value in found]

  def _read_chunks(self) -> tuple[np.ndarray, int]:
    """Returns a row of each song, and a number that no commit has yet."""
    chunks = self._read(_CHUNK_PREFIX)
    added = b"".join(value for _, value in chunks)
    # Of a song added twice, the later.
    rows = np.frombuffer(added, song_store.SONG_DTYPE)[::-1]
    _, last = np.unique(rows["id"], return_index=True)
    numbers = chunks + self._read(_NOTE_PREFIX)
    return rows[last], max((int(key, 16) + 1 for key, _ in numbers), default=0)

  def add(
    self,
    songs: Iterable[tuple[int, Float16[np.ndarray, "_ bands"]]],
    note: bytes = b"",
  ) -> None:
    """Commits some songs, all or none; call it with a few hundred at a time.

    A song that was added before is replaced. The note is committed with them,
    and read by a writer that goes on (`notes`), not by readers of the store.

    Raises:
      InputError: the disk is full or cannot be written.
    """
    records, rows = {}, []
    for song_id, feature in songs:
      value = np.ascontiguousarray(feature, "<f2").tobytes()
      records[song_store.song_key(int(song_id))] = value
      rows.append((song_id, len(feature), zlib.crc32(value)))
    number = f"{self._commits:08x}".encode()
    if rows:
      added = np.array(rows, song_store.SONG_DTYPE)
      records[_CHUNK_PREFIX + number] = added.tobytes()
    if note:
      records[_NOTE_PREFIX + number] = note
    if records:
      self._commit(records)
      self._commits += 1
      self.done.update(int(song_id) for song_id, _, _ in rows)

  def _commit(self, records: dict[bytes, bytes], dropped=()) -> None:
    """Writes and drops records in one transaction; a full map grows first."""
    while True:
      try:
        with self._env.begin(write=True) as txn:
          for key in dropped:
            txn.delete(key)
          for key, value in records.items():
            txn.put(key, value)
        return
      except lmdb.MapFullError:  # Rolled back; the commit is tried again.
        self._env.set_mapsize(2 * self._env.info()["map_size"])
      except lmdb.Error as error:  # LMDB calls a full disk an input error.
        free = shutil.disk_usage(self._partial).free
        raise errors.InputError(
          f"{self._partial} cannot be written ({error}); its disk has {free} "
          f"bytes free, the next songs need {sum(map(len, records.values()))}. "
          "Make room; the songs written so far are kept and the same command "
          "goes on."
        ) from error

  def finish(
    self, source: dict[str, Any], channels: str = channel_mix.MEAN
  ) -> None:
    """Records where the songs came from and gives the store its name.

    Of several channels, the songs are `channels`, one of `channel_mix.CHOICES`.

    Raises:
      InputError: no song was added.
    """
    songs, _ = self._read_chunks()
    if not len(songs):
      raise errors.InputError(
        f"{self._path} would hold no song at all: nothing usable was found in "
        f"the source ({source}). See the list of left-out songs next to it."
      )
    meta = {
      "format_version": song_store.FORMAT_VERSION,
      "feature": melspectrogram.SETTINGS.as_dict(channels),
      "dtype": "float16, little-endian, [frames, mel bands]",
      "checksum": "crc32 of the value",
      "songs": len(songs),
      "frames": int(songs["frames"].sum(dtype=np.int64)),
      "source": source,
    }
    records = {
      song_store.SONGS_KEY: songs.tobytes(),
      song_store.META_KEY: json.dumps(meta, sort_keys=True).encode(),
    }
    dropped = [
      prefix + number
      for prefix in (_CHUNK_PREFIX, _NOTE_PREFIX)
      for number, _ in self._read(prefix)
    ]
    self._commit(records, dropped)
    self._rename()

  def _rename(self) -> None:
    """Gives a store that has all its records its name."""
    needed = song_store.needed_bytes(self._env)
    self.close()
    data = self._partial / "data.mdb"
    if data.stat().st_size < needed:
      os.truncate(data, needed)  # LMDB leaves out last pages that are unused.
    (self._partial / "lock.mdb").unlink(missing_ok=True)
    self._partial.rename(self._path)

  def close(self) -> None:
    """Closes the environment; what was committed stays."""
    self._env.close()
