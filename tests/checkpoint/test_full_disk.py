"""Tests of full disks: training goes on, a conversion stops; both say so."""

import errno
import os
import subprocess

import jax
import pytest

from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import manager
from pcl_jax.checkpoint import restore
from pcl_jax.common import errors
from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from preprocessing.melon import conversion
from preprocessing.melon import converter
from tests.support import small_state
from tests.support.tiny import tiny_melon
from tests.support.tiny import tiny_run

NUMBERS = 2**19  # 2 MB a state.
DISK = "size=12m"


@pytest.fixture
def disk(tmp_path):
  """A small disk of its own; skips where mounting one is not allowed."""
  folder = tmp_path / "disk"
  folder.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", os.fspath(folder)]
  try:
    done = subprocess.run(mount, capture_output=True, check=False)
  except OSError:
    pytest.skip("there is no command to mount a disk with")
  if done.returncode:
    pytest.skip("a disk can be mounted by root only")
  yield folder
  subprocess.run(["umount", "--lazy", folder], check=True)


def _state(step):
  return small_state.make(step, padding=NUMBERS)


def _fill(folder):
  """Leaves no byte; returns the file that takes them."""
  path = folder / "ballast"
  with path.open("wb", buffering=0) as file:
    try:
      while True:
        file.write(bytes(2**16))
    except OSError as error:
      assert error.errno == errno.ENOSPC
  return path


def _donate(state):
  """Frees a state, as the next step does."""
  for leaf in jax.tree.leaves(state):
    leaf.delete()


def _unfinished(workdir):
  return list((workdir / "checkpoints").glob("*tmp*"))


def test_a_full_disk_costs_a_checkpoint_but_not_the_run(disk, caplog):
  workdir = disk / "run"
  checkpoints = manager.Checkpoints(workdir)
  checkpoints.save(_state(1), small_state.meta(1))
  checkpoints.wait()
  assert checkpoints.failures == 0 and not checkpoints.last_save_failed
  ballast = _fill(disk)
  state = _state(2)
  checkpoints.save(state, small_state.meta(2))
  _donate(state)
  checkpoints.wait()
  assert checkpoints.failures >= 1 and checkpoints.last_save_failed
  assert "checkpoint 2 could not be written" in caplog.text
  assert "Training goes on" in caplog.text
  # What it left is gone, so that other files have the room.
  assert not _unfinished(workdir)
  ballast.unlink()
  checkpoints.save(_state(3), small_state.meta(3))
  checkpoints.finish()
  assert not checkpoints.last_save_failed
  checkpoints.close()
  assert checkpoints.files.steps() == [1, 3]
  for step in (1, 3):
    state = restore.read_state(checkpoints.files, step, _state(9))
    small_state.assert_same(state, _state(step))


def test_a_run_whose_last_save_failed_says_what_is_on_file(disk):
  checkpoints = manager.Checkpoints(disk / "run")
  checkpoints.save(_state(1), small_state.meta(1))
  checkpoints.wait()
  _fill(disk)
  checkpoints.save(_state(2), small_state.meta(2))
  with pytest.raises(errors.RunError, match="on file is of step 1"):
    checkpoints.finish()
  assert checkpoints.failures == 2  # Tried twice, since the state was there.
  checkpoints.close()


def _fail(monkeypatch, steps, times=1):
  """Makes the saves of these steps fail so often, as their digests are due."""
  write = checkpoint_files.CheckpointFiles.write_digest
  left = {step: times for step in steps}

  def spoiled(self, step):
    if left.get(step, 0):
      left[step] -= 1
      raise OSError(errno.ENOSPC, "No space left on device")
    write(self, step)

  monkeypatch.setattr(checkpoint_files.CheckpointFiles, "write_digest", spoiled)


def test_a_save_that_fails_once_is_tried_again_while_its_state_is_there(
  tmp_path, monkeypatch, caplog
):
  _fail(monkeypatch, [1])
  small_state.write(tmp_path, [1.0])
  assert "checkpoint 1 was written after all" in caplog.text
  files = checkpoint_files.CheckpointFiles(tmp_path)
  state = restore.read_state(files, 1, small_state.make(9))
  small_state.assert_same(state, small_state.make(1))


def test_a_failed_save_deletes_none_of_those_before(tmp_path, monkeypatch):
  """Not even those that it would have made superfluous."""
  small_state.write(tmp_path, [1.0, 2.0, 3.0, 4.0])
  _fail(monkeypatch, [5], times=9)
  checkpoints = manager.Checkpoints(tmp_path)
  checkpoints.save(small_state.make(5), small_state.meta(5), {"total": 0.5})
  checkpoints.close()
  files = checkpoints.files
  assert files.steps() == [1, 2, 3, 4]
  assert [files.fault(step) for step in files.steps()] == [None] * 4


@pytest.mark.usefixtures("quickly")
def test_training_goes_on_through_failed_saves_and_fails_with_the_last(
  data_dir, tmp_path, monkeypatch, capsys
):
  config = tiny_run.quick_config(data_dir, epochs=1, save_every_steps=1)
  with monkeypatch.context() as patch:
    _fail(patch, [2, 3, 4], times=9)
    with pytest.raises(errors.RunError, match="on file is of step 1. Make"):
      tiny_run.train_on_one(config, tmp_path / "run")
  rows = tiny_run.rows_of(tmp_path / "run")
  # The last is of the validation.
  assert [row["step"] for row in rows] == [1, 2, 3, 4, 4]
  # The save of step 2 is waited for when step 3 is to be saved.
  counts = [row.get("checkpoint_failures", 0) for row in rows]
  assert counts[:3] == [0, 0, 0] and 1 <= counts[3] <= counts[4]
  progress = tiny_run.train_on_one(config, tmp_path / "run")
  assert progress["step"] == 4
  assert "going on from step 1" in capsys.readouterr().out
  rows = tiny_run.rows_of(tmp_path / "run")
  assert not any("checkpoint_failures" in row for row in rows)


def _records(store_dir):
  store = song_store.SongStore(store_dir)
  return {
    int(one): store.read_song(i).tobytes()
    for i, one in enumerate(store.song_ids)
  }


def test_a_conversion_whose_disk_fills_up_says_so_and_goes_on(
  disk, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(converter, "_SONGS_PER_COMMIT", 8)
  monkeypatch.setattr(conversion, "_BATCH_BYTES", 1)
  tiny_melon.write_melon(tmp_path, range(24))
  commit, ballast = song_writer.SongWriter._commit, []

  def filled_before(self, *arguments):
    if self.done and not ballast:
      ballast.append(_fill(disk))
    commit(self, *arguments)

  with monkeypatch.context() as patch:
    patch.setattr(song_writer.SongWriter, "_commit", filled_before)
    with pytest.raises(errors.InputError, match="has 0 bytes free, the next"):
      converter.build_song_store(tmp_path, disk / "data", workers=1)
  assert not (disk / "data" / "songs.lmdb").exists()
  ballast[0].unlink()
  capsys.readouterr()
  store = converter.build_song_store(tmp_path, disk / "data", workers=1)
  assert "going on: 8 songs are settled already" in capsys.readouterr().out
  whole = converter.build_song_store(tmp_path, tmp_path / "data")
  assert _records(store) == _records(whole)
