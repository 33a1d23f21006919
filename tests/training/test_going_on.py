"""What stops a run on the way, and that it goes on as if nothing had been."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.common import locks
from pcl_jax.data import dataset
from pcl_jax.training import config_changes
from pcl_jax.training import loop
from pcl_jax.training import preemption
from pcl_jax.training import profiling
from pcl_jax.training import setup
from pcl_jax.training import train_log
from pcl_jax.training import train_step
from tests.support import tiny_run

pytestmark = pytest.mark.usefixtures("quick_compilation", "quickly")

STEPS, EPOCHS = 4, 2
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config(data_dir, quickly):
  return tiny_run.quick_config(data_dir)


# Signals.


@pytest.mark.parametrize("number", preemption.SIGNALS)
@pytest.mark.parametrize("step", [2, 3, 4])  # 3 is saved, 4 ends an epoch.
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
  said = capsys.readouterr().out
  assert f"stopped by {number.name} after step {step}; step {step}" in said
  assert "the same command line goes on" in said
  # As if it had never listened.
  assert before == {one: signal.getsignal(one) for one in before}
  assert not [one for one in threading.enumerate() if "_watch" in one.name]
  tiny_run.train_on_one(config, tmp_path)
  tiny_run.assert_same_end(tmp_path, unbroken, config, STEPS * EPOCHS)


@pytest.mark.parametrize("number", preemption.SIGNALS)
def test_a_second_signal_ends_the_process_at_once_whatever_it_does(number):
  program = f"""
import ctypes, os, threading
from pcl_jax import interruption
with interruption.Interruption() as stop:
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


def test_what_one_process_was_told_all_hear_with_the_losses_of_its_step(
  config, monkeypatch
):
  run = setup.build(config, jax.devices()[:1])
  plan = loop.plan_epoch(run, 0)
  with preemption.Interruption() as stop:
    stop.prepare(run.sharding, several=True)
    state, heard = run.state, []
    for step, batch in enumerate(loop.load(run, plan)):
      if step == 2:
        os.kill(os.getpid(), signal.SIGTERM)
      state, terms = run.train_step(state, stop.mark(batch), run.key)
      flags = train_log.fetch(train_step.take_flags(terms))
      heard.append(flags[train_step.STOP])
      stop.hear(flags)
      assert stop.is_due == (step >= 2)
  assert heard == [0, 0, 1, 1]


# One trainer a workdir.


def test_a_second_trainer_is_refused_and_the_first_is_unharmed(
  unbroken, config, tmp_path, monkeypatch
):
  said = []

  def second():
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(errors.InputError) as caught:
      tiny_run.train_on_one(config, tmp_path)
    said.append(str(caught.value))
    assert sorted(tmp_path.rglob("*")) == before

  with monkeypatch.context() as patch:
    act = iter([second])
    tiny_run.wrap_step(
      patch, tiny_run.at_step(3, lambda: next(act, lambda: None)())
    )
    tiny_run.train_on_one(config, tmp_path)
  for word in ("a trainer", f"process {os.getpid()} on ", str(tmp_path)):
    assert word in said[0]
  assert not (tmp_path / locks.FILES[0]).exists()
  tiny_run.assert_same_end(tmp_path, unbroken, config, STEPS * EPOCHS)


# Another config, another data set.


def test_an_allowed_change_is_gone_on_with_and_config_json_tells_it(
  config, data_dir, tmp_path, capsys
):
  tiny_run.train_on_one(tiny_run.quick_config(data_dir, epochs=1), tmp_path)
  other = tiny_run.quick_config(data_dir, opt_params__lr=0.25)
  with pytest.raises(errors.InputError, match="lr was 0.0001 and is 0.25 now"):
    tiny_run.train_on_one(other, tmp_path)
  found = json.loads((tmp_path / "config.json").read_text())
  assert found["opt_params"]["lr"] == 0.0001
  loop.train_and_evaluate(
    other, tmp_path, jax.devices()[:1], allow_change=["opt_params.lr"]
  )
  assert (
    "changed since then: opt_params.lr was 0.0001" in capsys.readouterr().out
  )
  found = json.loads((tmp_path / "config.json").read_text())
  assert found == json.loads(other.to_json())
  tiny_run.train_on_one(other, tmp_path)  # What is on file has it now.


