"""Tests of pcl_jax.checkpoint.manager: which steps are kept, and where."""

import errno
import math
import shutil
import tempfile

import jax.numpy as jnp
import numpy as np
import pytest

from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import manager
from pcl_jax.common import errors
from tests.support import small_state


def _steps(workdir):
  folder = workdir / checkpoint_files.FOLDER
  names = {path.name for path in folder.iterdir()} - {"index.json"}
  assert names == {path.name for path in (workdir / "digests").iterdir()}
  return sorted(map(int, names))


@pytest.mark.parametrize(
  "losses, kept, best",
  [
    ([3.0, 1.0, 2.0, 4.0, 5.0], [2, 3, 4, 5], 2),
    pytest.param([2.0, None, None, None], [1, 3, 4], 1, marks=pytest.mark.long),
    pytest.param([None, None, None], [2, 3], 3, marks=pytest.mark.long),
    ([1.0, math.nan, 2.0, None, math.nan], [1, 3, 4, 5], 1),
    pytest.param(
      [1.0, math.nan, 2.0, math.nan, math.nan],
      [1, 3, 4, 5],
      1,
      marks=pytest.mark.long,
    ),
    pytest.param(
      [math.inf, 5.0, -math.inf, None, 6.0, 7.0, 8.0],
      [2, 5, 6, 7],
      2,
      marks=pytest.mark.long,
    ),
    ([1.0, 1.0, 1.0, 2.0, 2.0], [2, 3, 4, 5], 3),
  ],
)
def test_the_two_best_and_the_two_latest_steps_are_kept(
  tmp_path, losses, kept, best
):
  """And a loss that is absent or not finite is never among the best."""
  small_state.write(tmp_path, losses)
  assert _steps(tmp_path) == kept
  files = checkpoint_files.CheckpointFiles(tmp_path)
  assert files.best() == best
  assert files.latest() == len(losses)


def test_the_best_of_an_earlier_start_stay_the_best(tmp_path):
  """Even where no later validation loss is a number."""
  small_state.write(tmp_path, [1.0, 2.0])
  for step in (3, 4, 5):
    checkpoints = manager.Checkpoints(tmp_path)
    metrics = {"total": np.float32("nan"), "audio+cf": jnp.float32(1.0)}
    checkpoints.save(small_state.make(step), small_state.meta(step), metrics)
    checkpoints.close()
  assert _steps(tmp_path) == [1, 2, 4, 5]
  assert checkpoints.files.best() == 1


def test_steps_whose_loss_meant_something_else_are_no_longer_the_best(tmp_path):
  """From the first validation that means the new thing; others wait for it."""
  small_state.write(tmp_path, [1.0, 2.0])
  files = checkpoint_files.CheckpointFiles(tmp_path)
  best = []
  for step, loss in enumerate([None, 7.0, 9.0, 8.0, None, None], start=3):
    checkpoints = manager.Checkpoints(tmp_path)
    meta = small_state.meta(step)
    meta["progress"]["compared_since"] = 2
    metrics = None if loss is None else {"total": loss}
    checkpoints.save(small_state.make(step), meta, metrics)
    checkpoints.close()
    best.append(files.best())
  assert best == [1, 4, 4, 4, 4, 4]
  assert _steps(tmp_path) == [4, 6, 7, 8]


def test_what_an_interrupted_save_left_is_no_step_and_is_removed(tmp_path):
  small_state.write(tmp_path, [1.0, 2.0])
  folder = tmp_path / checkpoint_files.FOLDER
  shutil.copytree(folder / "2", folder / "3.orbax-checkpoint-tmp")
  checkpoints = manager.Checkpoints(tmp_path)
  assert checkpoints.files.latest() == 2
  checkpoints.save(small_state.make(3), small_state.meta(3), {"total": 3.0})
  checkpoints.close()
  assert _steps(tmp_path) == [1, 2, 3]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
  (tmp_path / checkpoint_files.FOLDER).touch()
  with pytest.raises(errors.InputError, match="checkpoints cannot be used"):
    manager.Checkpoints(tmp_path)


@pytest.mark.parametrize("folder", [checkpoint_files.FOLDER, "digests"])
def test_a_folder_that_cannot_be_written_is_refused_at_once(
  tmp_path, monkeypatch, folder
):
  """As on a disk that is mounted read-only; missing parents are made."""
  make = tempfile.TemporaryFile

  def refuse(dir):
    if dir.name == folder:
      raise OSError(errno.EROFS, "Read-only file system", str(dir))
    return make(dir=dir)

  workdir = tmp_path / "parents" / "are" / "made"
  manager.Checkpoints(workdir).close()
  monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
  with pytest.raises(errors.InputError, match="Read-only .*--workdir"):
    manager.Checkpoints(workdir)
