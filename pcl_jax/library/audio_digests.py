"""Tells whether two files hold the same encoded audio, whatever their tags.

A digest covers every byte of the audio and none of the tags: what stands before
and behind the frames of MP3 and its like, and in their own places in FLAC, Ogg,
MP4, WAV, AIFF and WMA files. Of other files it covers all bytes.
"""

from collections.abc import Callable, Iterator
import errno
import hashlib
import io
import os
import stat

import numpy as np

# Sums of columns are made at five times the rate of SHA-256, and then hashed.
_BLOCK = 1 << 18
_COLUMNS = 64
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")

_Parts = list[tuple[int, int]]  # Begin and end of each, in bytes.


def _read(file: io.FileIO, place: int, count: int) -> bytes:
  file.seek(place)
  return file.read(count)


def _number(content: bytes, order: str = "big") -> int:
  return int.from_bytes(content, order)  # type: ignore[arg-type]


def _behind_id3(file: io.FileIO) -> int:
  """Returns where ID3v2 tags at the beginning end."""
  place = 0
  while (head := _read(file, place, 10))[:3] == b"ID3" and len(head) == 10:
    size = sum((byte & 127) << shift for byte, shift in zip(
      head[6:], (21, 14, 7, 0), strict=True
    ))  # fmt: skip
    place += 10 + size + 10 * bool(head[5] & 16)
  return place


def _before_tags(file: io.FileIO, begin: int, end: int) -> int:
  """Returns where ID3v1 and APEv2 tags at the end begin."""
  if _read(file, max(end - 128, begin), 3) == b"TAG":
    end = max(end - 128, begin)
  foot = _read(file, max(end - 32, begin), 32)
  if foot[:8] == b"APETAGEX" and len(foot) == 32:
    size = _number(foot[12:16], "little") + 32 * (foot[23] >> 7)
    end = max(end - size, begin)
  return end


def _frames(file: io.FileIO, begin: int, end: int) -> _Parts:
  return [(begin, _before_tags(file, begin, end))]


def _flac(file: io.FileIO, begin: int, end: int) -> _Parts:
  """Returns the stream's parameters and its frames."""
  place, parts = begin + 4, []
  while len(head := _read(file, place, 4)) == 4:
    size = 4 + _number(head[1:])
    if not head[0] & 127:
      parts.append((place + 4, place + size))
    place += size
    if head[0] & 128:
      break
  return [*parts, *_frames(file, place, end)]


def _chunks(order: str, wanted: tuple[bytes, ...]) -> Callable:
  def find(file: io.FileIO, begin: int, end: int) -> _Parts:
    place, parts = begin + 12, []
    while place < end and len(head := _read(file, place, 8)) == 8:
      size = _number(head[4:], order)
      if head[:4] in (b"data", b"SSND") and not size:
        size = end  # Written into a pipe.
      if head[:4] in wanted:
        parts.append((place + 8, min(place + 8 + size, end)))
      place += 8 + size + size % 2
    return parts

  return find


def _mp4(file: io.FileIO, begin: int, end: int) -> _Parts:
  place, parts = begin, []
  while place < end and len(head := _read(file, place, 16)) >= 8:
    size, first = _number(head[:4]), 8
    if size == 1:
      size, first = _number(head[8:]), 16
    size = size or end - place
    if head[4:8] == b"mdat":
      parts.append((place + first, min(place + size, end)))
    place += max(size, 8)
  return parts


def _ogg(file: io.FileIO, begin: int, end: int) -> _Parts:
  """Returns the bodies of a stream's first page and of pages with audio."""
  place, parts, in_header = begin, [], True
  while len(head := _read(file, place, 282)) >= 27 and head[:4] == b"OggS":
    body = place + 27 + head[26]
    place = body + sum(head[27 : 27 + head[26]])
    is_first = bool(head[5] & 2)
    # Comments and tables end at position 0; -1 is said where no packet ends.
    none = head[6:14] in (bytes(8), b"\xff" * 8)
    in_header = is_first or (in_header and none)
    if is_first or not in_header:
      parts.append((body, min(place, end)))
  return parts


def _asf(file: io.FileIO, begin: int, end: int) -> _Parts:
  return [(begin + _number(_read(file, begin + 16, 8), "little"), end)]


def _parts(file: io.FileIO, size: int) -> _Parts:
  """Returns where the audio lies in a file."""
  begin = _behind_id3(file)
  head = _read(file, begin, 16)
  find = _frames
  if head[:4] == b"fLaC":
    find = _flac
  elif head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
    find = _chunks("little", (b"fmt ", b"ds64", b"data"))
  elif head[:4] == b"FORM" and head[8:11] == b"AIF":
    find = _chunks("big", (b"COMM", b"SSND"))
  elif head[4:8] == b"ftyp":
    find = _mp4
  elif head[:4] == b"OggS":
    find = _ogg
  elif head == _ASF_HEADER:
    find = _asf
  parts = [(a, b) for a, b in find(file, begin, size) if a < b]
  return parts or [(0, size)]


def _blocks(file: io.FileIO, parts: _Parts) -> Iterator[np.ndarray]:
  """Yields the bytes of the parts in blocks, the last filled up with zeros."""
  block, filled = np.zeros(_BLOCK, np.uint8), 0
  for place, end in parts:
    file.seek(place)
    while place < end:
      some = memoryview(block)[filled : filled + end - place]
      count = file.readinto(some)
      if not count:
        break
      place, filled = place + count, filled + count
      if filled == _BLOCK:
        yield block
        filled = 0
  if filled:
    block[filled:] = 0
    yield block


def digest(path: str | os.PathLike[str]) -> str:
  """Returns a digest of a file's encoded audio, 64 hexadecimal digits.

  Files of the same encoded audio and other tags have the same digest. It is not
  made to withstand forgery.

  Raises:
    OSError: the file cannot be read.
  """
  if not stat.S_ISREG(os.stat(path).st_mode):  # A pipe would be waited for.
    raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
  with open(path, "rb", buffering=0) as file:
    parts = _parts(file, os.fstat(file.fileno()).st_size)
    found = hashlib.sha256(str(sum(b - a for a, b in parts)).encode())
    for block in _blocks(file, parts):
      columns = block.view("<u8").reshape(-1, _COLUMNS)
      found.update(columns.sum(axis=0, dtype=np.uint64).astype("<u8").tobytes())
  return found.hexdigest()
