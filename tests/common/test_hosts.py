"""Tests of hosts: processes that train as one, on the loopback."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.common import hosts
from pcl_jax.common import locks
from pcl_jax.training import loop
from tests.support import launching
from tests.support.tiny import tiny_run

LIMIT_S = 300  # A hang is a failure.


def _free_port() -> int:
  with socket.socket() as one:
    one.bind(("127.0.0.1", 0))
    return one.getsockname()[1]


def _run_all(commands, devices, disturb=lambda processes: None):
  """Runs processes; returns their exit codes and what they print.

  Args:
    commands: what follows `python` in each.
    devices: of each process.
    disturb: is given all while they run.
  """
  environment = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": str(devices),
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    "PYTHONPATH": os.fspath(launching.ROOT),
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
    disturb(processes)
    printed = [one.communicate(timeout=LIMIT_S)[0] for one in processes]
  finally:
    for one in processes:
      one.kill()
  return [one.returncode for one in processes], printed


def _train(
  config,
  workdir,
  devices,
  changes=((), ()),
  launcher=lambda number: ["-c", launching.PROGRAM],
  **how,
):
  """Trains with two processes, or one, each with flags of its own."""
  path = workdir.parent / "config.py"
  path.write_text(
    "import json, ml_collections\n"
    "def get_config():\n"
    f"  return ml_collections.ConfigDict(json.loads({config.to_json()!r}))\n"
  )
  together = []
  if len(changes) > 1:
    together.append(f"--coordinator=127.0.0.1:{_free_port()}")
    together.append(f"--num_processes={len(changes)}")
    together.append("--process_id={}")
  commands = [
    [
      *launcher(number),
      f"--config={path}",
      f"--workdir={workdir}",
      *(one.format(number) for one in together),
      *changes[number],
    ]
    for number in range(len(changes))
  ]
  return _run_all(commands, devices, **how)


@pytest.mark.long  # Each process compiles.
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_two_processes_train_as_one_with_as_many_devices(
  data_dir, devices, tmp_path, quickly
):
  config = tiny_run.quick_config(data_dir, epochs=1)
  codes, printed = _train(config, tmp_path / "two", devices)
  assert codes == [0, 0], printed
  loop.train_and_evaluate(
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


@pytest.mark.long
def test_two_processes_begin_with_the_weights_that_one_begins_with(
  data_dir, unbroken, tmp_path
):
  config = tiny_run.quick_config(
    data_dir, epochs=1, init_from=str(unbroken), trackers=()
  )
  codes, printed = _train(config, tmp_path / "two", 1)
  assert codes == [0, 0], printed
  assert "begins with weights" in printed[0]
  assert "begins with weights" not in printed[1]
  loop.train_and_evaluate(config, tmp_path / "one", devices=jax.devices()[:2])
  one, two = (tiny_run.rows_of(tmp_path / name) for name in ("one", "two"))
  np.testing.assert_allclose(
    [row["total"] for row in two], [row["total"] for row in one], rtol=1e-5
  )


def _at_row(workdir, number, act):
  """Returns what acts on the processes once so many rows are written."""

  def disturb(processes):
    path = workdir / "metrics.jsonl"
    while not path.exists() or path.read_text().count("\n") < number:
      assert all(one.poll() is None for one in processes)
      time.sleep(0.01)  # Nothing else says so from outside.
    act(processes)

  return disturb


def _assert_goes_on(config, workdir, unbroken):
  codes, printed = _train(config, workdir, 1)
  assert codes == [0, 0], printed
  assert "going on from step" in printed[0]
  assert tiny_run.rows_of(workdir) == tiny_run.rows_of(unbroken)


@pytest.fixture(scope="module")
def long_config(data_dir):
  return tiny_run.quick_config(data_dir, save_every_steps=1)


@pytest.fixture(scope="module")
def long_run(long_config, tmp_path_factory):
  """Workdir of two processes that nothing disturbs."""
  workdir = tmp_path_factory.mktemp("long_run") / "run"
  codes, printed = _train(long_config, workdir, 1)
  assert codes == [0, 0], printed
  return workdir


@pytest.mark.long
@pytest.mark.parametrize("told", [[0], [1], [0, 1]])
def test_what_one_process_is_told_all_end_after_and_save(
  told, long_config, long_run, tmp_path
):
  workdir = tmp_path / "run"

  def tell(processes):
    for number in told:
      processes[number].send_signal(signal.SIGTERM)

  codes, printed = _train(
    long_config, workdir, 1, disturb=_at_row(workdir, 3, tell)
  )
  assert codes == [0, 0], printed
  found = re.search(r"stopped by (.*) after step (\d+); step (\d+)", printed[0])
  who = "SIGTERM" if 0 in told else "a signal to another process"
  assert found[1] == who and found[2] == found[3]
  assert int(found[2]) < tiny_run.LAST
  steps = [p.name for p in (workdir / "checkpoints").iterdir()]
  assert found[2] in steps
  _assert_goes_on(long_config, workdir, long_run)


@pytest.mark.long
@pytest.mark.parametrize("killed", [0, 1])
def test_a_run_that_loses_a_process_ends_and_is_resumed(
  killed, long_config, long_run, tmp_path
):
  workdir = tmp_path / "run"
  codes, printed = _train(
    long_config,
    workdir,
    1,
    disturb=_at_row(workdir, 3, lambda them: them[killed].kill()),
  )
  assert codes[killed] == -signal.SIGKILL, printed
  assert codes[1 - killed] not in (0, -signal.SIGKILL), printed
  _assert_goes_on(long_config, workdir, long_run)


# Writes down the digests of the rows that a process trains on, step by step.
_NOTING = """
import hashlib, json, sys
import numpy as np
from pcl_jax.training import loop
notes, load = open(sys.argv.pop(1), "w"), loop._load_epoch
def noting(*arguments):
  for batch in load(*arguments):
    rows = {}
    for shard in batch["audio"].addressable_shards:
      first = shard.index[0].start or 0
      for i, row in enumerate(np.asarray(shard.data), first):
        rows[i] = hashlib.sha256(row.tobytes()).hexdigest()
    print(json.dumps(rows), file=notes, flush=True)
    yield batch
