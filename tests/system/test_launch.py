"""The command line: what it refuses, in which words, with which exit code."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.support import launching
from tests.support import quick_backbone

LONG = pytest.mark.long


def _run(
  *words: str, stdin: str | None = None, **environment: str
) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, *words],
    input=stdin,
    cwd=launching.ROOT,
    env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


def _launch(*words: str, **environment: str) -> subprocess.CompletedProcess:
  return _run("launch.py", *words, **environment)


BAD = [
  (["--config=~/configs/cm_resnet.py:x", "--workdir=w"], ["'x'", "a_g_p"]),
  (["--config=configs/nothing.py", "--workdir=w"], ["configs/nothing.py"]),
  (
    [
      "--config=configs/ss_resnet.py",
      "--workdir=w",
      "--config.opt_params.lrr=1",
    ],
    ["--config.KEY", "lrr", "Did you mean lr?"],
  ),
  (
    [
      "--config=configs/ss_resnet.py",
      "--workdir=w",
      "--config.opt_params.lr=high",
    ],
    ["config.opt_params.lr", "high"],
  ),
  (
    ["--config", "configs/ss_resnet.py", "--workdir", "w"]
    + ["--config.opt_params.lrr", "1"],
    ["--config.KEY", "lrr", "Did you mean lr?"],
  ),
  (
    ["--config=configs/ss_resnet.py", "--workdir=w", "--config.seed.x=1"],
    ["--config.KEY", "seed.x"],
  ),
  (["--config=", "--workdir=w"], ["--config: the config file", "empty"]),
  (["--config=configs", "--workdir=w"], ["'configs'", "directory"]),
  (["--config=configs/published_yaml.py", "--workdir=w"], [":my.yaml"]),
  (
    ["--config=configs/published_yaml.py:no.yaml", "--workdir=w"],
    ["no.yaml cannot be read"],
  ),
  (["--workdir=w"], ["--config"]),
  (["--config=configs/ss_resnet.py"], ["--workdir"]),
  (
    ["--config=configs/ss_resnet.py", "--config.wandb_params.run_name=a/b"],
    ["run_name is 'a/b'", "--workdir"],
  ),
  (
    ["--config=configs/ss_resnet.py", "--workdir=w", "--wordir=w"],
    ["wordir", "workdir"],
  ),
  (["--config=configs/ss_resnet.py", "--workdir=w", "more"], ["'more'"]),
]
# Answers each command line in a process of its own, all begun from one that has
# imported what they need.
_ANSWER = """
import json, os, sys, tempfile
from absl import app
import launch
answers = []
for arguments in json.load(sys.stdin):
  with tempfile.TemporaryFile("w+") as said:
    child = os.fork()
    if not child:
      os.dup2(said.fileno(), 2)
      sys.argv = ["launch.py", *arguments]
      app.run(launch.main, flags_parser=launch.parse_flags)
    _, status = os.waitpid(child, 0)
    said.seek(0)
    answers.append((os.waitstatus_to_exitcode(status), said.read()))
json.dump(answers, sys.stdout)
"""


@pytest.fixture(scope="module")
def answers() -> dict[tuple[str, ...], tuple[int, str]]:
  """Exit code and stderr of each bad command line."""
  lines = [arguments for arguments, _ in BAD]
  done = _run("-c", _ANSWER, stdin=json.dumps(lines), HOME=str(launching.ROOT))
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout)
  return dict(zip(map(tuple, lines), map(tuple, found), strict=True))


@pytest.mark.parametrize(("arguments", "words"), BAD)
def test_a_bad_command_line_is_one_message_and_exit_code_2(
  answers, arguments, words
):
  code, said = answers[tuple(arguments)]
  assert code == 2
  assert "Traceback" not in said
  assert said.startswith("error: ") and said.count("\n") == 1
  for word in words:
    assert word in said


# Launches with a loop that ends as one by a signal, and as one that is done.
_END = """
import os, sys
from absl import app
import launch
from pcl_jax.training import loop
codes = []
for stopped_by in ("SIGTERM", None):
  loop.train_and_evaluate = lambda *_, **__: {"stopped_by": stopped_by}
  child = os.fork()
  if not child:
    app.run(launch.main, flags_parser=launch.parse_flags)
  codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(codes)
"""


@LONG
def test_an_exit_code_tells_a_stopped_run_from_one_that_is_done(
  data_dir, tmp_path
):
  done = _run(
    "-c",
    _END,
    "--config=configs/ss_sc_cnn.py:smoke",
    f"--config.data.dir={data_dir}",
    "--config.data.sample_songs=0",
    f"--workdir={tmp_path / 'run'}",
    "--stopped_code=75",
  )
  assert done.stdout == "[75, 0]\n", done.stderr


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
  # The other things that can be wrong are in test_run, without a process each.
  absent = _refused(tmp_path / "absent", tmp_path / "run")
  assert "does not exist" in absent and "preprocessing.own_library" in absent
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("again", [False, pytest.param(True, marks=LONG)])
def test_a_run_is_trained_and_the_same_command_finds_it_done(
  data_dir, tmp_path, again
):
  (tmp_path / "data").symlink_to(data_dir)
  arguments = (
    "-c",
    launching.PROGRAM,
    "--config=configs/ss_sc_cnn.py:smoke",
    "--config.data.dir=~/data",
    "--config.epochs=1",
    f"--config.model_params.audio.backbone_type={quick_backbone.NAME}",
    "--workdir=~/run",
  )
  quick = {"HOME": str(tmp_path), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
  # 64-bit numbers on the way would be saved, and then fit no longer.
  done = _run(*arguments, **quick, JAX_ENABLE_X64="1")
  assert done.returncode == 0, done.stderr
  assert "epoch 0 validation: audio+audio_self" in done.stdout
  assert "done: 4 steps; best checkpoint: step 4" in done.stdout
  # Neither progress bars, where nobody watches, nor the libraries' talk.
  assert done.stderr == ""
  assert (tmp_path / "run" / "config.json").exists()
  if again:  # In this process test_loop_resuming sees it.
    done = _run(*arguments, **quick)
    assert done.returncode == 0, done.stderr
    assert "going on from step 4" in done.stdout


@pytest.mark.long
def test_a_run_with_a_name_and_no_workdir_is_in_a_folder_of_this_name(
  data_dir, tmp_path
):
  done = subprocess.run(
    [sys.executable, "-c", launching.PROGRAM]
    + [f"--config={launching.ROOT / 'configs' / 'ss_sc_cnn.py'}:smoke"]
    + [f"--config.data.dir={data_dir}", "--config.epochs=1"]
    + [f"--config.model_params.audio.backbone_type={quick_backbone.NAME}"]
    + ["--config.wandb_params.run_name=mine"],
    cwd=tmp_path,
    env=os.environ
    | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(launching.ROOT)},
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert (tmp_path / "runs" / "mine" / "config.json").exists()
