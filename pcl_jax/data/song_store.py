"""The song store: one LMDB environment with the feature of every song.

Key: the song's id, unsigned 32-bit big-endian, so that the B-tree is in id
order. Value: the feature, little-endian float16, time-major [frames, 48], and
nothing else, so that a patch is one contiguous run of bytes. `__meta__` holds
json (format version, feature settings, counts, source, checksum scheme) and
`__songs__` the ids, lengths and checksums of all songs, so that planning needs
no read. Both are too long to be a song's key.
"""

import json
import os
import pathlib
import struct
import threading
from typing import Any
import zlib

from jaxtyping import Float16, Int, UInt32
import lmdb
import numpy as np

from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors

FILE_NAME = "songs.lmdb"  # In the folder of a data set.
FORMAT_VERSION = 1
MEL_BANDS = melspectrogram.SETTINGS.mel_bands
MAX_SONG_ID = 2**32 - 1
META_KEY = b"__meta__"
SONGS_KEY = b"__songs__"
SONG_DTYPE = np.dtype([("id", "<u4"), ("frames", "<i4"), ("crc32", "<u4")])
_FRAME_BYTES = 2 * MEL_BANDS
_REMEDY = "Copy it again, or delete its folder and make it again."


def song_key(song_id: int) -> bytes:
  """Returns the LMDB key of a song id."""
  return struct.pack(">I", song_id)


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


def needed_bytes(env: lmdb.Environment) -> int:
  """Returns the size that a file's header asks for."""
  return (env.info()["last_pgno"] + 1) * env.stat()["psize"]


class SongStore:
  """Reads a song store; safe to use from several threads.

  Attributes:
    path, meta: folder of the LMDB environment, and its `__meta__` record.
    song_ids: ids of all songs, ascending, uint32 [songs].
    frames: length of each, int32 [songs], in the order of `song_ids`.
    checksums: CRC-32 of each record, uint32 [songs].
  """

  def __init__(self, path: str | os.PathLike[str], *, readahead: bool = False):
    """Opens the folder of a finished store.

    With readahead the system may read more than is asked for: good for songs
    in the order of their ids, bad for random patches.

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
        f"{data} cannot be opened as LMDB ({error}). {_REMEDY}"
      ) from error
    needed, actual = needed_bytes(self._env), data.stat().st_size
    if actual < needed:  # Reading past the end would kill the process.
      raise errors.InputError(
        f"{data} is truncated: it has {actual} bytes and its header asks for "
        f"{needed}. {_REMEDY}"
      )
    self.meta, songs = self._read_records()
    self.song_ids: UInt32[np.ndarray, " songs"] = songs["id"].copy()
    self.frames: Int[np.ndarray, " songs"] = songs["frames"].copy()
    self.checksums = songs["crc32"].copy()
    self._keys = [song_key(int(i)) for i in self.song_ids]
    self._reading: dict[int, int] = {}  # Thread -> the song it is at.

  def _read_records(self) -> tuple[dict[str, Any], np.ndarray]:
    try:
      with self._env.begin() as txn:
        meta, songs = txn.get(META_KEY), txn.get(SONGS_KEY)
    except lmdb.Error as error:
      raise errors.InputError(
        f"{self.path} cannot be read ({error}): the file's pages are damaged. "
        f"{_REMEDY}"
      ) from error
    if meta is None or songs is None:
      raise errors.InputError(
        f"{self.path} is an LMDB environment but has no record "
        f"{META_KEY.decode()!r}, so it is not a finished song store. Make one "
        "with preprocessing.melon_lmdb or preprocessing.own_library."
      )
    try:
      meta = json.loads(meta)
      version, feature = meta["format_version"], dict(meta["feature"])
      songs = np.frombuffer(songs, SONG_DTYPE)
    except (ValueError, KeyError, TypeError) as error:
      raise errors.InputError(
        f"the records about the songs of {self.path} are damaged ({error!r}). "
        f"{_REMEDY}"
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

    Of each patch, `songs` has the position in `song_ids` and `starts` the first
    frame; silence follows the end of a song. `out` is contiguous.

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
    """Returns the whole feature at a position in `song_ids`, checked.

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
