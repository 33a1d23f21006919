"""Tests of python -m pcl_jax.checkpoint, which shows and verifies steps."""

import json
import re
import shutil

import pytest

from pcl_jax.checkpoint import __main__
from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import manager
from pcl_jax.common import errors
from tests.support import small_state


@pytest.fixture(scope="module")
def three_steps(tmp_path_factory):
  """Workdir with the steps 1, which is the best, 3 and 4."""
  folder = tmp_path_factory.mktemp("three_steps")
  small_state.write(folder, [1.0, 4.0, 3.0, None])
  return folder


@pytest.fixture
def workdir(three_steps, tmp_path):
  """A copy of it, to be spoiled."""
  return shutil.copytree(three_steps, tmp_path / "copy")


def _listing(folder):
  return {
    path: (path.read_bytes(), path.stat().st_mtime_ns)
    for path in folder.rglob("*")
    if path.is_file()
  }


def _main(task, workdir):
  return __main__.main([task, str(workdir)])


def test_the_list_shows_each_step_and_which_is_the_best(workdir, capsys):
  (workdir / "digests" / "3").unlink()
  assert _main("list", workdir) == 0
  first, header, *rows = capsys.readouterr().out.splitlines()
  assert first == f"3 checkpoint(s) in {workdir}/checkpoints"
  assert header.split() == [
    "step", "epoch", "validation", "loss", "size", "digests"
  ]  # fmt: skip
  rows = [re.split(r"\s{2,}", row.strip()) for row in rows]
  assert [row[:3] for row in rows] == [
    ["1", "0", "1.0000"],
    ["3", "1", "3.0000"],
    ["4", "2", "-"],
  ]
  assert [row[4:] for row in rows] == [
    ["best", "on file"],
    ["missing"],
    ["latest", "on file"],
  ]


def test_the_list_shows_what_was_moved_aside(workdir, capsys):
  (workdir / "checkpoints" / "4" / "meta" / "metadata").write_text("{")
  checkpoints = manager.Checkpoints(workdir)
  checkpoints.restore_newest(small_state.make())
  checkpoints.close()
  capsys.readouterr()
  _main("list", workdir)
  assert (
    "moved aside: bad/4 (meta/metadata is not what was written"
    in capsys.readouterr().out
  )


def test_good_steps_verify_and_nothing_is_touched(workdir, capsys):
  """Nor the unfinished files of a running trainer."""
  unfinished = workdir / "checkpoints" / "5.orbax-checkpoint-tmp" / "meta"
  unfinished.mkdir(parents=True)
  (unfinished / "metadata").touch()
  (workdir / "digests" / "5").touch()
  before = _listing(workdir)
  assert _main("verify", workdir) == 0 and _main("list", workdir) == 0
  assert _listing(workdir) == before
  assert "0 damaged of 3 checkpoint(s)" in capsys.readouterr().out


def test_a_damaged_step_is_named_and_the_exit_code_is_1(workdir, capsys):
  path = next((workdir / "checkpoints" / "3" / "rest").rglob("d/*"))
  path.write_bytes(path.read_bytes()[:-1])
  (workdir / "digests" / "4").unlink()
  assert _main("verify", workdir) == 1
  assert capsys.readouterr().out.splitlines() == [
    "step 1: good",
    f"step 3: DAMAGED: {path.relative_to(workdir / 'checkpoints' / '3')} is "
    "not what was written, by its sha256",
    "step 4: has no digests, so it cannot be verified",
    "1 damaged of 3 checkpoint(s)",
  ]


def test_a_step_that_is_deleted_meanwhile_is_not_damaged(workdir, monkeypatch):
  files = checkpoint_files.CheckpointFiles
  monkeypatch.setattr(files, "steps", lambda self: [1, 2])
  assert _main("verify", workdir) == 0


@pytest.mark.parametrize("task", ["list", "verify"])
def test_a_folder_that_is_no_run_is_refused(tmp_path, task):
  with pytest.raises(errors.InputError, match="not the workdir of a run"):
    _main(task, tmp_path)


def test_help_shows_examples(capsys):
  with pytest.raises(SystemExit) as end:
    __main__.main(["--help"])
  assert end.value.code == 0
  assert "python -m pcl_jax.checkpoint verify runs/hybrid" in (
    capsys.readouterr().out
  )


def test_the_index_names_the_latest_and_the_best(workdir):
  index = json.loads((workdir / "checkpoints" / "index.json").read_text())
  assert index == {
    "latest": {"step": 4, "folder": "4", "validation_loss": None},
    "best": {"step": 1, "folder": "1", "validation_loss": 1.0},
  }
