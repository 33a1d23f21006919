"""How much a file lacks by what its container knows for certain.

Believed are a count of samples (FLAC, MP4, WavPack, AIFF, AU, ...), of frames
(the Xing header of MP3) or of bytes (WAV, W64, CAF, WMA), unless it is zero or
the largest number there is, which mean unknown, and the place that each Ogg
page states. Not believed is what a demuxer makes of the bit rate.
"""

import struct
from typing import Any, NamedTuple
import zlib

from pcl_jax.audio import joined_files

_COUNTED = "flac mov wv tta ape mpc mpc8 tak aiff au dsf shn bonk osq".split()
_HEAD_BYTES = 1 << 16
_UNKNOWN_BYTES = 0x7FFF_0000  # sox and ffmpeg write the like into a pipe.
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
# Of Ogg: a page's flag, its granule, where it has its stream's number, and the
# bytes of its header.
_LAST_PAGE, _CONTINUED, _SERIAL, _PAGE_BYTES = 4, -1, slice(14, 18), 27
_MIRRORED = bytes(int(f"{one:08b}"[::-1], 2) for one in range(256))
_IN_PAGE = "it ends within a page"


class Place(NamedTuple):
  """Where decoding ended.

  Attributes:
    end_s: how much sound there is up to it, in seconds.
    end_pts: the time stamp behind the last frame, or None.
  """

  end_s: float
  end_pts: int | None


def missing_s(
  path: joined_files.Path,
  begin: int,
  end: int,
  container: Any,
  stream: Any,
  place: Place,
) -> tuple[float, str]:
  """Returns how much is missing behind the last sample, and what says so.

  Args:
    path: the file.
    begin: where the container begins in it, in bytes.
    end: where it ends.
    container: as it was opened.
    stream: the stream that was decoded to its end.
    place: where that was.

  Returns:
    Seconds, at least 0, and a reason, which is empty where nothing is known to
    be missing. It is 0 with a reason where the length is not known.
  """
  kind = container.format.name.split(",")[0]
  with open(path, "rb") as file:
    file.seek(begin)
    head = file.read(min(_HEAD_BYTES, end - begin))
    if kind == "ogg" and len(container.streams) == 1:
      return _in_ogg(file, begin, end, stream, place, head)
    stated_s = _xing_s(file, begin, stream) if kind == "mp3" else None
  stated_bytes = None
  if kind in _COUNTED and stream.duration:
    stated_s = float(stream.duration * stream.time_base)
  elif kind == "matroska" and len(container.streams) == 1:
    stated_s = container.duration and container.duration / 1e6
  elif kind in _BYTES:
    stated_bytes = _BYTES[kind](head)
    if kind == "asf" and stated_bytes and stream.duration:
      stated_s = float(stream.duration * stream.time_base)
  if stated_bytes and stated_bytes > end - begin:
    by_bytes_s = place.end_s * stated_bytes / (end - begin)
    stated_s = max(stated_s or 0.0, by_bytes_s)
  if not stated_s or stated_s <= place.end_s:
    return 0.0, ""
  return stated_s - place.end_s, f"its header says {stated_s:.1f} s"


def _xing_s(file, begin: int, stream: Any) -> float | None:
  """Returns how long an MP3 is by the frames that its header counts."""
  file.seek(begin)
  head = file.read(10)
  if head[:3] == b"ID3":
    size = 0
    for byte in head[6:]:
      size = size << 7 | byte & 0x7F
    begin += 10 + size
  file.seek(begin)
  head = file.read(_HEAD_BYTES)
  for name in (b"Xing", b"Info"):
    found = head.find(name, 0, 2048)
    if found >= 0 and len(head) >= found + 12:
      flags, frames = struct.unpack(">II", head[found + 4 : found + 12])
      rate_hz = stream.codec_context.sample_rate
      if flags & 1 and rate_hz and stream.duration:
        counted_s = frames * (1152 if rate_hz >= 32_000 else 576) / rate_hz
        # Without the padding, if the demuxer took it from the same header.
        return min(counted_s, float(stream.duration * stream.time_base))
  return None


