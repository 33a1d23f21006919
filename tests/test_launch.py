"""The command line: what it refuses, in which words, with which exit code."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests import tiny_run

ROOT = pathlib.Path(__file__).parents[1]


def _launch(*arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, "launch.py", *arguments],
    cwd=ROOT,
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (["--config=configs/cm_resnet.py:x", "--workdir=w"], ["'x'", "a_g_p"]),
    (["--config=configs/nothing.py", "--workdir=w"], ["configs/nothing.py"]),
    (
      [
        "--config=configs/ss_resnet.py",
        "--workdir=w",
        "--config.opt_params.lrr=1",
      ],
      ["opt_params.lrr", "Did you mean lr?"],
    ),
    (
      [
        "--config=configs/ss_resnet.py",
        "--workdir=w",
        "--config.opt_params.lr=high",
      ],
      ["config.opt_params.lr", "high"],
    ),
    (["--config=configs/ss_resnet.py"], ["--workdir"]),
    (
      ["--config=configs/ss_resnet.py", "--workdir=w", "--wordir=w"],
      ["wordir", "workdir"],
    ),
    (["--config=configs/ss_resnet.py", "--workdir=w", "more"], ["'more'"]),
  ],
)
def test_a_bad_command_line_is_one_message_and_exit_code_2(arguments, words):
  done = _launch(*arguments)
  assert done.returncode == 2
  assert "Traceback" not in done.stderr
  assert done.stderr.startswith("error: ")
  for word in words:
    assert word in done.stderr


def test_help_shows_commands_and_flags():
  done = _launch("--help")
  assert done.returncode == 0
  assert "--workdir" in done.stdout
  assert "python launch.py --config=configs/sample.py" in done.stdout


def _refused(data: pathlib.Path, workdir: pathlib.Path, *more: str) -> str:
  """Launches strategy SS on a data set; returns what was said in refusal."""
  done = _launch(
    "--config=configs/ss_sc_cnn.py:smoke",
    f"--config.data.dir={data}",
    "--config.data.sample_songs=0",
    f"--workdir={workdir}",
    *more,
  )
  assert done.returncode == 2, done.stdout + done.stderr
  assert "Traceback" not in done.stderr
  return done.stderr


def test_what_is_wrong_with_the_data_set_is_said_with_its_remedy(tmp_path):
  workdir = tmp_path / "run"
  absent = _refused(tmp_path / "absent", workdir)
  assert "does not exist" in absent and "preprocessing.own_library" in absent
  data = tiny_run.make_data_set(tmp_path / "data")
  (data / "catalogue.npz").rename(tmp_path / "catalogue.npz")
  assert "preprocessing.data_split" in _refused(data, workdir)
  shutil.move(tmp_path / "catalogue.npz", data / "catalogue.npz")
  large = _refused(data, workdir, "--config.data.batch_size=500")
  assert "config.data.batch_size is 500" in large
  mixup = "audio_contrast_params.mixup_alpha"
  assert mixup in _refused(data, workdir, f"--config.{mixup}=0.0")
  store = data / "songs.lmdb" / "data.mdb"
  os.truncate(store, store.stat().st_size // 2)
  assert "is truncated" in _refused(data, workdir)
  assert not workdir.exists()


def test_a_workdir_that_is_a_file_is_refused_and_left_alone(tmp_path):
  data = tiny_run.make_data_set(tmp_path / "data")
  (tmp_path / "run").write_text("mine")
  said = _refused(data, tmp_path / "run", "--config.data.batch_size=4")
  assert "cannot be written" in said
  assert (tmp_path / "run").read_text() == "mine"