loop._load_epoch = noting
"""


def _train_noting(config, workdir, processes, **how):
  """Trains; returns what is printed, and the rows of each step's batch."""
  notes = [workdir.with_name(f"{workdir.name}.{i}") for i in range(processes)]
  codes, printed = _train(
    config,
    workdir,
    1,
    changes=((),) * processes,
    launcher=lambda i: ["-c", _NOTING + launching.PROGRAM, notes[i]],
    **how,
  )
  assert codes == [0] * processes, printed
  shares = [path.read_text().splitlines() for path in notes]
  batches = [
    {int(i): row for part in parts for i, row in json.loads(part).items()}
    for parts in zip(*shares, strict=True)
  ]
  return printed[0], batches


@pytest.mark.long
@pytest.mark.parametrize("before, after", [(2, 1), (1, 2)])
def test_a_run_moves_between_one_process_and_two(
  before, after, long_config, tmp_path
):
  """In the middle of an epoch; to the same batches and losses."""
  moved, stayed = tmp_path / "moved", tmp_path / "stayed"
  tell = _at_row(moved, 6, lambda them: them[0].send_signal(signal.SIGTERM))
  _, first = _train_noting(long_config, moved, before, disturb=tell)
  assert 5 <= len(first) < 12
  said, rest = _train_noting(long_config, moved, after)
  assert f"going on from step {len(first)}" in said
  _, batches = _train_noting(long_config, stayed, before)
  assert len(batches) == 12 and {len(one) for one in batches} == {16}
  assert first + rest == batches
  rows, expected = tiny_run.rows_of(moved), tiny_run.rows_of(stayed)
  assert [row["step"] for row in rows] == [row["step"] for row in expected]
  np.testing.assert_allclose(
    [row["total"] for row in rows],
    [row["total"] for row in expected],
    rtol=0,
    atol=1e-5,
  )


@pytest.mark.long
def test_a_second_trainer_of_two_processes_is_refused_in_both(config, tmp_path):
  with locks.hold(tmp_path / "run", "a trainer"):
    codes, printed = _train(config, tmp_path / "run", 1)
  assert codes == [2, 2], printed
  for text in printed:
    assert f"a trainer (process {os.getpid()} on" in text


def test_processes_that_differ_are_refused_with_what_differs(config, tmp_path):
  codes, printed = _train(
    config, tmp_path / "run", 1, ((), ("--config.opt_params.lr=0.5",))
  )
  assert codes == [2, 2], printed
  for text in printed:
    assert "opt_params.lr is 0.0001 in process 0 and 0.5 in process 1" in text
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "failing", [0, pytest.param(1, marks=pytest.mark.long)]
)
def test_a_process_that_fails_ends_the_other_and_prints_its_traceback(failing):
  program = """
import sys
from pcl_jax.common import hosts
hosts._HEARTBEAT_S = 3  # Not 20, so that the test is short.
def main():
  hosts.connect(sys.argv[1], 2, int(sys.argv[2]))
  if sys.argv[2] == sys.argv[3]:
    raise ValueError("a made-up fault")
  hosts.check_same({})
hosts.run_command(main)
"""
  address = f"127.0.0.1:{_free_port()}"
  codes, printed = _run_all(
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
    (
      {"TPU_WORKER_HOSTNAMES": "localhost", "MEGASCALE_NUM_SLICES": "2"},
      True,
    ),
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
