"""Where the songs of a Melon folder are: unpacked files and tars.

A tar is read as a row of headers and bodies, in one pass, without unpacking;
the bodies of songs that are not asked for are stepped over. Only regular
members named like a song's file count; everything else is counted and left
alone. Whatever is wrong with a tar, what stands before it is used.
"""

import collections
from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import os
import pathlib
import re
import tarfile

from pcl_jax import errors
from preprocessing import melon_spectrogram

SONGS_PER_FOLDER = 1000
FOLDER = "arena_mel"
_TAR_PATTERN = "arena_mel_*.tar"
_BLOCK = tarfile.BLOCKSIZE
_MAX_NAME_BYTES = 1 << 16  # Of what a header may have in front: a long name.
_SHOWN_MEMBERS = 3
_MEMBERS_PER_SIGN = 1000
_MEMBER = re.compile(
  rb"(?:\./)*(?:arena_mel/)?(0|[1-9][0-9]{0,6})/(0|[1-9][0-9]{0,9})\.npy"
)
_PAX_RECORD = re.compile(rb"([0-9]{1,9}) (path|size)=")
_LONG_NAME = tarfile.GNUTYPE_LONGNAME
_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


def song_file(song_id: int) -> str:
  """Returns a song's file, relative to the folder of the data set."""
  return f"{FOLDER}/{song_id // SONGS_PER_FOLDER}/{song_id}.npy"


def find_tars(melon_dir: pathlib.Path) -> list[pathlib.Path]:
  """Returns the tars of a Melon folder in the order of their numbers."""
  return sorted(melon_dir.glob(_TAR_PATTERN), key=lambda one: order(one.name))


def order(name: str) -> tuple:
  """Returns a key that sorts arena_mel_2.tar before arena_mel_10.tar."""
  parts = re.split(r"([0-9]+)", name)
  return [(int(one), "") if one.isdigit() else (-1, one) for one in parts], name


