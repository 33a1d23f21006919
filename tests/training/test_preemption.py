"""Tests of signals: a run ends after its step, and goes on bitwise."""

import itertools
import os
import pathlib
import signal
import subprocess
import sys
import threading

import jax
import pytest

from pcl_jax.common import prefetch
from pcl_jax.data import song_store
from pcl_jax.training import preemption
from pcl_jax.training import setup
from tests.support.tiny import tiny_run

pytestmark = pytest.mark.usefixtures("quickly")

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
  "number, step",  # 3 is saved, 4 ends an epoch.
  [
    (signal.SIGTERM, 2),
    (signal.SIGINT, 3),
    pytest.param(signal.SIGTERM, 4, marks=pytest.mark.long),
    pytest.param(signal.SIGINT, 2, marks=pytest.mark.long),
    pytest.param(signal.SIGTERM, 3, marks=pytest.mark.long),
    pytest.param(signal.SIGINT, 4, marks=pytest.mark.long),
  ],
)
def test_a_signal_ends_a_run_after_its_step_which_is_saved(
  number, step, unbroken, config, tmp_path, monkeypatch, capsys
):
  before = {one: signal.getsignal(one) for one in preemption.SIGNALS}
  with monkeypatch.context() as patch:
    tiny_run.wrap_step(
      patch, tiny_run.at_step(step, lambda: os.kill(os.getpid(), number))
    )
    progress = tiny_run.train_on_one(config, tmp_path)
  assert progress["step"] == step == tiny_run.latest_step_of(tmp_path)
  assert progress["stopped_by"] == number.name
  said = capsys.readouterr().out
  assert f"stopped by {number.name} after step {step}; step {step}" in said
  assert "the same command line goes on" in said
  # As if it had never listened.
  assert before == {one: signal.getsignal(one) for one in before}
  assert not [one for one in threading.enumerate() if "_watch" in one.name]
  tiny_run.train_on_one(config, tmp_path)
  tiny_run.assert_same_end(tmp_path, unbroken, config, tiny_run.LAST)


@pytest.mark.parametrize("in_step", [False, True])
def test_a_signal_ends_a_run_whose_reader_hangs_with_its_step_saved(
  in_step, config, tmp_path, monkeypatch
):
  """At batch 3, in step 2 or while that batch is waited for."""
  hangs, let_go, calls = threading.Event(), threading.Event(), itertools.count()
  read_patches = song_store.SongStore.read_patches

  def hang(self, songs, starts, out):
    if next(calls) == 2:
      hangs.set()
      let_go.wait()
    read_patches(self, songs, starts, out)

  def tell(is_time):
    if is_time:
      os.kill(os.getpid(), signal.SIGTERM)

  def has_ended(future, end_s, original=prefetch._has_ended):
    is_third = hangs.is_set()
    ended = original(future, end_s)
    tell(is_third and not ended and not in_step)
    return ended

  monkeypatch.setattr(song_store.SongStore, "read_patches", hang)
  for name, value in (
    ("_LEAVE_S", 0.0), ("_ASK_S", 0.0), ("_has_ended", has_ended)
  ):  # fmt: skip
    monkeypatch.setattr(prefetch, name, value)
  act = tiny_run.at_step(2, lambda: tell(hangs.wait() and in_step))
  tiny_run.wrap_step(monkeypatch, act)
  progress = tiny_run.train_on_one(config, tmp_path)
  let_go.set()
  assert progress["step"] == 2 == tiny_run.latest_step_of(tmp_path)
  assert progress["stopped_by"] == "SIGTERM"


def test_a_run_that_is_done_was_not_stopped(
  config, tmp_path, monkeypatch, capsys
):
  """A signal in the last step comes too late."""
  stop = tiny_run.at_step(
    tiny_run.LAST, lambda: os.kill(os.getpid(), signal.SIGTERM)
  )
  with monkeypatch.context() as patch:
    tiny_run.wrap_step(patch, stop)
    progress = tiny_run.train_on_one(config, tmp_path)
  assert progress["stopped_by"] is None
  assert f"done: {tiny_run.LAST} steps" in capsys.readouterr().out


@pytest.mark.parametrize(
  "number",
  [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)],
)
def test_a_second_signal_ends_the_process_at_once_whatever_it_does(number):
  program = f"""
import ctypes, os, threading
from pcl_jax.training import preemption
with preemption.Interruption() as stop:
  os.kill(os.getpid(), {number})
  assert stop.is_due and stop.reason == {number.name!r}
  threading.Thread(target=os.kill, args=(os.getpid(), {int(number)})).start()
  # In one long call, during which Python runs no handlers in this thread.
  ctypes.CDLL(None).poll(None, 0, 60_000)
  ctypes.CDLL(None).poll(None, 0, 60_000)
print("not ended")
"""
  done = subprocess.run(
    [sys.executable, "-c", program],
    env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.fspath(ROOT)},
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )
  assert done.returncode == 128 + number, done.stderr
  assert "a second signal: ended at once" in done.stderr
  assert "not ended" not in done.stdout


def test_all_processes_hear_of_a_signal_with_the_losses_of_its_step(config):
  run = setup.build(config, jax.devices()[:1])
  with preemption.Interruption() as stop:
    stop.prepare(run.batches.sharding, several=True)
    answers = []
    for step in range(4):
      if step == 2:
        os.kill(os.getpid(), signal.SIGTERM)
      with jax.transfer_guard("disallow"):
        answers.append(stop.ask())
      assert not stop.is_due
  for step, answer in enumerate(answers):
    stop.record(answer)
    assert stop.is_due == (step >= 2)


def test_one_process_asks_nobody(config):
  run = setup.build(config, jax.devices()[:1])
  with preemption.Interruption() as stop:
    stop.prepare(run.batches.sharding, several=False)
    assert stop.ask() is None and not stop.is_due
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.is_due
