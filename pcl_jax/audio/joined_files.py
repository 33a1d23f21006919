"""Files that are several files, one behind the other.

Recorders, chained Ogg broadcasts and `cat a.mp3 b.mp3` write such. Most
demuxers end with the first of them, or take the next one's header for sound, so
each is opened by itself.
"""

from collections.abc import Iterator
import os
import re
import struct

Path = str | os.PathLike[str]

TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")  # No sound, no damage.
_BLOCK_BYTES = 1 << 18
_MARGIN_BYTES = 256  # That a file's beginning is recognised by.
_SIZED = {b"RIFF": "<I", b"FORM": ">I"}  # Which say where they end.
# What to look for, and how the beginning of a file is recognised. An ID3 tag is
# one only if sound follows it.
_BEGINNINGS = (
  (b"OggS\0", re.compile(rb"OggS\0[\x02\x06]")),
  (b"ID3", re.compile(rb"ID3[\x02-\x04]\0.[\0-\x7f]{4}", re.DOTALL)),
  (b"fLaC", re.compile(rb"fLaC[\0\x80]\0\0\x22")),
  (b"RIFF", re.compile(rb"RIFF.{4}WAVE", re.DOTALL)),
  (b"RF64", re.compile(rb"RF64.{4}WAVEds64", re.DOTALL)),
  (b"FORM", re.compile(rb"FORM.{4}(?:AIF[FC]|8SVX)", re.DOTALL)),
  (b"riff", re.compile(rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0")),
  (b"caff", re.compile(rb"caff\0\x01\0\0desc")),
  (b".snd", re.compile(rb"\.snd\0\0.{2}.{4}\0\0\0[\x01-\x1b]", re.DOTALL)),
  (b"TTA1", re.compile(rb"TTA1[\x01-\x03]\0.\0[\x08-\x20]\0", re.DOTALL)),
  (b"FLV\x01", re.compile(rb"FLV\x01[\x01\x04\x05]\0\0\0\x09\0\0\0\0")),
  (
    b"\x1aE\xdf\xa3",
    re.compile(rb"\x1aE\xdf\xa3.{1,60}?(?:matroska|webm)", re.DOTALL),
  ),
  (b"Crea", re.compile(rb"Creative Voice File\x1a")),
  (
    b"\x30\x26\xb2\x75",
    re.compile(
      rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c"
    ),
  ),
  # Its first block, of which the fifth word is the number.
  (b"wvpk", re.compile(rb"wvpk.{12}\0{4}", re.DOTALL)),
)
_MP4 = re.compile(rb"\0\0\0[\x10-\x60]ftyp")


def _pattern(head: bytes) -> tuple[bytes, re.Pattern]:
  """Returns what files of one kind begin with, and how one is recognised."""
  for beginning, pattern in _BEGINNINGS:
    if head.startswith(beginning):
      return beginning, pattern
  if head[4:8] == b"ftyp":
    return b"ftyp", _MP4
  if head[:1] == b"\xff":  # Raw MPEG audio or AAC: a tag begins the next one.
    return _BEGINNINGS[1]
  return b"", _MP4


def _sound_follows(file, place: int) -> bool:
  """Returns whether MPEG audio or AAC begins at a place."""
  file.seek(place)
  after = file.read(2)
  return len(after) == 2 and after[0] == 0xFF and after[1] >= 0xE0


def _end_of_tag(file, place: int) -> int:
  """Returns where an ID3 tag ends."""
  file.seek(place + 6)
  size = 0
  for byte in file.read(4):
    size = size << 7 | byte & 0x7F
  return place + 10 + size


def _first_possible(file, head: bytes) -> int:
  """Returns where a second file begins at the earliest."""
  if head[:3] == b"ID3":
    return _end_of_tag(file, 0)
  if head[:4] in _SIZED and len(head) >= 8:
    (size,) = struct.unpack(_SIZED[head[:4]], head[4:8])
    file.seek(8 + size)
    behind = file.read(_MARGIN_BYTES).lstrip(b"\0")
    file.seek(0, os.SEEK_END)
    # Else another file may begin before this one's stated end.
    is_end = not behind or behind.startswith((*_SIZED, *TAGS))
    return 8 + size if is_end and 8 + size <= file.tell() else 1
  return 1


def _beginnings(file) -> Iterator[int]:
  """Yields where a file begins in a file, behind its beginning."""
  head = file.read(_MARGIN_BYTES)
  literal, pattern = _pattern(head)
  if not literal:
    return
  ahead = 4 if pattern is _MP4 else 0
  place = _first_possible(file, head)
  while True:
    file.seek(place)
    block = file.read(_BLOCK_BYTES)
    found = block.find(literal, ahead)
    while found >= 0:
      begin = found - ahead
      if pattern.match(block, begin):
        yield place + begin
      found = block.find(literal, found + 1)
    if len(block) < _BLOCK_BYTES:
      return
    place += _BLOCK_BYTES - _MARGIN_BYTES


def _separate(file, begins: list[int]) -> Iterator[int]:
  """Leaves out what belongs to the file before it."""
  file.seek(0)
  kind = file.read(4)
  if kind in (b"OggS", b"wvpk"):  # Several streams begin one behind the other.
    end_of = _end_of_block
  elif kind[:3] == b"ID3" or kind[:1] == b"\xff":  # Some files have two tags.
    end_of = _end_of_tag
  else:
    yield from begins
    return
  after = 0 if kind[:1] == b"\xff" else end_of(file, 0)
  for begin in begins:
    follows, after = begin == after, end_of(file, begin)
    if end_of is _end_of_tag and not _sound_follows(file, after):
      continue
    if not follows:
      yield begin


def _end_of_block(file, place: int) -> int:
  """Returns where an Ogg page or a WavPack block ends."""
  file.seek(place)
  head = file.read(27 + 255)
  if len(head) < 27:
    return place
  if head[:4] == b"wvpk":
    return place + 8 + int.from_bytes(head[4:8], "little")
  segments = head[26]
  return place + 27 + segments + sum(head[27 : 27 + segments])


def parts(path: Path) -> list[tuple[int, int]]:
  """Returns where each of the files joined in a file begins and ends.

  Args:
    path: any file.

  Returns:
    Places in bytes, one pair for a file that is not joined.

  Raises:
    OSError: it cannot be read.
  """
  with open(path, "rb") as file:
    begins = [0, *_separate(file, sorted(set(_beginnings(file))))]
    end = file.seek(0, os.SEEK_END)
  return list(zip(begins, [*begins[1:], end], strict=True))
