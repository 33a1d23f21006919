"""A pass over one of Melon's tars.

A tar is read as a row of headers and bodies, in one pass, without unpacking;
the bodies of songs that are not asked for are stepped over. Only regular
members named like a song's file count; everything else is counted and left
alone. Behind damage the next sound header is looked for and the pass goes on
there. A song is given up where its bytes cannot be trusted: cut off by another
member's header, or with bytes put in.
"""

import collections
from collections.abc import Callable, Iterator
import dataclasses
import os
import pathlib
import re
import tarfile

from preprocessing.melon import melon_spectrogram
from preprocessing.melon import tar_header

SONGS_PER_FOLDER = 1000
_BLOCK = tar_header.BLOCK
_MAX_NAME_BYTES = 1 << 16  # Of what a header may have in front: a long name.
_SHOWN_MEMBERS = 3
_SHOWN_DAMAGES = 3
_MEMBERS_PER_SIGN = 1000
_MEMBER = re.compile(
  rb"(?:\./)*(?:arena_mel/)?(0|[1-9][0-9]{0,6})/(0|[1-9][0-9]{0,9})\.npy"
)

_read_bytes = tar_header.read_bytes


def _song_id(name: bytes) -> int | None:
  """Returns the song whose file has this name in a tar, None for no song's."""
  match = _MEMBER.fullmatch(name)
  if not match or int(match[2]) // SONGS_PER_FOLDER != int(match[1]):
    return None
  return int(match[2])


@dataclasses.dataclass(frozen=True)
class Member:
  """A song in a tar.

  Attributes:
    song_id: its id.
    name: of the member, as in the tar.
    begin: the body's first byte in the tar.
    size: bytes of the body.
  """

  song_id: int
  name: str
  begin: int
  size: int


