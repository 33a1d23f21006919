"""Files whose header does not know how long they are, and FFmpeg wants to know.

Programs that write AIFF, AU or W64 into a pipe leave 0 or a very large number
where the length belongs. Such a file is read to its end.
"""

import io
import os
import struct

_HEAD_BYTES = 1 << 16
_UNKNOWN_32 = 0x7F00_0000  # sox writes some more than this.
_UNKNOWN_64 = 1 << 62
_W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0"
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\0\xc0\x4f\x8e\xdb\x8a"


class _Repaired(io.FileIO):
  """A file that is read with another beginning."""

  def __init__(self, path, head: bytes):
    super().__init__(path, "rb")
    self._head = head

  def __del__(self):
    self.close()  # A container does not close what it was given.

  def read(self, size: int = -1) -> bytes:
    """Returns at most `size` bytes."""
    place = self.tell()
    data = super().read(size)
    begun = self._head[place : place + len(data)]
    return begun + data[len(begun) :]


def _in_aiff(head: bytearray, size: int) -> bool:
  common, sound = head.find(b"COMM"), head.find(b"SSND")
  if min(common, sound) < 0 or max(common + 26, sound + 8) > len(head):
    return False
  (sound_bytes,) = struct.unpack_from(">I", head, sound + 4)
  channels, _, bits = struct.unpack_from(">HIH", head, common + 8)
  frame_bytes = channels * -(-bits // 8)
  if 16 <= sound_bytes < _UNKNOWN_32 or not frame_bytes:
    return False
  frames = (size - sound - 16) // frame_bytes
  if max(frames, size) >= 1 << 32 or frames <= 0:
    return False
  struct.pack_into(">I", head, 4, size - 8)
  struct.pack_into(">I", head, sound + 4, 8 + frames * frame_bytes)
  struct.pack_into(">I", head, common + 10, frames)
  return True


def _in_w64(head: bytearray, size: int) -> bool:
  data = head.find(_W64_DATA)
  if data < 0 or data + 24 > len(head):
    return False
  (data_bytes,) = struct.unpack_from("<Q", head, data + 16)
  if 24 < data_bytes < _UNKNOWN_64:
    return False
  struct.pack_into("<Q", head, 16, size)
  struct.pack_into("<Q", head, data + 16, size - data)
  return True


def _in_au(head: bytearray, _size: int) -> bool:
  if head[8:12] != bytes(4):
    return False
  head[8:12] = b"\xff" * 4  # Which the format has for an unknown length.
  return True


_REPAIRS = {b"FORM": _in_aiff, _W64[:4]: _in_w64, b".snd": _in_au}


def repaired(path: str | os.PathLike[str]) -> io.FileIO | None:
  """Opens a file with the length that it has in place of an unknown one.

  Args:
    path: any file.

  Returns:
    The file; None if its header knows its length, or is of another kind.

  Raises:
    OSError: it cannot be read.
  """
  with open(path, "rb") as file:
    head = bytearray(file.read(4))
    repair = _REPAIRS.get(bytes(head))
    if repair is None:
      return None
    head += file.read(_HEAD_BYTES)
    size = file.seek(0, os.SEEK_END)
  return _Repaired(path, bytes(head)) if repair(head, size) else None
