"""Tests of pcl_jax.audio.joined_files."""

import pytest

from pcl_jax.audio import joined_files
from tests.support import sound_kinds

_FOUND = "wav flac ogg opus m4a aiff au caf w64 wv tta wma mka webm".split()


@pytest.mark.parametrize("suffix", _FOUND)
def test_each_of_the_joined_files_is_found(tmp_path, suffix):
  made = sound_kinds.Kinds(tmp_path, suffix)
  first, second = made.first, made.second
  path = tmp_path / "joined"
  path.write_bytes(first + second + first)
  ends = [len(first), len(first + second), len(first + second + first)]
  begins = [0, *ends[:-1]]
  assert joined_files.parts(path) == list(zip(begins, ends, strict=True))


def test_places_do_not_depend_on_the_blocks_that_are_read(
  tmp_path, monkeypatch
):
  made = sound_kinds.Kinds(tmp_path, "flac")
  path = tmp_path / "joined"
  path.write_bytes(made.first + made.second)
  expected = joined_files.parts(path)
  for block_bytes in (1000, 4099):
    monkeypatch.setattr(joined_files, "_BLOCK_BYTES", block_bytes)
    assert joined_files.parts(path) == expected


@pytest.mark.parametrize("content", [b"", b"OggS", b"ID3", b"RIFF", b"\xff"])
def test_what_is_hardly_a_file_is_one_part(tmp_path, content):
  path = tmp_path / "a"
  path.write_bytes(content)
  assert joined_files.parts(path) == [(0, len(content))]
