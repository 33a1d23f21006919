"""A pass over one of Melon's tars.

A tar is read as a row of headers and bodies, in one pass, without unpacking;
the bodies of songs that are not wanted are skipped. Only regular members
named like a song's file count; all others are counted and left alone.

A song is used only if the next header, or the end mark, lies exactly behind
it: otherwise bytes were lost or put in, and its body may be another's. Behind
damage the reader looks for the next sound header, at any byte, and goes on
there.
"""

import collections
from collections.abc import Callable, Iterator
import dataclasses
import io
import os
import pathlib
import re
import tarfile

from preprocessing.melon import melon_spectrogram

SONGS_PER_FOLDER = 1000
_BLOCK = tarfile.BLOCKSIZE
_MAX_FRONT_BYTES = 1 << 16  # Of what a header may have in front: a long name.
_CHUNK_BYTES = 1 << 20
_MAX_PLACE = 1 << 62  # A header may name one that no system call takes.
_MEMBERS_PER_SIGN = 1000
_SHOWN_MEMBERS = 3
_SHOWN_DAMAGES = 3
_MAGIC, _MAGIC_BEGIN, _MAGIC_END = b"ustar", 257, 265
_MEMBER = re.compile(
  r"(?:\./)*(?:arena_mel/)?(0|[1-9][0-9]{0,6})/(0|[1-9][0-9]{0,9})\.npy"
)


@dataclasses.dataclass(frozen=True)
class Member:
  """A song in a tar.

  Attributes:
    song_id: the id of the song.
    name: the name of the member, as in the tar.
    begin: the body's first byte in the tar.
    size: bytes of the body.
  """

  song_id: int
  name: str
  begin: int
  size: int


class _File:
  """The file that tarfile reads headers from; hostile sizes are refused."""

  def __init__(self, fd: int):
    self.fd, self.place = fd, 0
    self.header = b""  # Of the member at `place`, where it was read already.

  def tell(self) -> int:
    return self.place

  def read(self, count: int) -> bytes:
    if not 0 <= count <= _MAX_FRONT_BYTES:
      raise tarfile.HeaderError(f"a name of {count} bytes")
    data, self.header = self.header, b""
    if len(data) != count:
      data = _read_bytes(self.fd, count, self.place)
    self.place += len(data)
    return data


