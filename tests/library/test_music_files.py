"""Tests of pcl_jax.library.music_files."""

import os

import pytest

from pcl_jax.library import music_files
from tests.support.tiny import tiny_library


@pytest.fixture
def music(tmp_path):
  """A folder with some songs, also under names that say nothing."""
  music = tmp_path / "music"
  song = tiny_library.write_song(music / "Z" / "1.flac", seconds=1.0)
  for name in ("a.weba", "b", "c.dat", "d.MP3.bak"):
    (music / name).write_bytes(song.read_bytes())
  return music


def test_files_are_judged_by_content_and_others_are_counted(music):
  (music / "cover.jpg").write_bytes(b"\xff\xd8\xff\xe0" + os.urandom(2000))
  (music / "log.txt").write_text("a log\n" * 100)
  (music / "utf16.log").write_bytes(("é" * 400).encode("utf-16"))
  (music / "noise.bin").write_bytes(os.urandom(3000))
  (music / "empty").touch()
  (music / "list.m3u").write_text("a.weba")
  (music / "damaged.mp3").write_text("nothing")
  (music / "gone.dat").symlink_to("nowhere")
  os.mkfifo(music / "pipe.dat")
  found = music_files.look_through(music)
  assert found.sound == [
    "Z/1.flac", "a.weba", "b", "c.dat", "d.MP3.bak", "damaged.mp3"
  ]  # fmt: skip
  assert found.others == {
    ".jpg": 1, ".txt": 1, ".log": 1, ".bin": 1, "": 1, ".dat": 2
  }  # fmt: skip
  assert "7 that are no sound (.dat 2, " in found.passed_over()


def test_names_that_begin_with_a_dot_are_passed_over_and_named(music):
  for name in (".a.flac", "...And Justice.flac", "._b.jpg", ".38/c.flac"):
    (music / name).parent.mkdir(exist_ok=True)
    (music / name).write_bytes((music / "b").read_bytes())
  found = music_files.look_through(music)
  assert "...And Justice.flac" in found.sound
  assert sorted(found.hidden) == [".38", ".a.flac"]
  assert "2 whose names begin with a dot (" in found.passed_over()
  assert not any("38" in path or ".a" in path for path in found.sound)


def test_a_file_that_has_changed_is_judged_again(music):
  (music / "b").write_text("text")
  assert "b" not in music_files.look_through(music).sound
  (music / "b").write_bytes((music / "c.dat").read_bytes())
  assert "b" in music_files.look_through(music).sound


def test_a_folder_goes_by_its_own_path_if_a_link_leads_to_it(music, tmp_path):
  (music / "A favourites").symlink_to("Z")
  (music / "loop").symlink_to(".")
  (music / "Z" / "up").symlink_to("..")
  other = tmp_path / "other" / "2.flac"
  other.parent.mkdir()
  other.write_bytes((music / "b").read_bytes())
  (music / "Disk").symlink_to(other.parent)
  (music / "Disk again").symlink_to(other.parent)
  (music / "y.flac").symlink_to("Z/1.flac")
  (music / "itself").symlink_to("itself")
  found = music_files.look_through(music).sound
  assert [one for one in found if "/" in one] == ["Disk/2.flac", "Z/1.flac"]
  assert "y.flac" in found


def test_what_cannot_be_read_is_named(music, monkeypatch):
  scandir = os.scandir

  def refusing(path):
    if os.fspath(path).endswith("Z"):
      raise PermissionError(path)
    return scandir(path)

  monkeypatch.setattr(music_files.os, "scandir", refusing)
  monkeypatch.setattr(
    music_files.os, "access", lambda path, _: not path.endswith("b")
  )
  found = music_files.look_through(music)
  assert "2 that cannot be read (" in found.passed_over()
  assert sorted(found.closed) == ["Z", "b"] and "b" not in found.sound
