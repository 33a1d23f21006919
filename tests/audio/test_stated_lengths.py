"""Tests of pcl_jax.audio.stated_lengths: what is believed, what is not."""

import re
import struct

import numpy as np
import pytest

from pcl_jax.audio import decode
from tests.support.audio_files import sound_kinds


def _read(path, content):
  path.write_bytes(content)
  told: list[str] = []
  blocks = decode.audio_blocks(path, warn=lambda _, why: told.append(why))
  return sum(map(len, blocks)) / 16_000, told


def _with_xing(content, frames):
  """Returns an MP3 whose header counts this many frames."""
  place = next(content.find(n) for n in (b"Xing", b"Info") if n in content)
  data = bytearray(content)
  struct.pack_into(">I", data, place + 8, frames)
  return bytes(data)


@pytest.mark.parametrize(
  "frames, is_told", [(0, False), (10, False), (90, True), (9000, True)]
)
def test_frames_of_an_mp3_are_believed_where_they_are_more(
  tmp_path, frames, is_told
):
  song = sound_kinds.Kinds(tmp_path, "mp3").first
  length_s, told = _read(tmp_path / "a.mp3", _with_xing(song, frames))
  assert abs(length_s - sound_kinds.SECONDS[0]) < 0.1
  assert bool(told) == is_told


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF, 0x7FFF_F024])
def test_a_wav_of_unknown_size_is_read_to_its_end(tmp_path, size):
  song = bytearray(sound_kinds.Kinds(tmp_path, "wav").first)
  struct.pack_into("<I", song, song.find(b"data") + 4, size)
  struct.pack_into("<I", song, 4, size)
  length_s, told = _read(tmp_path / "a.wav", bytes(song))
  assert abs(length_s - sound_kinds.SECONDS[0]) < 0.01
  assert not told


@pytest.mark.parametrize(
  "suffix, places",
  [
    ("aiff", {b"FORM": 4, b"SSND": 4, b"COMM": 10}),
    ("au", {b".snd": 8}),
    ("w64", {b"riff": 16, b"data": 16}),
    ("caf", {b"data": 4}),
  ],
)
@pytest.mark.parametrize("filling", [b"\0", b"\xff"])
def test_a_file_of_unknown_size_is_read_to_its_end(
  tmp_path, suffix, places, filling
):
  song = bytearray(sound_kinds.Kinds(tmp_path, suffix).first)
  size = 8 if suffix in ("w64", "caf") else 4
  for name, behind in places.items():
    place = song.find(name) + behind
    song[place : place + size] = filling * size
  for path in (tmp_path / f"a.{suffix}", tmp_path / "a"):
    length_s, told = _read(path, bytes(song))
    assert abs(length_s - sound_kinds.SECONDS[0]) < 0.01
    assert not told


def test_a_flac_of_unknown_length_is_read_to_its_end(tmp_path):
  song = bytearray(sound_kinds.Kinds(tmp_path, "flac").first)
  song[21] &= 0xF0  # The 36 bits of total samples of STREAMINFO.
  song[22:26] = bytes(4)
  length_s, told = _read(tmp_path / "a.flac", bytes(song))
  assert abs(length_s - sound_kinds.SECONDS[0]) < 0.01
  assert not told


def test_what_is_cut_off_is_told_with_both_lengths(tmp_path):
  samples = np.concatenate([sound_kinds.song(0, 6.0)])
  path = tmp_path / "a.wav"
  song = sound_kinds.encode(path, samples, sound_kinds.FORMATS["wav"])
  length_s, told = _read(path, song[: len(song) // 2])
  assert abs(length_s - 3.0) < 0.01
  assert len(told) == 1 and "3.0 s of 6.0 s are missing" in told[0]


@pytest.mark.parametrize("size", [200, 5000, 50_000])
@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
def test_padding_behind_an_mp3_is_no_damage(tmp_path, size, byte):
  song = sound_kinds.Kinds(tmp_path, "mp3").first
  length_s, told = _read(tmp_path / "a.mp3", song + byte * size)
  assert abs(length_s - sound_kinds.SECONDS[0]) < 0.1
  assert not told


@pytest.mark.parametrize("left", [-9, 1, 3, 6, 26])
def test_an_ogg_file_cut_off_in_a_page_is_told(tmp_path, left):
  song = sound_kinds.Kinds(tmp_path, "ogg").first
  last_page = song.rfind(b"OggS")
  _, told = _read(tmp_path / "a.ogg", song[: last_page + left])
  assert told


@pytest.mark.parametrize("behind", [b"", bytes(500), b"TAG" + bytes(125)])
def test_an_ogg_file_without_an_end_flag_is_whole(tmp_path, behind):
  """As recorders of broadcasts write it, and with what taggers add."""
  song = sound_kinds.Kinds(tmp_path, "ogg").first
  whole = song[: song.rfind(b"OggS")]
  _, told = _read(tmp_path / "a.ogg", whole + behind)
  assert not told


def test_a_damaged_first_page_of_an_ogg_file_is_told(tmp_path):
  """Without it the sound begins later, as a part of a broadcast does."""
  song = bytearray(sound_kinds.Kinds(tmp_path, "ogg").first)
  pages = [one.start() for one in re.finditer(b"OggS", song)]
  song[(pages[2] + pages[3]) // 2] ^= 1
  length_s, told = _read(tmp_path / "a.ogg", bytes(song))
  assert length_s < sound_kinds.SECONDS[0] - 0.1
  assert told
