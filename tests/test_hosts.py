"""Tests of pcl_jax.hosts: processes that train as one, on the loopback."""

import os
import pathlib
import re
import socket
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from pcl_jax import errors
from pcl_jax import hosts
from pcl_jax import train
from tests import tiny_run

ROOT = pathlib.Path(__file__).parents[1]
LIMIT_S = 300  # A hang is a failure.


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tiny_run.make_data_set(tmp_path_factory.mktemp("hosts") / "data")


@pytest.fixture(scope="module")
def config(data_dir):
  return tiny_run.small_config(data_dir, model_params__audio__width=1, epochs=1)


def _free_port() -> int:
  with socket.socket() as one:
    one.bind(("127.0.0.1", 0))
    return one.getsockname()[1]


def _run_two(commands, devices):
  """Runs two processes; returns their exit codes and what they print.

  Args:
    commands: what follows `python` in each.
    devices: of each process.
  """
  environment = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": str(devices),
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    "PYTHONPATH": os.fspath(ROOT),
  }
  processes = [
    subprocess.Popen(
      [sys.executable, *command],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for command in commands
  ]
  try:
    printed = [one.communicate(timeout=LIMIT_S)[0] for one in processes]
  finally:
    for one in processes:
      one.kill()
  return [one.returncode for one in processes], printed


def _train(config, workdir, devices, changes=((), ())):
  """Trains with two processes, each with flags of its own."""
  path = workdir.parent / "config.py"
  path.write_text(
    "import json, ml_collections\n"
    "def get_config():\n"
    f"  return ml_collections.ConfigDict(json.loads({config.to_json()!r}))\n"
  )
  port = _free_port()
  commands = [
    [
      ROOT / "launch.py",
      f"--config={path}",
      f"--workdir={workdir}",
      f"--coordinator=127.0.0.1:{port}",
      "--num_processes=2",
      f"--process_id={number}",
      *changes[number],
    ]
    for number in range(2)
  ]
  return _run_two(commands, devices)


@pytest.mark.parametrize(
  "devices", [pytest.param(2, marks=pytest.mark.long), 4]
)
def test_two_processes_train_as_one_with_as_many_devices(
  config, devices, tmp_path, quick_compilation
):
  codes, printed = _train(config, tmp_path / "two", devices)
  assert codes == [0, 0], printed
  train.train_and_evaluate(
    config, tmp_path / "one", devices=jax.devices()[: 2 * devices]
  )
  one, two = (tiny_run.rows_of(tmp_path / name) for name in ("one", "two"))
  assert [row["step"] for row in one] == [row["step"] for row in two]
  np.testing.assert_allclose(
    [row["total"] for row in two], [row["total"] for row in one], rtol=1e-5
  )
  # One of them speaks, and writes.
  assert f"{2 * devices} device(s)" in printed[0]
  assert "device(s)" not in printed[1]


def test_processes_that_differ_are_refused_with_what_differs(config, tmp_path):
  codes, printed = _train(
    config, tmp_path / "run", 1, ((), ("--config.opt_params.lr=0.5",))
  )
  assert codes == [2, 2], printed
  for text in printed:
    assert "opt_params.lr is 0.0001 in process 0 and 0.5 in process 1" in text
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("failing", [0, 1])
def test_a_process_that_fails_ends_the_other_and_prints_its_traceback(failing):
  program = """
import sys
from pcl_jax import hosts
hosts._HEARTBEAT_S = 3  # Not 20, so that the test is short.
def main():
  hosts.connect(sys.argv[1], 2, int(sys.argv[2]))
  if sys.argv[2] == sys.argv[3]:
    raise ValueError("a made-up fault")
  hosts.check_same({})
hosts.run_command(main)
"""
  address = f"127.0.0.1:{_free_port()}"
  codes, printed = _run_two(
    [["-c", program, address, str(i), str(failing)] for i in range(2)], 1
  )
  assert codes[failing] == errors.EXIT_FAILED
  assert codes[1 - failing] != 0
  assert "Traceback" in printed[failing]
  assert "ValueError: a made-up fault" in printed[failing]
  assert f"process {failing} ends with exit code 1" in printed[failing]


@pytest.mark.parametrize(
  "environment, expected",
  [
    ({}, False),
    ({"SLURM_STEP_NUM_TASKS": "4"}, True),
    ({"SLURM_STEP_NUM_TASKS": "1"}, False),
    ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
    ({"JAX_COORDINATOR_ADDRESS": "a:1"}, True),
  ],
)
def test_a_launcher_of_several_processes_is_noticed(environment, expected):
  assert hosts.are_expected(environment) == expected


@pytest.mark.parametrize(
  "arguments, message",
  [
    (("node0", 2, 0), "--coordinator=node0 is not of the form HOST:PORT"),
    (("node0:x", 2, 0), "--coordinator=node0:x is not of the form HOST:PORT"),
    (("node0:1", 2, 2), "--process_id is 2 of --num_processes=2"),
  ],
)
def test_what_cannot_connect_is_refused_at_once(arguments, message):
  with pytest.raises(errors.InputError, match=re.escape(message)):
    hosts.connect(*arguments)


def test_a_run_that_nobody_says_the_processes_of_is_refused(monkeypatch):
  def initialize(*_, **__):
    raise ValueError("Number of processes must be defined.")

  monkeypatch.setattr(jax.distributed, "initialize", initialize)
  with pytest.raises(
    errors.InputError, match="must be defined. Start each process with"
  ):
    hosts.connect("127.0.0.1:1")


def test_a_coordinator_that_does_not_answer_is_named(monkeypatch):
  monkeypatch.setattr(hosts, "_CONNECT_S", 0.0)
  address = f"127.0.0.1:{_free_port()}"
  with pytest.raises(errors.RunError, match=f"does not answer at {address}"):
    hosts.connect(address, 2, 1)


def test_hosts_with_different_numbers_of_devices_are_refused(monkeypatch):
  devices = [types.SimpleNamespace(process_index=i) for i in (0, 0, 1)]
  monkeypatch.setattr(jax, "devices", lambda: devices)
  monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: None)
  with pytest.raises(errors.InputError, match=r"\(0: 2, 1: 1\)"):
    hosts.connect("127.0.0.1:1", 2, 0)


def test_one_process_waits_for_nobody():
  done = []
  hosts.await_first(lambda: done.append(1))
  hosts.check_same({"anything": 1})
  assert done == [1] and hosts.is_first()
