"""The song store: one LMDB environment with the feature of every song.

Key: the song's id, unsigned 32-bit big-endian, so that the B-tree is in id
order. Value: the feature, little-endian float16, time-major [frames, 48], and
nothing else, so that a patch is one contiguous run of bytes. `__meta__` holds
json (format version, feature settings, counts, source, checksum scheme) and
`__songs__` the ids, lengths and checksums of all songs, so that planning needs
no read. Both are too long to be a song's key.
"""

from collections.abc import Sequence
import json
import mmap
import os
import pathlib
import resource
import struct
import threading
from typing import Any
import weakref
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
_PATCHES_A_COPY = 64  # So many songs are named where a disk stands still.
_FETCHED_READS = 100  # Once a read has waited for the disk.
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


def _start_of_mapping(address: int) -> int:
  """Returns where in memory the file begins that is mapped at an address."""
  for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
    span, _, offset, *_ = line.split(maxsplit=3)
    start, end = (int(one, 16) for one in span.split("-"))
    if start <= address < end:
      return start - int(offset, 16)
  raise AssertionError(f"{address:#x} is not mapped.")


class _Records:
  """The file of a store in memory, and where in it the records lie.

  LMDB finds a record with the interpreter's lock held, and touches all pages of
  it. A place that was found is kept, so that patches are copied from the file
  with neither.
  """

  def __init__(self, data: pathlib.Path, songs: int, readahead: bool):
    self._readahead = readahead
    self._file = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
    weakref.finalize(self, os.close, self._file)
    self._songs = songs
    self._stamp: tuple[int, int] | None = None

  def current(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns the file's bytes, and the place of each record, -1 if unknown.

    All places are forgotten where the file is not what it was.
    """
    found = os.fstat(self._file)
    stamp = found.st_size, found.st_mtime_ns
    if stamp != self._stamp:
      memory = mmap.mmap(self._file, 0, access=mmap.ACCESS_READ)
      if not self._readahead:  # Else megabytes may be read for each patch.
        memory.madvise(mmap.MADV_RANDOM)
      self._memory = memory
      places = np.full(self._songs, -1, np.int64)
      self._held = np.frombuffer(memory, np.uint8), places
      self._stamp = stamp
    return self._held

  def fetch(self, begins: Sequence[int], ends: Sequence[int]) -> None:
    """Has the system read parts of the file, many at once; does not wait."""
    for begin, end in zip(begins, ends, strict=True):
      start = begin // mmap.PAGESIZE * mmap.PAGESIZE
      self._memory.madvise(mmap.MADV_WILLNEED, start, end - start)


def _waits_for_disk() -> int:
  """Returns how often this thread has waited for a page from the disk."""
  return resource.getrusage(resource.RUSAGE_THREAD).ru_majflt


def _address(value: memoryview) -> int:
  return np.frombuffer(value, np.uint8).__array_interface__["data"][0]


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
    self._records = _Records(data, len(songs), readahead)
    self._reading: dict[int, Sequence[int]] = {}  # Thread -> songs it is at.
    self._fetched = 0  # Further reads whose patches are fetched at once.

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
    content, places = self._find(songs)
    lengths = self.frames[songs].astype(np.int64) * _FRAME_BYTES
    firsts = starts.astype(np.int64) * _FRAME_BYTES
    counts = np.clip(lengths - firsts, 0, patch_bytes)
    begins = (places + firsts).tolist()
    ends = (places + firsts + counts).tolist()
    short = np.flatnonzero(counts < patch_bytes)[::-1].tolist()
    silence = np.full(out.shape[1:], melspectrogram.SILENCE, "<f2")
    silence = silence.ravel().view(np.uint8)
    target, thread = out.reshape(-1).view(np.uint8), threading.get_ident()
    if self._fetched > 0:
      self._records.fetch(begins, ends)
      self._fetched -= 1
    waits = _waits_for_disk()
    for first in range(0, len(begins), _PATCHES_A_COPY):
      rows = slice(first, first + _PATCHES_A_COPY)
      self._reading[thread] = songs[rows].tolist()
      pieces = [
        content[begin:end]
        for begin, end in zip(begins[rows], ends[rows], strict=True)
      ]
      for row in short:  # The last ones first, so that others keep their place.
        if first <= row < rows.stop:
          pieces.insert(row - first + 1, silence[counts[row] :])
      part = target[first * patch_bytes : rows.stop * patch_bytes]
      # This copies with the lock released, and into memory that is there.
      np.concatenate(pieces, out=part)
    self._reading.pop(thread, None)
    if _waits_for_disk() > waits:  # It costs time where all is in memory.
      self._fetched = _FETCHED_READS

  def _find(
    self, songs: Int[np.ndarray, " patches"]
  ) -> tuple[np.ndarray, Int[np.ndarray, " patches"]]:
    """Returns the file's bytes, and where in it the records of songs begin."""
    content, places = self._records.current()
    found = places[songs]
    unknown = np.unique(songs[found < 0]).tolist()
    if not unknown:
      return content, found
    thread, start = threading.get_ident(), None
    # A short transaction; no view of the map outlives it.
    with self._env.begin(buffers=True) as txn:
      for song in unknown:
        self._reading[thread] = [song]
        try:
          value = txn.get(self._key(song))
        except lmdb.Error as error:
          raise self._damaged(song, None) from error
        if value is None or len(value) != self.frames[song] * _FRAME_BYTES:
          raise self._damaged(song, value)
        if start is None and len(value):
          start = _start_of_mapping(_address(value))
        places[song] = _address(value) - start if len(value) else 0
      self._check_place(content[places[song] :], value)
    return content, places[songs]

  def _check_place(self, content: np.ndarray, value: memoryview) -> None:
    """Refuses a file that has been put in the place of the one LMDB reads."""
    if content[: len(value)].tobytes() != value:
      raise errors.InputError(
        f"{self.path} was replaced while it was being opened. Start again."
      )

  def _key(self, song: int) -> bytes:
    return song_key(int(self.song_ids[song]))

  def being_read(self) -> list[int]:
    """Returns the ids of the songs that threads are reading just now.

    A thread that copies patches is at one of several songs, which are all here.
    """
    songs = {song for some in self._reading.values() for song in some}
    return [int(self.song_ids[song]) for song in sorted(songs)]

  def read_song(self, song: int) -> Float16[np.ndarray, "frames bands"]:
    """Returns the whole feature at a position in `song_ids`, checked.

    Raises:
      InputError: the record is missing or damaged.
    """
    try:
      with self._env.begin() as txn:
        value = txn.get(self._key(song))
    except lmdb.Error as error:
      raise self._damaged(song, None) from error
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
