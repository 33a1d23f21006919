"""A folder is written to by one process at a time."""

import errno
import fcntl
import importlib
import os
import pathlib
import subprocess
import sys

import pytest

from pcl_jax.common import errors
from pcl_jax.common import locks

_HOLDER = """
import sys
from pcl_jax.common import locks
with locks.hold(sys.argv[1], "a test"):
  print("held", flush=True)
  sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _refuse_at_once(monkeypatch):
  monkeypatch.setattr(locks, "_WAIT_S", 0.0)


def _start(folder: pathlib.Path) -> subprocess.Popen:
  holder = subprocess.Popen(
    [sys.executable, "-c", _HOLDER, os.fspath(folder)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  )
  assert holder.stdout.readline() == b"held\n"
  return holder


def test_another_process_is_named_until_it_ends_or_is_killed(tmp_path):
  folder = tmp_path / "data"
  for ending in ("ends", "is killed"):
    with _start(folder) as holder:
      with pytest.raises(
        errors.InputError, match=rf"a test \(process {holder.pid} on .*since"
      ):
        with locks.hold(folder, "another"):
          pass
      if ending == "is killed":
        holder.kill()
    with locks.hold(folder, "the next"):
      (folder / "file").touch()
  assert os.listdir(folder) == ["file"]


def test_a_folder_made_for_the_lock_alone_is_removed(tmp_path):
  with pytest.raises(ZeroDivisionError):
    with locks.hold(tmp_path / "a" / "b", "a test"):
      raise ZeroDivisionError
  assert not os.listdir(tmp_path)


def test_a_lock_that_its_holder_removed_in_between_is_not_taken_for_one(
  tmp_path, monkeypatch
):
  flock, path = fcntl.flock, tmp_path / locks.FILES[0]
  opened = []

  def removed_first(descriptor, how):
    opened.append(descriptor)
    if len(opened) == 1:
      path.unlink()
    flock(descriptor, how)

  monkeypatch.setattr(fcntl, "flock", removed_first)
  monkeypatch.setattr(locks, "_WAIT_S", 600.0)  # It is tried again at once.
  with locks.hold(tmp_path, "a test"):
    assert len(opened) > 1 and path.exists()
    monkeypatch.setattr(locks, "_WAIT_S", 0.0)
    with pytest.raises(errors.InputError, match="a test"):
      with locks.hold(tmp_path, "another"):
        pass
  assert not path.exists()


def test_who_waits_gets_the_folder_though_its_holder_removes_it(
  tmp_path, monkeypatch
):
  flock, folder = fcntl.flock, tmp_path / "made"
  with _start(folder) as holder:

    def ended_meanwhile(descriptor, how):
      try:
        flock(descriptor, how)
      except OSError:
        holder.communicate()
        raise

    monkeypatch.setattr(fcntl, "flock", ended_meanwhile)
    with locks.hold(folder, "the next", wait=True):
      assert holder.returncode == 0
      with pytest.raises(errors.InputError, match="the next"):
        with locks.hold(folder, "another"):
          pass
  assert not os.listdir(tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
  (tmp_path / "file").touch()
  for folder in (tmp_path / "file", tmp_path / "file" / "below"):
    with pytest.raises(errors.InputError, match="not a folder"):
      with locks.hold(folder, "a test"):
        pass


def test_a_disk_without_locks_is_warned_of(tmp_path, monkeypatch, capsys):
  def refuse(descriptor, how):
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr(fcntl, "flock", refuse)
  with locks.hold(tmp_path, "a test"):
    pass
  assert "No locks available" in capsys.readouterr().err


def _arguments(folder: pathlib.Path) -> dict[str, list[str]]:
  out, data = f"--out={folder}", f"--data={folder}"
  return {
    "melon_lmdb": [f"--melon_dir={folder}", out],
    "own_library": [f"--audio={folder}", out],
    "free_music": [out],
    "data_split": [f"--melon_dir={folder}", data],
    "playlist_vectors": [data],
    "genre_vectors": [data],
    "sample_data": [out],
    "sample_melon": [out],
  }


@pytest.mark.parametrize("command", list(_arguments(pathlib.Path())))
def test_no_command_writes_to_a_data_set_that_another_writes_to(
  tmp_path, command
):
  module = importlib.import_module(f"preprocessing.{command}")
  with locks.hold(tmp_path, "another command"):
    with pytest.raises(errors.InputError, match="by another command"):
      module.main(_arguments(tmp_path)[command])
  assert not os.listdir(tmp_path)
