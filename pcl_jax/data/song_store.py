"""The song store: one LMDB environment with the feature of every song.

Key: the song's id, unsigned 32-bit big-endian, so that the B-tree is in id
order. Value: the feature, little-endian float16, time-major [frames, 48], and
nothing else, so that a patch is one contiguous run of bytes. `__meta__` holds
json (format version, feature settings, counts, source, checksum scheme) and
`__songs__` the ids, lengths and checksums of all songs, so that planning needs
no read. Both are too long to be a song's key.
"""

from collections.abc import Callable, Iterable
import json
import os
import pathlib
import shutil
import struct
import threading
from typing import Any
import zlib

from jaxtyping import Float16, Int, UInt32
import lmdb
import numpy as np

from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors

FORMAT_VERSION = 1
MEL_BANDS = melspectrogram.SETTINGS.mel_bands
MAX_SONG_ID = 2**32 - 1
_META_KEY = b"__meta__"
_SONGS_KEY = b"__songs__"
_CHUNK_PREFIX = b"__songs__:"  # What one commit added; gathered at the end.
_NOTE_PREFIX = b"__notes__:"  # What the writer's user kept; deleted at the end.
_SONG_DTYPE = np.dtype([("id", "<u4"), ("frames", "<i4"), ("crc32", "<u4")])
_FRAME_BYTES = 2 * MEL_BANDS
_FIRST_MAP_BYTES = 1 << 30


def song_key(song_id: int) -> bytes:
  """Returns the LMDB key of a song id."""
  return struct.pack(">I", song_id)