@dataclasses.dataclass
class Tar:
  """A pass over a tar.

  Attributes:
    path: the file.
    size: its length in bytes.
    place: how far the pass is, in bytes.
    damage: a description of what is wrong with the tar; empty if nothing is.
    gaps: how often the next sound header was searched for.
    gap_bytes: the bytes passed over in the gaps.
    songs: members that are songs' files.
    ignored: kind of other members -> how many; folders are not counted.
    examples: some of their names.
  """

  path: pathlib.Path
  size: int = 0
  place: int = 0
  damage: str = ""
  gaps: int = 0
  gap_bytes: int = 0
  songs: int = 0
  ignored: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )
  examples: list[str] = dataclasses.field(default_factory=list)
  _damages: list[str] = dataclasses.field(default_factory=list)

  def read(
    self, is_wanted: Callable[[Member], bool]
  ) -> Iterator[
    tuple[Member | None, memoryview | melon_spectrogram.UnusableFile]
  ]:
    """Yields the wanted songs with their bytes, or why there are none.

    Never raises for what is in the file: see `damage` when it has ended. Now
    and then it yields no member, so that `place` can be looked at.

    Args:
      is_wanted: whether a song's body is to be read.
    """
    try:
      with open(self.path, "rb", buffering=0) as file:
        self.size = os.fstat(file.fileno()).st_size
        yield from self._read(_File(file.fileno()), is_wanted)
      if not self.songs:
        self._damages.append("no spectrogram is in it")
    except OSError as error:
      self._damages.append(
        f"byte {self.place} cannot be read ({error.strerror})"
      )
    shown = self._damages[:_SHOWN_DAMAGES]
    shown = [melon_spectrogram.one_line(text) for text in shown]
    if more := self._damages[_SHOWN_DAMAGES:]:
      shown.append(f"and {len(more)} more of such places")
    if self.gaps > 1:
      shown.append(f"{self.gap_bytes} bytes passed over in all")
    self.damage = "; ".join(shown)
    self.place = self.size

  def _read(self, file: _File, is_wanted: Callable[[Member], bool]) -> Iterator:
    headers = tarfile.open(
      fileobj=io.BytesIO(bytes(2 * _BLOCK)),
      encoding="utf-8",
      errors="surrogateescape",
    )
    headers.fileobj = file
    header = _read_bytes(file.fd, _BLOCK, 0)
    while header is not None and not _is_end(file.fd, header, self.place):
      file.place, file.header = self.place, header
      try:
        info = _parse(headers, header, self.place)
      except tarfile.HeaderError as error:
        name = _name_in(header)
        lost = Member(_song_id(name), name, self.place, 0)
        if lost.song_id is not None and is_wanted(lost):
          yield lost, _unreadable(f"in its tar, {error}")
        header = self._pass_over(file.fd, str(error), self.place, 1)
        continue
      begin, end = info.offset_data, headers.offset
      member = self._member(info)
      if self.songs % _MEMBERS_PER_SIGN == 0:
        yield None, memoryview(b"")
      if member is not None and not is_wanted(member):
        member = None
      body = melon_spectrogram.too_large(info.size)
      # The next header comes along: one call a song.
      start = end
      if member is not None and body is None and end <= self.size:
        start = begin
      data = memoryview(_read_bytes(file.fd, end - start + _BLOCK, start))
      header = bytes(data[end - start :])
      self.place = end
      if damage := self._damage_behind(file.fd, header, end, info.name):
        there = min(max(self.size - begin, 0), info.size)
        there = f"{there} of {info.size} bytes"
        body = _unreadable(f"the tar is damaged in it ({there}): {damage}")
        header = self._pass_over(file.fd, damage, begin)
      if member is not None:
        yield member, body or data[: info.size]

  def _damage_behind(self, fd: int, header: bytes, end: int, name: str) -> str:
    """Says what is wrong behind a body; empty if a header or the end is."""
    if end > self.size:
      return (
        f"it ends in the middle of {name!r}: that needs {end} bytes, there are "
        f"{self.size}"
      )
    # A damaged header is one all the same, and costs its own member alone. A
    # name alone is no header: long names have blocks of their own.
    if _is_header(header):
      return ""
    if _is_end(fd, header, end) and (self.size - end) % _BLOCK == 0:
      return ""
    return (
      f"no header is at {end}, behind {name!r}: bytes of it are missing, or "
      "others were put in"
    )

  def _pass_over(
    self, fd: int, damage: str, begin: int, skipped: int = 0
  ) -> bytes | None:
    """Goes to the next sound header, and records damage and gap."""
    found = _find(fd, begin + skipped)
    end = self.size if found is None else found
    if begin < end:
      self.gaps += 1
      self.gap_bytes += end - begin
      damage += f"; bytes {begin} to {end} ({end - begin}) are passed over"
    self._damages.append(damage)
    self.place = end
    return None if found is None else _read_bytes(fd, _BLOCK, found)

  def _member(self, info: tarfile.TarInfo) -> Member | None:
    if info.isdir():
      return None
    song_id, kind = _song_id(info.name), None
    if not info.isreg() or info.issparse():
      kind = "a link, a device or of an unknown kind"
    elif song_id is None:
      kind = "not named like a song's file"
    if kind is None:
      self.songs += 1
      return Member(song_id, info.name, info.offset_data, info.size)
    self.ignored[kind] += 1
    if len(self.examples) < _SHOWN_MEMBERS:
      name = info.name.encode("utf-8", "surrogateescape")
      name = name.decode("utf-8", "backslashreplace")
      self.examples.append(melon_spectrogram.one_line(name))
    return None


