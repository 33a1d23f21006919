"""Tests of pcl_jax.library.audio_digests."""

import os
import struct

import mutagen
from mutagen import apev2
from mutagen import id3
import numpy as np
import pytest
import soundfile

from pcl_jax.library import audio_digests
from tests.support.audio_files import encoded_audio
from tests.support.tiny import tiny_library

digest = audio_digests.digest


def test_a_pipe_has_no_digest_and_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / "a.mp3")
  with pytest.raises(OSError, match="it is no regular file: .*a.mp3"):
    digest(tmp_path / "a.mp3")


def _retag(path, text):
  """Writes tags of another length, in the format's own way."""
  file = mutagen.File(path)
  if file.tags is None:
    file.add_tags()
  if isinstance(file.tags, id3.ID3):
    file.tags.add(id3.TIT2(encoding=3, text=[text]))
  elif path.suffix == ".m4a":
    file.tags["\xa9nam"] = [text]
  else:
    file.tags["title"] = [text]
  file.save()


def _song(path, hz):
  """Writes three seconds of a tone in the format of the suffix."""
  if path.suffix in (".m4a", ".wma"):
    time_s = np.arange(48_000, dtype=np.float32)[:, None] / 16_000
    samples = 0.5 * np.sin(2 * np.pi * hz * time_s)
    return encoded_audio.write(path, samples.astype(np.float32), 16_000)
  if path.suffix == ".opus":
    sound = np.sin(2 * np.pi * hz * np.arange(48_000) / 16_000)
    soundfile.write(path, 0.5 * sound, 16_000, format="OGG", subtype="OPUS")
    return path
  return tiny_library.write_song(path, hz, seconds=3.0)


@pytest.mark.parametrize(
  "suffix", ["mp3", "flac", "ogg", "opus", "wav", "aiff", "m4a", "wma"]
)
def test_tags_do_not_change_a_digest_and_other_audio_does(tmp_path, suffix):
  path = _song(tmp_path / f"a.{suffix}", 440.0)
  first = digest(path)
  for text in ("short", "a long title " * 3000):
    _retag(path, text)
    assert digest(path) == first
  other = _song(tmp_path / f"b.{suffix}", 441.0)
  assert digest(other) != first


def test_tags_before_and_behind_mp3_are_left_out(tmp_path):
  path = _song(tmp_path / "a.mp3", 440.0)
  first = digest(path)
  plain = path.read_bytes()
  tags = apev2.APEv2()
  tags["Artist"] = "A" * 500
  tags.save(path)
  assert len(path.read_bytes()) > len(plain) and digest(path) == first
  path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
  assert digest(path) == first
  path.write_bytes(b"ID3\4\0\x10" + bytes([0, 0, 1, 0]) + bytes(138) + plain)
  assert digest(path) == first


def test_every_byte_of_a_file_without_known_tags_counts(tmp_path):
  path = tmp_path / "a.xyz"
  content = bytearray(np.random.default_rng(0).bytes(700_001))
  found = set()
  for at in (0, 1, 262_143, 262_144, 500_000, 700_000):
    content[at] ^= 4
    path.write_bytes(content)
    found.add(digest(path))
  path.write_bytes(content + b"\0")  # As the last block is filled up.
  assert len(found | {digest(path)}) == 7


@pytest.mark.parametrize(
  "content",
  [
    b"",
    b"ID3",
    b"ID3\4\0\0" + bytes([127] * 4),
    b"fLaC",
    b"fLaC\x84\xff\xff\xff",
    b"RIFF\0\0\0\0WAVEdata" + struct.pack("<I", 0) + b"abc",
    b"RIFF\0\0\0\0WAVELIST\xff\xff\xff\xff",
    b"\0\0\0\x08ftyp\0\0\0\1mdat" + bytes(8),
    b"\0\0\0\0ftypM4A ",
    b"OggS" + bytes(22) + b"\xff",
    b"APETAGEX" + bytes(4) + b"\xff\xff\xff\xff" + bytes(16),
    b"TAG" + bytes(125),
    bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
  ],
)
def test_damaged_headers_end_nothing_and_two_files_stay_two(tmp_path, content):
  path = tmp_path / "a"
  path.write_bytes(content)
  first = digest(path)
  assert len(first) == 64
  path.write_bytes(content + b"\1\2\3\4" * 40)
  assert digest(path) != first