@dataclasses.dataclass
class Tar:
  """A pass over a tar.

  Attributes:
    path: the file.
    size: its bytes.
    place: how far the pass is, in bytes.
    damage: what is wrong with it, in words; empty for nothing.
    gaps: how often the next sound header had to be looked for.
    gap_bytes: bytes passed over by that.
    songs: members that are songs' files.
    ignored: kind of other members -> how many, but for folders.
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
  _end_mark: int = -1  # Where zeros to the end of the file begin.
  _searched: tuple[int, int | None] = (0, 0)  # From where, found where.

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
        yield from self._read(file.fileno(), is_wanted)
      if not self.songs:
        self._damages.append("no spectrogram is in it")
    except OSError as error:
      self._damages.append(
        f"byte {self.place} cannot be read ({error.strerror})"
      )
    shown = map(melon_spectrogram.one_line, self._damages[:_SHOWN_DAMAGES])
    shown = list(shown)
    if more := self._damages[_SHOWN_DAMAGES:]:
      shown.append(f"and {len(more)} more of such places")
    if self.gaps > 1:
      shown.append(f"{self.gap_bytes} bytes passed over in all")
    self.damage = "; ".join(shown)
    self.place = self.size

  def _read(self, fd: int, is_wanted: Callable[[Member], bool]) -> Iterator:
    header = _read_bytes(fd, _BLOCK, 0)
    while header is not None:
      try:
        found = self._next(fd, header)
      except tar_header.Damaged as error:
        lost = _song_id(error.name)
        if lost is not None:
          member = Member(lost, error.name.decode(), error.place, 0)
          if is_wanted(member):
            yield member, _unreadable(f"in its tar, {error}")
        header = self._pass_over(fd, str(error), error.place)
        continue
      if found is None:
        return
      info, name = found
      begin, end = self.place, self.place + tar_header.padded_size(info)
      member = self._member(info, name, begin)
      if self.songs % _MEMBERS_PER_SIGN == 0:
        yield None, memoryview(b"")
      if member is not None and not is_wanted(member):
        member = None
      # The next header comes along: one call a song.
      is_read = member is not None and _is_fit(member) and end <= self.size
      stop = min(end, self.size)
      start = begin if is_read else stop
      data = memoryview(_read_bytes(fd, stop - start + _BLOCK, start))
      data, header = data[: stop - start], bytes(data[stop - start :])
      is_sound = tar_header.is_sound(header) or (
        self._is_end(fd, header, end) and (self.size - end) % _BLOCK == 0
      )
      cut = "" if is_sound else self._cut(fd, name, begin, end)
      self.place = stop
      if member is not None:
        bad_header = None if is_sound else header
        yield member, self._judge(member, data, cut, bad_header)
      if cut:
        header = self._pass_over(fd, cut, begin)

  def _cut(self, fd: int, name: bytes, begin: int, end: int) -> str:
    """Says how a body is cut off that no header follows; empty if it is not.

    Bytes that got lost show by a header that is not where it should be, and
    is before the body's end.
    """
    if end > self.size:
      return (
        f"it ends in the middle of {name!r}: that needs {end} bytes, there are "
        f"{self.size}"
      )
    if self._end_mark == end:
      return f"it ends in the middle of a block: bytes of {name!r} are missing"
    found = self._find(fd, begin)
    if found is None or found >= end:
      return ""
    return (
      f"bytes of {name!r} are missing: it ends at {end}, and another header is "
      f"at {found}"
    )

  def _judge(
    self, member: Member, data: memoryview, cut: str, bad_header: bytes | None
  ) -> memoryview | melon_spectrogram.UnusableFile:
    """Returns a member's bytes, or why they are not to be used.

    Args:
      member: what is judged.
      data: its body, padded.
      cut: see `_cut`.
      bad_header: what follows, where that is no sound header.
    """
    if not _is_fit(member) and not cut:
      return _too_large(member)
    if cut:
      there = min(max(self.size - member.begin, 0), member.size)
      return _unreadable(
        f"the tar is damaged in it ({there} of {member.size} bytes): {cut}"
      )
    if len(data) < member.size:
      return _unreadable("the tar became shorter while it was read")
    if bad_header is not None and not _is_whole(member, data, bad_header):
      return _unreadable(
        "what follows it in the tar is no header: bytes may have been put in"
      )
    return data[: member.size]

  def _find(self, fd: int, place: int) -> int | None:
    start, found = self._searched
    if place < start or (found is not None and place > found):
      self._searched = place, tar_header.find(fd, place)
    return self._searched[1]

  def _pass_over(self, fd: int, damage: str, begin: int) -> bytes | None:
    """Goes to the next sound header, and notes damage and gap.

    Args:
      fd: the tar.
      damage: what is wrong, in words.
      begin: the first byte that is not used.

    Returns:
      The header; None if there is none.
    """
    # Not itself again, where what follows the header is what is wrong.
    found = self._find(fd, begin + 1)
    end = self.size if found is None else found
    if begin < end:
      self.gaps += 1
      self.gap_bytes += end - begin
      damage += f"; bytes {begin} to {end} ({end - begin}) are passed over"
    self._damages.append(damage)
    self.place = end
    return None if found is None else _read_bytes(fd, _BLOCK, found)

  def _next(
    self, fd: int, header: bytes
  ) -> tuple[tarfile.TarInfo, bytes] | None:
    """Returns the next member's header and name, None at the end mark.

    Long names and sizes in front of it are taken in; `place` is set to the
    body's first byte.
    """
    name, size = None, None
    while True:
      place = self.place
      if len(header) == _BLOCK and not header.strip(b"\0"):
        if self._is_end(fd, header, place):
          return None
        raise tar_header.Damaged(
          f"the zeros at byte {place} end it, but other bytes follow", place
        )
      info = tar_header.parse(header, place, name)
      self.place += _BLOCK
      if info.type in tar_header.IN_FRONT:
        if info.size > _MAX_NAME_BYTES:
          raise tar_header.Damaged(
            f"a name of {info.size} bytes at {place}", place
          )
        text = _read_bytes(fd, info.size, self.place)
        if info.type == tar_header.LONG_NAME:
          name = text.rstrip(b"\0")
        elif info.type in tar_header.PAX:
          fields = tar_header.pax_fields(text)
          name = fields.get(b"path", name)
          size = fields.get(b"size", size)
        self.place += tar_header.padded_size(info)
        header = _read_bytes(fd, _BLOCK, self.place)
        continue
      if size is not None:
        if not size.isdigit() or len(size) > 18:
          raise tar_header.Damaged(f"a size of {size[:20]!r} at {place}", place)
        info.size = int(size)
      if info.type == tarfile.GNUTYPE_SPARSE:
        self._skip_sparse(fd, header)
      return info, name or info.name.encode("utf-8", "surrogateescape")

  def _skip_sparse(self, fd: int, header: bytes) -> None:
    is_extended = header[482]
    while is_extended:
      block = _read_bytes(fd, _BLOCK, self.place)
      if len(block) < _BLOCK:
        raise tar_header.Damaged(
          f"it ends in a header, at {self.place}", self.place
        )
      is_extended = block[504]
      self.place += _BLOCK

  def _is_end(self, fd: int, header: bytes, place: int) -> bool:
    """Returns whether there are only zeros, and zeros to the end of the file.

    In the middle they are a download not finished, or tars in a row.
    """
    if len(header) < _BLOCK or header.strip(b"\0"):
      return False
    start = place
    while place != self._end_mark and (
      chunk := _read_bytes(fd, 1 << 20, place)
    ):
      if chunk.strip(b"\0"):
        return False
      place += len(chunk)
    self._end_mark = start
    return True

  def _member(
    self, info: tarfile.TarInfo, name: bytes, begin: int
  ) -> Member | None:
    if info.isdir():
      return None
    song_id, kind = _song_id(name), None
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
      kind = "a link, a device or of an unknown kind"
    elif song_id is None:
      kind = "not named like a song's file"
    if kind is None:
      self.songs += 1
      return Member(song_id, name.decode(), begin, info.size)
    self.ignored[kind] += 1
    if len(self.examples) < _SHOWN_MEMBERS:
      shown = name.decode("utf-8", "backslashreplace")
      self.examples.append(melon_spectrogram.one_line(shown))
    return None


def _is_whole(member: Member, data: memoryview, bad_header: bytes) -> bool:
  """Returns whether damage behind a member has left its own bytes alone.

  Bytes put in push others into the padding, which was zeros.
  """
  padding = bytes(data[member.size :])
  if padding or not member.size:
    return not padding.strip(b"\0")
  return (
    not bad_header.strip(b"\0")
    or tar_header.is_recognisable(bad_header)
    or _song_id(tar_header.name_in(bad_header)) is not None
  )


def _unreadable(detail: str) -> melon_spectrogram.UnusableFile:
  return melon_spectrogram.UnusableFile("unreadable", detail)


def _is_fit(member: Member) -> bool:
  return member.size <= melon_spectrogram.MAX_FILE_BYTES


def _too_large(member: Member) -> melon_spectrogram.UnusableFile:
  try:
    melon_spectrogram.check_size(member.size)
  except melon_spectrogram.UnusableFile as error:
    return error
  raise AssertionError(member)