def _song_id(name: str) -> int | None:
  """Returns the song whose file has this name in a tar, None for no song's."""
  match = _MEMBER.fullmatch(name)
  if not match or int(match[2]) // SONGS_PER_FOLDER != int(match[1]):
    return None
  return int(match[2])


def _unreadable(detail: str) -> melon_spectrogram.UnusableFile:
  return melon_spectrogram.UnusableFile("unreadable", detail)


def _read_bytes(fd: int, count: int, place: int) -> bytes:
  """Reads that many bytes, fewer only where the file ends."""
  place = min(place, _MAX_PLACE)
  parts = []
  while count > 0 and (part := os.pread(fd, count, place)):
    parts.append(part)
    place, count = place + len(part), count - len(part)
  return parts[0] if len(parts) == 1 else b"".join(parts)


def _is_end(fd: int, header: bytes, place: int) -> bool:
  """Returns whether only zeros follow, to the end of the file.

  In the middle they are a download not finished, or tars in a row.
  """
  if len(header) < _BLOCK or header.strip(b"\0"):
    return False
  while chunk := _read_bytes(fd, _CHUNK_BYTES, place):
    if chunk.strip(b"\0"):
      return False
    place += len(chunk)
  return True


def _name_in(header: bytes) -> str:
  """Returns the name in a header, which may be damaged."""
  return header[:100].split(b"\0")[0].decode("utf-8", "surrogateescape")


def _parse(
  headers: tarfile.TarFile, header: bytes, place: int
) -> tarfile.TarInfo:
  """Reads a member's headers; raises HeaderError, which says what is wrong."""
  try:
    # Where a byte is missing the sum can be right. The oldest form has none.
    magic = header[_MAGIC_BEGIN:_MAGIC_END]
    if not magic.startswith(_MAGIC) and magic.strip(b"\0"):
      raise tarfile.InvalidHeaderError("no magic word")
    info = tarfile.TarInfo.fromtarfile(headers)
    if info.size < 0 or headers.offset < info.offset_data:
      raise tarfile.InvalidHeaderError(f"size {info.size}")
    return info
  except tarfile.EOFHeaderError:
    message = f"the zeros at byte {place} end it, but other bytes follow"
  except tarfile.EmptyHeaderError:
    message = f"it ends at byte {place} without an end mark: truncated?"
  except tarfile.TruncatedHeaderError:
    message = f"it ends in the middle of the header at byte {place}"
  except OSError:
    raise
  # tarfile raises several types on damaged headers; each of them means that.
  except Exception as error:
    message = f"the header at byte {place} is bad ({error})"
  raise tarfile.HeaderError(message)


def _is_header(block: bytes) -> bool:
  """Returns whether a block is a header, by its magic word or its checksum."""
  if block[_MAGIC_BEGIN:].startswith(_MAGIC):
    return True
  try:
    tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
  except (tarfile.HeaderError, ValueError):
    return False
  return not block[_MAGIC_BEGIN:_MAGIC_END].strip(b"\0")


def _find(fd: int, place: int) -> int | None:
  """Returns where the next sound header begins, None if there is no more.

  At any byte, not only at multiples of 512: bytes may have been lost or put in.
  It is known by its magic word, checksum, size and kind; the oldest form of
  tars has no magic word, and none of its headers is found.
  """
  while len(chunk := _read_bytes(fd, _CHUNK_BYTES, place)) >= _BLOCK:
    at = chunk.find(_MAGIC, _MAGIC_BEGIN)
    while at >= 0 and len(chunk) - (at - _MAGIC_BEGIN) >= _BLOCK:
      begin = at - _MAGIC_BEGIN
      header = chunk[begin : begin + _BLOCK]
      try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        if info.size >= 0 and header[156:157] in tarfile.SUPPORTED_TYPES:
          return place + begin
      except (tarfile.HeaderError, ValueError):
        pass
      at = chunk.find(_MAGIC, at + 1)
    place += len(chunk) - _BLOCK + 1
  return None