def _wav_bytes(head: bytes) -> int | None:
  """Returns how long a WAV file is by the length of its sound."""
  place, sizes = 12, {}
  while place + 8 <= len(head):
    name, size = struct.unpack_from("<4sI", head, place)
    if name == b"ds64" and place + 24 <= len(head):
      sizes[b"data"] = struct.unpack_from("<Q", head, place + 16)[0]
    if name == b"data":
      known = 0 < size < _UNKNOWN_BYTES
      size = size if known else sizes.get(b"data")
      return place + 8 + size if size else None
    place += 8 + size + size % 2
  return None


def _w64_bytes(head: bytes) -> int | None:
  size = struct.unpack_from("<Q", head, 16)[0] if len(head) >= 24 else 0
  return size if 0 < size < 1 << 62 else None


def _caf_bytes(head: bytes) -> int | None:
  place = 8
  while place + 12 <= len(head):
    name, size = struct.unpack_from(">4sq", head, place)
    if name == b"data":
      return place + 12 + size if size > 0 else None
    place += 12 + max(size, 0)
  return None


def _asf_bytes(head: bytes) -> int | None:
  place = head.find(_ASF_PROPERTIES)
  if place < 0 or place + 92 > len(head):
    return None
  size, flags = struct.unpack_from("<Q40xI", head, place + 40)
  return size if not flags & 1 else None  # A broadcast knows no length.


_BYTES = {
  "wav": _wav_bytes,
  "w64": _w64_bytes,
  "caf": _caf_bytes,
  "asf": _asf_bytes,
}


def _page(data: bytes, begin: int) -> tuple[bytes, int]:
  """Returns a page of Ogg, as far as it is there, and its whole size."""
  segments = data[begin + _PAGE_BYTES - 1]
  sizes = data[begin + _PAGE_BYTES :][:segments]
  size = _PAGE_BYTES + segments + sum(sizes)
  return data[begin : begin + size], size


def _checksum(page: bytes) -> int:
  """Returns Ogg's CRC of a page; zlib's is of mirrored bits, and inverted."""
  blank = page[:22] + bytes(4) + page[26:]
  mirrored = zlib.crc32(blank.translate(_MIRRORED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
  return int(f"{mirrored:032b}"[::-1], 2)


def _begins_damaged(head: bytes) -> bool:
  """Returns whether the first page with sound is left out for its checksum.

  Nothing else tells: what is recorded from a broadcast begins at any place.
  """
  begin = 0
  while begin + _PAGE_BYTES <= len(head):
    page, size = _page(head, begin)
    if len(page) < size:
      return False
    granule, stated = struct.unpack_from("<q8xI", page, 6)
    if page[:4] != b"OggS" or granule > 0:
      return _checksum(page) != stated
    begin += size
  return False


def _in_ogg(file, begin, end, stream, place, head) -> tuple[float, str]:
  """Compares with the place that the last page states."""
  tail = max(begin, end - 2 * _HEAD_BYTES)
  file.seek(tail)
  data = file.read(end - tail)
  if _begins_damaged(head):
    return 0.0, "its first page of sound is damaged"
  found = data.rfind(b"OggS\0")
  if found < 0:
    return 0.0, ""
  if found + _PAGE_BYTES > len(data):
    return 0.0, _IN_PAGE
  page, size = _page(data, found)
  if page[_SERIAL] != head[_SERIAL]:
    return 0.0, "its last page is another file's"
  flags, (granule,) = page[5], struct.unpack_from("<q", page, 6)
  if not flags & _LAST_PAGE:
    behind = data[found + size :]
    is_tag = behind.startswith(joined_files.TAGS)
    if len(page) < size or (any(behind) and not is_tag):
      return 0.0, _IN_PAGE
  if granule == _CONTINUED or place.end_pts is None:
    return 0.0, ""
  behind_s = float((granule - place.end_pts) * stream.time_base)
  if not 0 < behind_s:
    return 0.0, ""
  return behind_s, f"its last page is {behind_s:.1f} s further on"
