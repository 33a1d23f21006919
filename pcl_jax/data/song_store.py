"""The song store: one LMDB environment with the feature of every song.

Key: the song's id, unsigned 32-bit big-endian, so that the B-tree is in id
order. Value: the feature, little-endian float16, time-major [frames, 48], and
nothing else, so that a patch is one contiguous run of bytes. `__meta__` holds
json (format version, feature settings, counts, source, checksum scheme) and
`__songs__` the ids, lengths and checksums of all songs, so that planning needs
no read. Both are too long to be a song's key.
"""

from collections.abc import Iterable
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

from pcl_jax import errors
from pcl_jax import melspectrogram

FORMAT_VERSION = 1
MEL_BANDS = melspectrogram.SETTINGS.mel_bands
MAX_SONG_ID = 2**32 - 1
_META_KEY = b"__meta__"
_SONGS_KEY = b"__songs__"
_CHUNK_PREFIX = b"__songs__:"  # What one commit added; gathered at the end.
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
    self.done: set[int] = {int(i) for i in self._read_chunks()["id"]}

  def _read_chunks(self) -> np.ndarray:
    found = [np.empty(0, _SONG_DTYPE)]
    with self._env.begin() as txn:
      cursor = txn.cursor()
      if cursor.set_range(_CHUNK_PREFIX):
        for key, value in cursor:
          if not key.startswith(_CHUNK_PREFIX):
            break
          found.append(np.frombuffer(value, _SONG_DTYPE))
    return np.concatenate(found)

  def add(
    self, songs: Iterable[tuple[int, Float16[np.ndarray, "_ bands"]]]
  ) -> None:
    """Commits some songs, all or none; call it with a few hundred at a time.

    Args:
      songs: pairs of id and feature, float16 [frames, 48].

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
    if not songs:
      return
    while True:
      try:
        self._commit(rows, values)
        break
      except lmdb.MapFullError:  # Rolled back; the commit is tried anew.
        self._env.set_mapsize(2 * self._env.info()["map_size"])
      except lmdb.Error as error:  # LMDB calls a full disk an input error.
        free = shutil.disk_usage(self._partial).free
        raise errors.InputError(
          f"{self._partial} cannot be written ({error}); its disk has {free} "
          f"bytes free, the next songs need {sum(map(len, values))}. Make "
          "room; the songs written so far are kept and the same command goes "
          "on."
        ) from error
    self.done.update(int(i) for i in rows["id"])

  def _commit(self, rows: np.ndarray, values: list[bytes]) -> None:
    with self._env.begin(write=True) as txn:
      for song_id, value in zip(rows["id"], values, strict=True):
        txn.put(song_key(int(song_id)), value)
      first = struct.pack(">I", int(rows["id"][0]))
      txn.put(_CHUNK_PREFIX + first.hex().encode(), rows.tobytes())

  def finish(self, source: dict[str, Any]) -> None:
    """Writes the records about the songs and gives the store its name.

    Args:
      source: where the songs came from; plain values, fit for json.

    Raises:
      InputError: no song was added.
    """
    songs = np.sort(self._read_chunks(), order="id")
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
    with self._env.begin(write=True) as txn:
      cursor = txn.cursor()
      cursor.set_range(_CHUNK_PREFIX)
      while cursor.key().startswith(_CHUNK_PREFIX):
        cursor.delete()
      txn.put(_SONGS_KEY, songs.tobytes())
      txn.put(_META_KEY, json.dumps(meta, sort_keys=True).encode())
    self.close()
    (self._partial / "lock.mdb").unlink(missing_ok=True)
    self._partial.rename(self._path)

  def close(self) -> None:
    """Closes the environment; what was committed stays."""
    self._env.close()


_environments: dict[str, tuple[int, lmdb.Environment]] = {}
_environments_lock = threading.Lock()


def _environment(path: pathlib.Path) -> lmdb.Environment:
  """Opens a path once a process: LMDB refuses to open it twice."""
  name = os.fspath(path.resolve())
  inode = (path / "data.mdb").stat().st_ino
  with _environments_lock:
    if name in _environments and _environments[name][0] != inode:
      _environments.pop(name)[1].close()  # It was deleted and made again.
    if name not in _environments:
      opened = lmdb.open(
        name, readonly=True, lock=False, readahead=False, create=False
      )
      _environments[name] = (inode, opened)
    return _environments[name][1]


def _check_size(env: lmdb.Environment, data: pathlib.Path) -> None:
  """Refuses a truncated file: reading past its end kills the process."""
  needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
  actual = data.stat().st_size
  if actual < needed:
    raise errors.InputError(
      f"{data} is truncated: it has {actual} bytes and its header asks for "
      f"{needed}. Copy it again, or delete its folder and make it again."
    )


class SongStore:
  """Reads a song store; safe to use from several threads.

  Attributes:
    path: folder of the LMDB environment.
    meta: the store's `__meta__` record.
    song_ids: ids of all songs, ascending, uint32 [songs].
    frames: length of each, int32 [songs], in the order of `song_ids`.
  """

  def __init__(self, path: str | os.PathLike[str]):
    """Opens a finished store.

    Args:
      path: folder of the LMDB environment.

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
      self._env = _environment(self.path)
    except lmdb.Error as error:
      raise errors.InputError(
        f"{data} cannot be opened as LMDB ({error}). Copy it again, or delete "
        "its folder and make it again."
      ) from error
    _check_size(self._env, data)
    self.meta, songs = self._read_records()
    self.song_ids: UInt32[np.ndarray, " songs"] = songs["id"].copy()
    self.frames: Int[np.ndarray, " songs"] = songs["frames"].copy()
    self._checksums = songs["crc32"].copy()
    self._keys = [song_key(int(i)) for i in self.song_ids]

  def _read_records(self) -> tuple[dict[str, Any], np.ndarray]:
    with self._env.begin() as txn:
      meta, songs = txn.get(_META_KEY), txn.get(_SONGS_KEY)
    if meta is None or songs is None:
      raise errors.InputError(
        f"{self.path} is an LMDB environment but has no record "
        f"{_META_KEY.decode()!r}, so it is not a finished song store. Make one "
        "with preprocessing.melon_lmdb or preprocessing.own_library."
      )
    meta = json.loads(meta)
    if meta["format_version"] != FORMAT_VERSION:
      raise errors.InputError(
        f"{self.path} has format version {meta['format_version']}, this "
        f"version of pcl_jax reads {FORMAT_VERSION}. Make the store again."
      )
    melspectrogram.check_settings(meta["feature"], os.fspath(self.path))
    return meta, np.frombuffer(songs, _SONG_DTYPE)

  def __len__(self) -> int:
    return len(self.song_ids)

  def read_patches(
    self,
    songs: Int[np.ndarray, " patches"],
    starts: Int[np.ndarray, " patches"],
    out: Float16[np.ndarray, "patches frames bands"],
  ) -> None:
    """Copies patches into `out`; only their own bytes are read.

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
    target, stop = memoryview(out).cast("B"), 0
    lengths = self.frames[songs].tolist()
    # One short transaction a call, so one a batch and thread. The memory map is
    # copied and never handed out: a view outlives neither close nor unmap.
    with self._env.begin(buffers=True) as txn:
      get, keys = txn.get, self._keys
      for song, first, length in zip(
        songs.tolist(), starts.tolist(), lengths, strict=True
      ):
        value = get(keys[song])
        if value is None or len(value) != length * _FRAME_BYTES:
          raise self._damaged(song, value)
        begin, stop = stop, stop + patch_bytes
        piece = value[first * _FRAME_BYTES : first * _FRAME_BYTES + patch_bytes]
        if len(piece) == patch_bytes:
          target[begin:stop] = piece
        else:
          target[begin:stop] = bytes(piece) + silence[len(piece) :]

  def read_song(self, song: int) -> Float16[np.ndarray, "frames bands"]:
    """Returns a copy of a song's whole feature, checked against its checksum.

    Args:
      song: position in `song_ids`.

    Raises:
      InputError: the record is missing or damaged.
    """
    with self._env.begin() as txn:
      value = txn.get(self._keys[song])
    if value is None or zlib.crc32(value) != int(self._checksums[song]):
      raise self._damaged(song, value)
    return np.frombuffer(value, "<f2").reshape(-1, MEL_BANDS).copy()

  def _damaged(self, song: int, value: Any) -> errors.InputError:
    found = "absent" if value is None else f"{len(value)} bytes"
    return errors.InputError(
      f"song {int(self.song_ids[song])} of {self.path} is damaged: its record "
      f"is {found}, {int(self.frames[song]) * _FRAME_BYTES} bytes with a right "
      "checksum are on file. Copy the store again, or make it again."
    )
