"""Headers of members of a tar: reading one, and looking for the next."""

import os
import re
import tarfile

BLOCK = tarfile.BLOCKSIZE
LONG_NAME = tarfile.GNUTYPE_LONGNAME
PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
IN_FRONT = (LONG_NAME, tarfile.GNUTYPE_LONGLINK, *PAX)  # Of a member's own.
_MAGIC, _MAGIC_PLACE = b"ustar", 257
_MAGIC_END = 265
_NAME_BYTES = 100
_CHUNK_BYTES = 1 << 20
_PAX_RECORD = re.compile(rb"([0-9]{1,9}) (path|size)=")


class Damaged(Exception):
  """What is wrong with a tar, in words.

  Attributes:
    place: the first byte that cannot be used.
    name: the member's, as far as it is known.
  """

  def __init__(self, message: str, place: int, name: bytes = b""):
    super().__init__(message)
    self.place, self.name = place, name


def parse(
  header: bytes, place: int, name: bytes | None = None
) -> tarfile.TarInfo:
  """Reads a header.

  Args:
    header: 512 bytes, or what was left of the file.
    place: its first byte in the tar, for the message.
    name: of the member, where a header in front has it.

  Raises:
    Damaged: it is none, its checksum is wrong or its size impossible.
  """
  if not header:
    message = f"it ends at byte {place} without an end mark: truncated?"
    raise Damaged(message, place)
  if len(header) < BLOCK:
    message = f"it ends in the middle of the header at byte {place}"
    raise Damaged(message, place, name or name_in(header))
  try:
    info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
  except (tarfile.HeaderError, ValueError) as error:
    message = f"the header at byte {place} is bad ({error})"
    raise Damaged(message, place, name or name_in(header)) from error
  # Where a byte is missing the sum can be right. The oldest form has none.
  magic = header[_MAGIC_PLACE:_MAGIC_END]
  if not magic.startswith(_MAGIC) and magic.strip(b"\0"):
    message = f"the header at byte {place} is bad (no magic word)"
    raise Damaged(message, place, name or name_in(header))
  if info.size < 0:
    raise Damaged(f"the header at byte {place} has size {info.size}", place)
  return info


def is_sound(header: bytes) -> bool:
  """Returns whether `parse` would take it."""
  try:
    parse(header, 0)
  except Damaged:
    return False
  return True


def is_recognisable(header: bytes) -> bool:
  """Returns whether a header that is not sound was one."""
  return header[_MAGIC_PLACE:].startswith(_MAGIC)


def name_in(header: bytes) -> bytes:
  """Returns the name in a header, which may be damaged."""
  return header[:_NAME_BYTES].split(b"\0")[0]


def padded_size(info: tarfile.TarInfo) -> int:
  """Returns how many bytes the member's body takes in the tar."""
  # As tarfile has it: of the known kinds, only files have a body.
  if not info.isreg() and info.type in tarfile.SUPPORTED_TYPES:
    if info.type not in IN_FRONT:
      return 0
  return -(-info.size // BLOCK) * BLOCK


def pax_fields(text: bytes) -> dict[bytes, bytes]:
  """Returns `path` and `size` of a pax header's records."""
  fields, place = {}, 0
  while place < len(text):
    length = text[place : place + 10].split(b" ")[0]
    if not length.isdigit() or int(length) == 0:
      break  # Padding, or nothing that could be read.
    record = text[place : place + int(length)]
    if match := _PAX_RECORD.match(record):
      fields[match[2]] = record[match.end() :].rstrip(b"\n")
    place += int(length)
  return fields


def read_bytes(fd: int, count: int, place: int) -> bytes:
  """Reads that many bytes, fewer only where the file ends."""
  parts = []
  while count > 0 and (part := os.pread(fd, count, place)):
    parts.append(part)
    place, count = place + len(part), count - len(part)
  return parts[0] if len(parts) == 1 else b"".join(parts)


def find(fd: int, place: int) -> int | None:
  """Returns where the next sound header begins, None if there is no more.

  At any byte, not only at multiples of 512: bytes may have been lost or put in.
  It is known by its magic word, checksum, size and kind; the oldest form of
  tars has no magic word, and none of its headers is found.

  Args:
    fd: the tar.
    place: the first byte where it may begin.
  """
  while len(chunk := read_bytes(fd, _CHUNK_BYTES, place)) >= BLOCK:
    at = chunk.find(_MAGIC, _MAGIC_PLACE)
    while at >= 0 and len(chunk) - (at - _MAGIC_PLACE) >= BLOCK:
      begin = at - _MAGIC_PLACE
      header = chunk[begin : begin + BLOCK]
      if header[156:157] in tarfile.SUPPORTED_TYPES and is_sound(header):
        return place + begin
      at = chunk.find(_MAGIC, at + 1)
    place += len(chunk) - BLOCK + 1
  return None