def test_an_epoch_with_other_batches_is_begun_anew(
  data_dir, config, tmp_path, monkeypatch, capsys
):
  with monkeypatch.context() as patch:
    told = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    tiny_run.wrap_step(patch, tiny_run.at_step(2, told))
    tiny_run.train_on_one(config, tmp_path)
  loop.train_and_evaluate(
    tiny_run.quick_config(data_dir, seed=1, epochs=1),
    tmp_path,
    jax.devices()[:1],
    allow_change=["seed"],
  )
  assert "epoch 0 has other batches now and is begun anew" in (
    capsys.readouterr().out
  )
  rows = tiny_run.rows_of(tmp_path)
  assert [r["step"] for r in rows if r["kind"] == "train"] == [1, 2, 3, 4, 5, 6]


def test_another_data_set_is_refused_unless_it_is_allowed(config, tmp_path):
  data = tiny_run.make_data_set(tmp_path / "data")
  first = tiny_run.quick_config(data, epochs=1)
  tiny_run.train_on_one(first, tmp_path / "w")
  made = dataset.DataSet(data).catalogue
  lists = [made.playlists[i].tolist() for i in range(len(made.playlists))]
  lists[0] = lists[0][:-1]
  dataclasses.replace(
    made, playlists=type(made.playlists).from_lists(lists)
  ).save(data)
  tiny_run.forget_built()
  more = tiny_run.quick_config(data)
  with pytest.raises(errors.InputError) as caught:
    tiny_run.train_on_one(more, tmp_path / "w")
  assert "of another data set or split: data.fingerprint was" in (
    str(caught.value)
  )
  assert "--allow_change=data.fingerprint" in str(caught.value)
  progress = loop.train_and_evaluate(
    more,
    tmp_path / "w",
    jax.devices()[:1],
    allow_change=[config_changes.DATA_SET],
  )
  assert progress["epoch"] == EPOCHS


# Other numbers of devices.


def test_a_run_moves_from_one_device_to_four_and_eight(
  config, unbroken, tmp_path, monkeypatch
):
  batches = {}

  def noting(step):
    def noted(state, batch, key):
      with jax.transfer_guard("allow"):
        batches[int(state["step"])] = np.asarray(batch["audio"])
      return step(state, batch, key)

    return noted

  moves = ((1, 2), (4, 5), (8, 8))
  with monkeypatch.context() as patch:
    tiny_run.wrap_step(patch, noting)
    for devices, until in moves:
      with patch.context() as inner:
        told = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
        before = max(batches, default=-1) + 1
        tiny_run.wrap_step(inner, tiny_run.at_step(until - before, told))
        progress = loop.train_and_evaluate(
          config, tmp_path, devices=jax.devices()[:devices]
        )
      assert progress["step"] == until
  run = setup.build(config, jax.devices()[:1])
  same = [
    np.asarray(batch["audio"])
    for epoch in range(EPOCHS)
    for batch in loop.load(run, loop.plan_epoch(run, epoch))
  ]
  assert sorted(batches) == list(range(len(same)))
  for step, patches in batches.items():
    np.testing.assert_array_equal(patches, same[step])
  rows, expected = tiny_run.rows_of(tmp_path), tiny_run.rows_of(unbroken)
  assert [row["step"] for row in rows] == [row["step"] for row in expected]
  np.testing.assert_allclose(
    [row["total"] for row in rows],
    [row["total"] for row in expected],
    rtol=1e-5,
  )


# Curves and compiled programs that fail.


def test_an_unwritable_cache_of_compiled_programs_is_done_without(
  tmp_path, capsys, monkeypatch
):
  (tmp_path / "file").write_text("mine")
  old = jax.config.jax_compilation_cache_dir
  jax.config.update("jax_compilation_cache_dir", None)
  try:
    profiling.keep_compiled(tmp_path / "file" / "cache")
    assert jax.config.jax_compilation_cache_dir is None
  finally:
    jax.config.update("jax_compilation_cache_dir", old)
  assert "warning: compiled programs cannot be kept" in capsys.readouterr().err