def find_files(
  melon_dir: pathlib.Path, song_ids: list[int]
) -> dict[int, tuple[int, int]]:
  """Returns song id -> bytes and time of change of unpacked songs' files.

  Args:
    melon_dir: holds arena_mel/, or only tars.
    song_ids: the songs looked for.

  Raises:
    InputError: a folder cannot be listed.
  """
  folders = collections.defaultdict(dict)
  for song_id in song_ids:
    folders[song_id // SONGS_PER_FOLDER][f"{song_id}.npy"] = song_id
  found = {}
  for folder, names in folders.items():
    path = melon_dir / FOLDER / str(folder)
    try:
      # A listing a folder: a look-up a song is slow on disks over a network.
      with os.scandir(path) as entries:
        for entry in entries:
          if entry.name in names:
            with contextlib.suppress(FileNotFoundError):  # A link to nowhere.
              stat = entry.stat()
              found[names[entry.name]] = stat.st_size, stat.st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
      continue
    except OSError as error:
      raise errors.InputError(
        f"{path} cannot be listed ({error.strerror}). Give this user the right "
        "to read it, or move it out of the way to do without it."
      ) from error
  return found


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


class _Damaged(Exception):
  """What is wrong with the tar, in words."""


@dataclasses.dataclass
class Tar:
  """A pass over a tar.

  Attributes:
    path: the file.
    size: its bytes.
    place: how far the pass is, in bytes.
    damage: what stopped it before the end; empty for nothing.
    songs: members that are songs' files.
    ignored: kind of other members -> how many, but for folders.
    examples: some of their names.
  """

  path: pathlib.Path
  size: int = 0
  place: int = 0
  damage: str = ""
  songs: int = 0
  ignored: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )
  examples: list[str] = dataclasses.field(default_factory=list)

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
        raise _Damaged("no spectrogram is in it")
    except _Damaged as error:
      self.damage = melon_spectrogram.one_line(str(error))
    except OSError as error:
      self.damage = f"byte {self.place} cannot be read ({error.strerror})"
    self.place = self.size

  def _read(self, fd: int, is_wanted: Callable[[Member], bool]) -> Iterator:
    header = _read_bytes(fd, _BLOCK, 0)
    while True:
      found = self._next(fd, header)
      if found is None:
        return
      info, name = found
      begin, end = self.place, self.place + _padded(info)
      member = self._member(info, name, begin)
      header = b""
      if self.songs % _MEMBERS_PER_SIGN == 0:
        yield None, memoryview(b"")
      if member is not None and is_wanted(member):
        if end > self.size:
          yield member, _cut_off(member, self.size)
        elif member.size > melon_spectrogram.MAX_FILE_BYTES:
          yield member, _too_large(member)
        else:
          # The next header comes along: one call a song.
          data = _read_bytes(fd, end - begin + _BLOCK, begin)
          if len(data) < member.size:
            raise _Damaged(f"it became shorter while it was read, at {begin}")
          header = data[end - begin :]
          self.place = end
          yield member, memoryview(data)[: member.size]  # Not a copy.
      if end > self.size:
        raise _Damaged(
          f"it ends in the middle of {name!r}: that needs {end} bytes, there "
          f"are {self.size}"
        )
      self.place = end
      header = header or _read_bytes(fd, _BLOCK, end)

  def _next(
    self, fd: int, header: bytes
  ) -> tuple[tarfile.TarInfo, bytes] | None:
    """Returns the next member's header and name, None at the end mark.

    Long names and sizes in front of it are taken in; `place` is set to the
    body's first byte.
    """
    name, size = None, None
    while True:
      if len(header) == _BLOCK and not header.strip(b"\0"):
        self._check_end(fd)
        return None
      info = _parse(header, self.place)
      self.place += _BLOCK
      if info.type in (_LONG_NAME, tarfile.GNUTYPE_LONGLINK, *_PAX):
        if info.size > _MAX_NAME_BYTES:
          raise _Damaged(f"a name of {info.size} bytes at {self.place}")
        text = _read_bytes(fd, info.size, self.place)
        if info.type == _LONG_NAME:
          name = text.rstrip(b"\0")
        elif info.type in _PAX:
          fields = _pax(text)
          name = fields.get(b"path", name)
          size = fields.get(b"size", size)
        self.place += _padded(info)
        header = _read_bytes(fd, _BLOCK, self.place)
        continue
      if size is not None:
        if not size.isdigit() or len(size) > 18:
          raise _Damaged(f"a size of {size[:20]!r} at {self.place}")
        info.size = int(size)
      if info.type == tarfile.GNUTYPE_SPARSE:
        self._skip_sparse(fd, header)
      return info, name or info.name.encode("utf-8", "surrogateescape")

  def _skip_sparse(self, fd: int, header: bytes) -> None:
    is_extended = header[482]
    while is_extended:
      block = _read_bytes(fd, _BLOCK, self.place)
      if len(block) < _BLOCK:
        raise _Damaged(f"it ends in a header, at {self.place}")
      is_extended = block[504]
      self.place += _BLOCK

  def _check_end(self, fd: int) -> None:
    """Refuses zeros in the middle: a download not finished, tars in a row."""
    place = self.place
    while chunk := _read_bytes(fd, 1 << 20, place):
      if chunk.strip(b"\0"):
        raise _Damaged(
          f"the zeros at byte {self.place} end it, but other bytes follow"
        )
      place += len(chunk)

  def _member(
    self, info: tarfile.TarInfo, name: bytes, begin: int
  ) -> Member | None:
    if info.isdir():
      return None
    match = _MEMBER.fullmatch(name)
    kind = None
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
      kind = "a link, a device or of an unknown kind"
    elif not match or int(match[2]) // SONGS_PER_FOLDER != int(match[1]):
      kind = "not named like a song's file"
    if kind is None:
      self.songs += 1
      return Member(int(match[2]), name.decode(), begin, info.size)
    self.ignored[kind] += 1
    if len(self.examples) < _SHOWN_MEMBERS:
      shown = name.decode("utf-8", "backslashreplace")
      self.examples.append(melon_spectrogram.one_line(shown))
    return None


def _cut_off(member: Member, size: int) -> melon_spectrogram.UnusableFile:
  return melon_spectrogram.UnusableFile(
    "unreadable",
    f"the tar ends in the middle of it: {max(size - member.begin, 0)} of "
    f"{member.size} bytes",
  )


def _too_large(member: Member) -> melon_spectrogram.UnusableFile:
  try:
    melon_spectrogram.check_size(member.size)
  except melon_spectrogram.UnusableFile as error:
    return error
  raise AssertionError(member)


def _padded(info: tarfile.TarInfo) -> int:
  """Returns how many bytes the member's body takes in the tar."""
  # As tarfile has it: of the known kinds, only files have a body.
  if not info.isreg() and info.type in tarfile.SUPPORTED_TYPES:
    if info.type not in (_LONG_NAME, tarfile.GNUTYPE_LONGLINK, *_PAX):
      return 0
  return -(-info.size // _BLOCK) * _BLOCK


def _parse(header: bytes, place: int) -> tarfile.TarInfo:
  if not header:
    raise _Damaged(f"it ends at byte {place} without an end mark: truncated?")
  try:
    info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
  except (tarfile.HeaderError, ValueError) as error:
    raise _Damaged(f"the header at byte {place} is bad ({error})") from error
  if info.size < 0:
    raise _Damaged(f"the header at byte {place} has size {info.size}")
  return info


def _pax(text: bytes) -> dict[bytes, bytes]:
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


def _read_bytes(fd: int, count: int, place: int) -> bytes:
  """Reads that many bytes, fewer only where the file ends."""
  parts = []
  while count > 0 and (part := os.pread(fd, count, place)):
    parts.append(part)
    place, count = place + len(part), count - len(part)
  return parts[0] if len(parts) == 1 else b"".join(parts)