class SongWriter:
  """Writes a song store under a temporary name and renames it when finished.

  Interrupted at any moment, another writer of the same path goes on with the
  songs already committed (`done`).
  """

  def __init__(self, path: str | os.PathLike[str]):
    """Opens `path` + `.partial`, made by an earlier writer or new.

    Args:
      path: where the finished store will be.

    Raises:
      InputError: the finished store exists already.
    """
    self._path = pathlib.Path(path)
    if self._path.exists():
      raise errors.InputError(
        f"{self._path} exists already and a song store is never changed: "
        "delete it to make it again, or give another output."
      )
    self._partial = self._path.with_name(self._path.name + ".partial")
    self._partial.mkdir(parents=True, exist_ok=True)
    data = self._partial / "data.mdb"
    size = data.stat().st_size if data.exists() else 0
    # No writemap: with it, a full disk kills the process (SIGBUS).
    self._env = lmdb.open(
      os.fspath(self._partial), map_size=max(_FIRST_MAP_BYTES, 2 * size)
    )
    rows, self._commits = self._read_chunks()
    self.done: set[int] = {int(i) for i in rows["id"]}
    self.notes: list[bytes] = [value for _, value in self._read(_NOTE_PREFIX)]

  def _read(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
    """Returns what the commits left under a prefix, in their order."""
    found = []
    with self._env.begin() as txn:
      cursor = txn.cursor()
      if cursor.set_range(prefix):
        for key, value in cursor:
          if not key.startswith(prefix):
            break
          found.append((key[len(prefix) :], value))
    return found

  def _read_chunks(self) -> tuple[np.ndarray, int]:
    """Returns a row of each song, and a number that no commit has yet."""
    found = [np.empty(0, _SONG_DTYPE)]
    chunks = self._read(_CHUNK_PREFIX)
    found += [np.frombuffer(value, _SONG_DTYPE) for _, value in chunks]
    rows = np.concatenate(found)[::-1]  # Of a song added twice, the later.
    _, last = np.unique(rows["id"], return_index=True)
    numbers = chunks + self._read(_NOTE_PREFIX)
    return rows[last], max((int(key, 16) + 1 for key, _ in numbers), default=0)

  def add(
    self,
    songs: Iterable[tuple[int, Float16[np.ndarray, "_ bands"]]],
    note: bytes = b"",
  ) -> None:
    """Commits some songs, all or none; call it with a few hundred at a time.

    Args:
      songs: pairs of id and feature, float16 [frames, 48]. A song that is
        there already is replaced.
      note: committed with them, for a writer that goes on after this one
        (`notes`, in order); it is not part of the finished store.

    Raises:
      InputError: the disk is full or cannot be written.
    """
    songs = list(songs)
    rows = np.empty(len(songs), _SONG_DTYPE)
    values = []
    for row, (song_id, feature) in zip(rows, songs, strict=True):
      value = np.ascontiguousarray(feature, "<f2").tobytes()
      row["id"], row["frames"] = song_id, feature.shape[0]
      row["crc32"] = zlib.crc32(value)
      values.append(value)
    if not songs and not note:
      return
    self._write(lambda: self._commit(rows, values, note), sum(map(len, values)))
    self._commits += 1
    self.done.update(int(i) for i in rows["id"])

  def _write(self, commit: Callable[[], None], num_bytes: int) -> None:
    """Runs a write transaction; where the map is full, it grows first."""
    while True:
      try:
        return commit()
      except lmdb.MapFullError:  # Rolled back; the commit is tried anew.
        self._env.set_mapsize(2 * self._env.info()["map_size"])
      except lmdb.Error as error:  # LMDB calls a full disk an input error.
        free = shutil.disk_usage(self._partial).free
        raise errors.InputError(
          f"{self._partial} cannot be written ({error}); its disk has {free} "
          f"bytes free, the next songs need {num_bytes}. Make room; the songs "
          "written so far are kept and the same command goes on."
        ) from error

  def _commit(self, rows: np.ndarray, values: list[bytes], note: bytes) -> None:
    number = f"{self._commits:08x}".encode()
    with self._env.begin(write=True) as txn:
      for song_id, value in zip(rows["id"], values, strict=True):
        txn.put(song_key(int(song_id)), value)
      if values:
        txn.put(_CHUNK_PREFIX + number, rows.tobytes())
      if note:
        txn.put(_NOTE_PREFIX + number, note)

  def finish(self, source: dict[str, Any]) -> None:
    """Writes the records about the songs and gives the store its name.

    Args:
      source: where the songs came from; plain values, fit for json.

    Raises:
      InputError: no song was added.
    """
    songs, _ = self._read_chunks()
    if not len(songs):
      raise errors.InputError(
        f"{self._path} would hold no song at all: nothing usable was found in "
        f"the source ({source}). See the list of left-out songs beside it."
      )
    meta = {
      "format_version": FORMAT_VERSION,
      "feature": melspectrogram.SETTINGS.as_dict(),
      "dtype": "float16, little-endian, [frames, mel bands]",
      "checksum": "crc32 of the value",
      "songs": len(songs),
      "frames": int(songs["frames"].sum(dtype=np.int64)),
      "source": source,
    }
    records = {
      _SONGS_KEY: songs.tobytes(),
      _META_KEY: json.dumps(meta, sort_keys=True).encode(),
    }
    self._write(
      lambda: self._commit_records(records), sum(map(len, records.values()))
    )
    needed = _needed_bytes(self._env)
    self.close()
    data = self._partial / "data.mdb"
    if data.stat().st_size < needed:
      os.truncate(data, needed)  # LMDB leaves out last pages that are unused.
    (self._partial / "lock.mdb").unlink(missing_ok=True)
    self._partial.rename(self._path)

  def _commit_records(self, records: dict[bytes, bytes]) -> None:
    with self._env.begin(write=True) as txn:
      for prefix in (_CHUNK_PREFIX, _NOTE_PREFIX):
        cursor = txn.cursor()
        found = cursor.set_range(prefix)
        while found and cursor.key().startswith(prefix):
          found = cursor.delete() and bool(cursor.key())
      for key, value in records.items():
        txn.put(key, value)

  def close(self) -> None:
    """Closes the environment; what was committed stays."""
    self._env.close()


# By inode: a store may be moved or linked. While it is open, it keeps its own.
_environments: dict[tuple[int, int], lmdb.Environment] = {}
_environments_lock = threading.Lock()


def _environment(path: pathlib.Path, readahead: bool) -> lmdb.Environment:
  """Opens a file once a process: LMDB refuses to open it twice.

  Whether the system reads ahead is decided by who opens it first.
  """
  found = (path / "data.mdb").stat()
  key = (found.st_dev, found.st_ino)
  with _environments_lock:
    if key not in _environments:
      _environments[key] = lmdb.open(
        os.fspath(path.resolve()),
        readonly=True,
        lock=False,
        readahead=readahead,
        create=False,
      )
    return _environments[key]


def _needed_bytes(env: lmdb.Environment) -> int:
  return (env.info()["last_pgno"] + 1) * env.stat()["psize"]


def _check_size(env: lmdb.Environment, data: pathlib.Path) -> None:
  """Refuses a truncated file: reading past its end kills the process."""
  needed = _needed_bytes(env)
  actual = data.stat().st_size
  if actual < needed:
    raise errors.InputError(
      f"{data} is truncated: it has {actual} bytes and its header asks for "
      f"{needed}. Copy it again, or delete its folder and make it again."
    )


class SongStore:
  """Reads a song store; safe to use from several threads.

  Attributes:
    path, meta: folder of the LMDB environment, and its `__meta__` record.
    song_ids: ids of all songs, ascending, uint32 [songs].
    frames: length of each, int32 [songs], in the order of `song_ids`.
    checksums: CRC-32 of each record, uint32 [songs].
  """

  def __init__(self, path: str | os.PathLike[str], *, readahead: bool = False):
    """Opens a finished store.

    Args:
      path: folder of the LMDB environment.
      readahead: whether the system may read more than is asked for: good for
        songs in the order of their ids, bad for random patches. The first
        opening of a path in a process decides.

    Raises:
      InputError: it is absent, truncated, of another format version or of
        other feature settings.
    """
    self.path = pathlib.Path(path)
    data = self.path / "data.mdb"
    if not data.exists():
      raise errors.InputError(
        f"{self.path} is not a song store (no data.mdb in it). Make one with "
        "preprocessing.melon_lmdb, preprocessing.own_library or "
        "preprocessing.sample_melon."
      )
    try:
      self._env = _environment(self.path, readahead)
    except lmdb.Error as error:
      raise errors.InputError(
        f"{data} cannot be opened as LMDB ({error}). Copy it again, or delete "
        "its folder and make it again."
      ) from error
    _check_size(self._env, data)
    self.meta, songs = self._read_records()
    self.song_ids: UInt32[np.ndarray, " songs"] = songs["id"].copy()
    self.frames: Int[np.ndarray, " songs"] = songs["frames"].copy()
    self.checksums = songs["crc32"].copy()
    self._keys = [song_key(int(i)) for i in self.song_ids]
    self._reading: dict[int, int] = {}  # Thread -> the song it is at.

  def _read_records(self) -> tuple[dict[str, Any], np.ndarray]:
    try:
      with self._env.begin() as txn:
        meta, songs = txn.get(_META_KEY), txn.get(_SONGS_KEY)
    except lmdb.Error as error:
      raise errors.InputError(
        f"{self.path} cannot be read ({error}): the file's pages are damaged. "
        "Copy the store again, or delete its folder and make it again."
      ) from error
    if meta is None or songs is None:
      raise errors.InputError(
        f"{self.path} is an LMDB environment but has no record "
        f"{_META_KEY.decode()!r}, so it is not a finished song store. Make one "
        "with preprocessing.melon_lmdb or preprocessing.own_library."
      )
    try:
      meta = json.loads(meta)
      version, feature = meta["format_version"], dict(meta["feature"])
      songs = np.frombuffer(songs, _SONG_DTYPE)
    except (ValueError, KeyError, TypeError) as error:
      raise errors.InputError(
        f"the records about the songs of {self.path} are damaged ({error!r}). "
        "Copy the store again, or delete its folder and make it again."
      ) from error
    if version != FORMAT_VERSION:
      raise errors.InputError(
        f"{self.path} has format version {version}, this version of pcl_jax "
        f"reads {FORMAT_VERSION}. Make the store again."
      )
    melspectrogram.check_settings(feature, os.fspath(self.path))
    return meta, songs

  def __len__(self) -> int:
    return len(self.song_ids)

  def read_patches(
    self,
    songs: Int[np.ndarray, " patches"],
    starts: Int[np.ndarray, " patches"],
    out: Float16[np.ndarray, "patches frames bands"],
  ) -> None:
    """Copies patches into `out`, and nothing else of their songs.

    Args:
      songs: positions in `song_ids`, [patches].
      starts: first frame of each patch, [patches]; where a song ends before
        the patch does, the rest is the feature of silence.
      out: float16 [patches, frames, 48], contiguous, overwritten.

    Raises:
      InputError: a record is missing or does not have the length on file.
    """
    patch_bytes = out.shape[1] * _FRAME_BYTES
    silence = np.full(out.shape[1:], melspectrogram.SILENCE, "<f2").tobytes()
    # Bytes to bytes: an assignment between arrays costs half as much again.
    target, known, value = memoryview(out).cast("B"), -1, None
    order = np.argsort(songs, kind="stable")  # One look-up a song.
    firsts = (starts[order].astype(np.int64) * _FRAME_BYTES).tolist()
    lengths = (self.frames[songs].astype(np.int64) * _FRAME_BYTES).tolist()
    reading, thread = self._reading, threading.get_ident()
    # A short transaction; no view of the map outlives it, close or unmap.
    with self._env.begin(buffers=True) as txn:
      get, keys = txn.get, self._keys
      for row, song, first in zip(
        order.tolist(), songs[order].tolist(), firsts, strict=True
      ):
        if song != known:
          reading[thread] = known = song
          try:
            value = get(keys[song])
          except lmdb.Error as error:
            raise self._damaged(song, None) from error
          if value is None or len(value) != lengths[row]:
            raise self._damaged(song, value)
        piece = value[first : first + patch_bytes]
        if len(piece) < patch_bytes:
          piece = bytes(piece) + silence[len(piece) :]
        target[row * patch_bytes : (row + 1) * patch_bytes] = piece
    reading.pop(thread, None)

  def being_read(self) -> list[int]:
    """Returns the ids of the songs that threads are reading just now."""
    return [int(self.song_ids[song]) for song in self._reading.values()]

  def read_song(self, song: int) -> Float16[np.ndarray, "frames bands"]:
    """Returns a copy of a song's whole feature, checked against its checksum.

    Args:
      song: position in `song_ids`.

    Raises:
      InputError: the record is missing or damaged.
    """
    with self._env.begin() as txn:
      value = txn.get(self._keys[song])
    if value is None or zlib.crc32(value) != int(self.checksums[song]):
      raise self._damaged(song, value)
    return np.frombuffer(value, "<f2").reshape(-1, MEL_BANDS).copy()

  def _damaged(self, song: int, value: Any) -> errors.InputError:
    found = "absent" if value is None else f"{len(value)} bytes"
    return errors.InputError(
      f"song {int(self.song_ids[song])} of {self.path} is damaged: its record "
      f"is {found}; {int(self.frames[song]) * _FRAME_BYTES} bytes with another "
      "checksum were written. Copy the store again, or make it again."
    )
