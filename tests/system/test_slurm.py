"""Tests of training by Slurm: of the script, and of a whole run."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import ml_collections
import pytest

from tests.support import launching
from tests.support import slurm_cluster
from tests.support.tiny import tiny_run

SCRIPT = launching.ROOT / "examples" / "slurm" / "train.sh"
EPOCHS = 12
STEPS = 7  # Of an epoch.


@pytest.mark.parametrize(
  "code, goes_on", [(0, False), (1, False), (2, False), (75, True), (143, True)]
)
def test_the_script_requeues_what_a_signal_has_stopped(code, goes_on, tmp_path):
  for name, text in (
    ("srun", f'echo "$@" > {tmp_path}/step; exit {code}'),
    ("scontrol", f'echo "$@" > {tmp_path}/asked'),
  ):
    (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
    (tmp_path / name).chmod(0o755)
  path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
  environment = {"PATH": path, "SLURM_JOB_ID": "7", "PYTHON": "python"}
  done = subprocess.run(
    ["bash", SCRIPT, "--config=a b", "--workdir=w"],
    env=os.environ | environment,
    check=False,
  )
  assert done.returncode == code
  assert (tmp_path / "step").read_text() == (
    "python launch.py --stopped_code=75 --config=a b --workdir=w\n"
  )
  asked = tmp_path / "asked"
  assert (asked.read_text() if asked.exists() else "") == (
    "requeue 7\n" if goes_on else ""
  )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
  """Two nodes on this machine; skips the test where Slurm is absent."""
  if missing := slurm_cluster.missing():
    pytest.skip(
      f"needs {', '.join(missing)}: apt-get install slurmctld slurmd "
      "slurm-client munge"
    )
  with slurm_cluster.running(tmp_path_factory.mktemp("slurm")) as cluster:
    yield cluster


def _submit(
  cluster: slurm_cluster.SlurmCluster,
  data: pathlib.Path,
  workdir: pathlib.Path,
) -> str:
  """Submits a run of two tasks, one on each node; returns the job's number."""
  return cluster.run(
    "sbatch",
    "--parsable",
    "--nodes=2",
    "--ntasks-per-node=1",
    f"--output={workdir}.log",
    os.fspath(SCRIPT),
    "--config=configs/ss_sc_cnn.py:smoke",
    f"--config.epochs={EPOCHS}",
    "--config.log_every_steps=1",
    f"--config.data.dir={data}",
    f"--workdir={workdir}",
    cwd=launching.ROOT,
    env={
      "PYTHON": sys.executable,
      "JAX_PLATFORMS": "cpu",
      "JAX_NUM_CPU_DEVICES": "1",
    },
  )


def _await_rows(workdir: pathlib.Path, count: int) -> None:
  metrics = workdir / "metrics.jsonl"

  def are_there():
    return metrics.exists() and len(metrics.read_text().splitlines()) >= count

  slurm_cluster.until(are_there, f"{count} rows of {metrics}")


@pytest.mark.long
def test_a_run_that_slurm_stops_again_and_again_ends_bitwise_as_one_it_leaves(
  cluster, smoke_sample, tmp_path
):
  """By a signal to its tasks, a job of higher priority and a requeue."""
  job = _submit(cluster, smoke_sample, tmp_path / "left")
  cluster.await_state(job, "COMPLETED")

  workdir = tmp_path / "stopped"
  job = _submit(cluster, smoke_sample, workdir)
  _await_rows(workdir, 3)
  cluster.run("scancel", f"--signal={signal.SIGTERM.name[3:]}", job)
  cluster.start_again(job)
  _await_rows(workdir, 2 * STEPS)
  first = cluster.run(
    "sbatch",
    "--parsable",
    f"--partition={slurm_cluster.HIGH}",
    "--nodes=2",
    f"--output={tmp_path / 'first.log'}",
    "--wrap=true",
  )
  cluster.await_state(first, "COMPLETED")
  cluster.start_again(job)
  _await_rows(workdir, 4 * STEPS)
  cluster.run("scontrol", "requeue", job)
  cluster.start_again(job)
  facts = cluster.await_state(job, "COMPLETED")

  log = workdir.with_suffix(".log").read_text()
  assert facts["Restarts"] == "3", log
  assert log.count("stopped by SIGTERM after step") == 3, log
  assert "2 device(s)" in log and "DUE TO JOB REQUEUE" in log
  assert f"done: {EPOCHS * STEPS} steps" in log
  config = ml_collections.ConfigDict(
    json.loads((workdir / "config.json").read_text())
  )
  tiny_run.assert_same_end(workdir, tmp_path / "left", config, EPOCHS * STEPS)
