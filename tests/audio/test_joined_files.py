"""Tests of pcl_jax.audio.joined_files."""

import pytest

from pcl_jax.audio import joined_files
from tests.support.audio_files import sound_kinds

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


@pytest.mark.parametrize("suffix", ["wav", "aiff"])
@pytest.mark.parametrize("left", [0.3, 0.9])
def test_a_file_behind_one_that_is_cut_short_is_found(tmp_path, suffix, left):
  """Whose header says that the second one is still its own sound."""
  made = sound_kinds.Kinds(tmp_path, suffix)
  cut = made.first[: int(left * len(made.first))]
  path = tmp_path / "joined"
  path.write_bytes(cut + made.first)
  whole = len(cut + made.first)
  assert joined_files.parts(path) == [(0, len(cut)), (len(cut), whole)]
