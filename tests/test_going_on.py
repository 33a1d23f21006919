"""What stops a run on the way, and that it goes on as if nothing had been."""

import dataclasses
import itertools
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

from pcl_jax import checkpoint
from pcl_jax import config_changes
from pcl_jax import errors
from pcl_jax import folder_lock
from pcl_jax import interruption
from pcl_jax import nonfinite
from pcl_jax import replay
from pcl_jax import run as runs
from pcl_jax import speed
from pcl_jax import train
from pcl_jax import train_log
from pcl_jax import train_step
from pcl_jax.data import dataset
from tests import quick_backbone
from tests import tiny_run

pytestmark = pytest.mark.usefixtures("quick_compilation")

STEPS, EPOCHS = 4, 2
ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def quickly():
  with pytest.MonkeyPatch.context() as patch:
    quick_backbone.register(patch)
    patch.setattr(runs, "build", tiny_run.build_once)
    yield
  tiny_run.forget_built()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tiny_run.make_data_set(tmp_path_factory.mktemp("going_on") / "data")


def _config(data_dir, **keys):
  small = {
    "model_params__audio__backbone_type": quick_backbone.NAME,
    "model_params__audio__width": 1,
    "epochs": EPOCHS,
  }
  return tiny_run.small_config(data_dir, **(small | keys))


@pytest.fixture(scope="module")
def config(data_dir, quickly):
  return _config(data_dir)


@pytest.fixture(scope="module")
def unbroken(config, tmp_path_factory, quick_compilation, quickly):
  """Workdir of a run that nothing interrupted."""
  workdir = tmp_path_factory.mktemp("unbroken")
  tiny_run.train_on_one(config, workdir)
  return workdir


def _state_of(workdir, config, step=STEPS * EPOCHS):
  run = runs.build(config, jax.devices()[:1])
  checkpoints = checkpoint.Checkpoints(workdir, read_only=True)
  state = checkpoints.restore(step, run.state)
  checkpoints.close()
  return jax.device_get(state)


def _steps_of(workdir):
  checkpoints = checkpoint.Checkpoints(workdir, read_only=True)
  latest = checkpoints.latest_step()
  checkpoints.close()
  return latest


def _assert_same(workdir, expected, config):
  assert tiny_run.rows_of(workdir) == tiny_run.rows_of(expected)
  jax.tree.map(
    np.testing.assert_array_equal,
    _state_of(workdir, config),
    _state_of(expected, config),
  )


def _wrap_step(patch, wrap):
  build = runs.build

  def wrapped(*args):
    run = build(*args)
    return dataclasses.replace(run, train_step=wrap(run.train_step))

  patch.setattr(runs, "build", wrapped)


def _at_step(number, act):
  """Acts while a step of the next start is under way."""

  def wrap(step):
    count = itertools.count(1)

    def acting(*arguments):
      if next(count) == number:
        act()
      return step(*arguments)

    return acting

  return wrap


# Signals.


@pytest.mark.parametrize("number", interruption.SIGNALS)
@pytest.mark.parametrize("step", [2, 3, 4])  # 3 is saved, 4 ends an epoch.
def test_a_signal_ends_a_run_after_its_step_which_is_saved(
  number, step, unbroken, config, tmp_path, monkeypatch, capsys
):
  before = {one: signal.getsignal(one) for one in interruption.SIGNALS}
  with monkeypatch.context() as patch:
    _wrap_step(patch, _at_step(step, lambda: os.kill(os.getpid(), number)))
    progress = tiny_run.train_on_one(config, tmp_path)
  assert progress["step"] == step == _steps_of(tmp_path)
  said = capsys.readouterr().out
  assert f"stopped by {number.name} after step {step}; step {step}" in said
  assert "the same command line goes on" in said
  # As if it had never listened.
  assert before == {one: signal.getsignal(one) for one in before}
  assert not [one for one in threading.enumerate() if "_watch" in one.name]
  tiny_run.train_on_one(config, tmp_path)
  _assert_same(tmp_path, unbroken, config)


@pytest.mark.parametrize("number", interruption.SIGNALS)
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
  run = runs.build(config, jax.devices()[:1])
  plan = train.plan_epoch(run, 0)
  with interruption.Interruption() as stop:
    stop.prepare(run.sharding, several=True)
    state, heard = run.state, []
    for step, batch in enumerate(train.load(run, plan)):
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
    _wrap_step(patch, _at_step(3, lambda: next(act, lambda: None)()))
    tiny_run.train_on_one(config, tmp_path)
  for word in ("a trainer", f"process {os.getpid()} on ", str(tmp_path)):
    assert word in said[0]
  assert not (tmp_path / folder_lock.FILE_NAME).exists()
  _assert_same(tmp_path, unbroken, config)


# Another config, another data set.


def test_an_allowed_change_is_gone_on_with_and_config_json_tells_it(
  config, data_dir, tmp_path, capsys
):
  tiny_run.train_on_one(_config(data_dir, epochs=1), tmp_path)
  other = _config(data_dir, opt_params__lr=0.25)
  with pytest.raises(errors.InputError, match="lr was 0.0001 and is 0.25 now"):
    tiny_run.train_on_one(other, tmp_path)
  found = json.loads((tmp_path / "config.json").read_text())
  assert found["opt_params"]["lr"] == 0.0001
  train.train_and_evaluate(
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
    _wrap_step(patch, _at_step(2, told))
    tiny_run.train_on_one(config, tmp_path)
  train.train_and_evaluate(
    _config(data_dir, seed=1, epochs=1),
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
  first = _config(data, epochs=1)
  tiny_run.train_on_one(first, tmp_path / "w")
  made = dataset.DataSet(data).catalogue
  lists = [made.playlists[i].tolist() for i in range(len(made.playlists))]
  lists[0] = lists[0][:-1]
  dataclasses.replace(
    made, playlists=type(made.playlists).from_lists(lists)
  ).save(data)
  tiny_run.forget_built()
  more = _config(data)
  with pytest.raises(errors.InputError) as caught:
    tiny_run.train_on_one(more, tmp_path / "w")
  assert "of another data set or split: data.fingerprint was" in (
    str(caught.value)
  )
  assert "--allow_change=data.fingerprint" in str(caught.value)
  progress = train.train_and_evaluate(
    more,
    tmp_path / "w",
    jax.devices()[:1],
    allow_change=[config_changes.DATA_SET],
  )
  assert progress["epoch"] == EPOCHS


# Numbers going wrong.


def _spoiling(steps):
  """Makes the patches of some steps of the run no numbers."""

  def wrap(train_step):
    def step(state, batch, key):
      with jax.transfer_guard("allow"):
        if int(state["step"]) + 1 in steps:
          batch = batch | {"audio": batch["audio"] * np.float16(np.nan)}
      return train_step(state, batch, key)

    return step

  return wrap


@pytest.fixture(scope="module")
def skipping(config, tmp_path_factory, quick_compilation, quickly):
  """Workdir of a run in which the steps 2, 5 and 6 are not finite."""
  workdir = tmp_path_factory.mktemp("skipping")
  with pytest.MonkeyPatch.context() as patch:
    _wrap_step(patch, _spoiling({2, 5, 6}))
    tiny_run.train_on_one(config, workdir)
  return workdir


def test_a_step_that_is_not_finite_is_skipped_counted_and_written_down(
  skipping, unbroken, config
):
  rows = tiny_run.rows_of(skipping)
  skipped = [row for row in rows if row["kind"] == nonfinite.KIND]
  assert skipped == [
    {
      "kind": "skipped",
      "step": step,
      "epoch": epoch,
      "skipped_steps": total,
      "skipped_in_a_row": in_a_row,
    }
    for step, epoch, total, in_a_row in (
      (2, 0, 1, 1),
      (5, 1, 2, 1),
      (6, 1, 3, 2),
    )
  ]
  totals = {r["step"]: r["total"] for r in rows if r["kind"] == "train"}
  assert [step for step, total in totals.items() if total is None] == [2, 5, 6]
  assert sorted(p.name for p in (skipping / nonfinite.FOLDER).iterdir()) == [
    "2.json", "5.json", "6.json"
  ]  # fmt: skip
  found = json.loads((skipping / nonfinite.FOLDER / "5.json").read_text())
  run = runs.build(config, jax.devices()[:1])
  plan = train.plan_epoch(run, 1)
  expected = run.data.store.song_ids[plan.songs[0]].tolist()
  assert found["songs"] == expected and len(expected) == 16
  assert found["starts"] == plan.starts[0].tolist()
  assert (found["step"], found["epoch"], found["seed"]) == (5, 1, 0)
  # The first step was the same, and so were its weights.
  assert rows[0] == tiny_run.rows_of(unbroken)[0]


@pytest.mark.parametrize("stop_at", [2, 5, 7])
def test_a_run_with_skipped_steps_is_resumed_bitwise(
  stop_at, skipping, config, tmp_path, monkeypatch
):
  with monkeypatch.context() as patch:
    _wrap_step(patch, _spoiling({2, 5, 6}))
    with patch.context() as inner:
      told = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
      _wrap_step(inner, _at_step(stop_at, told))
      tiny_run.train_on_one(config, tmp_path)
    # What was skipped may be why, and is not saved.
    assert _steps_of(tmp_path) == {2: None, 5: 4, 7: 7}[stop_at]
    tiny_run.train_on_one(config, tmp_path)
  _assert_same(tmp_path, skipping, config)


def test_too_many_skipped_steps_in_a_row_end_the_run(
  data_dir, tmp_path, monkeypatch
):
  config = _config(data_dir, train__max_nonfinite_steps=3)
  with monkeypatch.context() as patch:
    _wrap_step(patch, _spoiling({2, 5, 6, 7}))
    with pytest.raises(errors.RunError) as caught:
      tiny_run.train_on_one(config, tmp_path)
  for word in ("step 7 is not finite", "3 in a row", "--replay=", "are kept"):
    assert word in str(caught.value)
  assert _steps_of(tmp_path) == 4


def test_a_replay_finds_what_was_not_finite_first(
  data_dir, skipping, config, tmp_path, monkeypatch, capsys
):
  """The batch is whole again, so a parameter is spoiled in its place."""
  file = skipping / nonfinite.FOLDER / "6.json"
  before = sorted(skipping.rglob("*"))
  lines = replay.replay(config, skipping, file)
  assert "all is finite" in lines[-1]
  build = runs.build

  def spoiled(*arguments):
    run = build(*arguments)
    original = run.train_step

    def step(state, batch, key):
      state, terms = original(state, batch, key)
      bias = state["params"]["audio"]["backbone"]["fc"]["bias"]
      state["params"]["audio"]["backbone"]["fc"]["bias"] = bias.at[0].set(
        np.nan
      )
      return state, terms

    return dataclasses.replace(run, train_step=step)

  monkeypatch.setattr(runs, "build", spoiled)
  lines = replay.replay(config, skipping, file)
  said = "\n".join(lines)
  assert "params/audio/backbone/fc/bias: 1 of 8 are not finite" in said
  assert (
    "first output of a module that is not finite: audio/backbone/fc" in said
  )
  assert "the term total: 1 of 1" in said
  assert "the NaN checker: invalid value" in said
  assert said in capsys.readouterr().out
  assert sorted(skipping.rglob("*")) == before


def test_a_replay_of_another_run_is_refused(
  data_dir, skipping, config, tmp_path
):
  file = tmp_path / "5.json"
  found = json.loads((skipping / nonfinite.FOLDER / "5.json").read_text())
  file.write_text(json.dumps(found | {"starts": found["starts"][::-1]}))
  with pytest.raises(errors.InputError, match="other songs than step 5"):
    replay.replay(config, skipping, file)
  file.write_text("{}")
  with pytest.raises(errors.InputError, match="nonfinite"):
    replay.replay(config, skipping, file)


def _spoil_record(data, song, value):
  """Changes a number of a song's record on the disk, everywhere in it."""
  store = dataset.DataSet(data).store
  feature = store.read_song(song)
  spoiled = np.full_like(feature, value)
  path = data / dataset.STORE_NAME / "data.mdb"
  whole = path.read_bytes()
  assert whole.count(feature.tobytes()) == 1
  path.write_bytes(whole.replace(feature.tobytes(), spoiled.tobytes()))


@pytest.mark.parametrize(
  "value, share",
  [
    (30000.0, 0.001),
    (np.nan, 0.02),
    pytest.param(np.nan, 0.001, marks=pytest.mark.long),
    pytest.param(30000.0, 0.02, marks=pytest.mark.long),
  ],
)
def test_a_damaged_record_is_not_learnt_of_and_named(
  value, share, tmp_path, monkeypatch, capsys
):
  """One of sixty songs is too many, unless so many are let pass."""
  monkeypatch.setattr(nonfinite, "_MOST_DAMAGED", share)
  data = tiny_run.make_data_set(tmp_path / "data")
  opened = dataset.DataSet(data)
  config = _config(data, epochs=1)
  run = runs.build(config, jax.devices()[:1])
  song = int(train.plan_epoch(run, 0).songs[1, 0])
  _spoil_record(data, song, value)
  tiny_run.forget_built()
  named = f"song {opened.store.song_ids[song]} of"
  if share < 1 / 60:
    with pytest.raises(errors.RunError, match="1 of 60 songs .* damaged"):
      tiny_run.train_on_one(config, tmp_path / "w")
  else:
    progress = tiny_run.train_on_one(config, tmp_path / "w")
    assert progress["skipped_steps"] == 1 and progress["step"] == STEPS
    rows = tiny_run.rows_of(tmp_path / "w")
    assert [r["step"] for r in rows if r["kind"] == nonfinite.KIND] == [2]
  assert named in capsys.readouterr().err


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
    _wrap_step(patch, noting)
    for devices, until in moves:
      with patch.context() as inner:
        told = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
        before = max(batches, default=-1) + 1
        _wrap_step(inner, _at_step(until - before, told))
        progress = train.train_and_evaluate(
          config, tmp_path, devices=jax.devices()[:devices]
        )
      assert progress["step"] == until
  run = runs.build(config, jax.devices()[:1])
  same = [
    np.asarray(batch["audio"])
    for epoch in range(EPOCHS)
    for batch in train.load(run, train.plan_epoch(run, epoch))
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
    speed.keep_compiled(tmp_path / "file" / "cache")
    assert jax.config.jax_compilation_cache_dir is None
  finally:
    jax.config.update("jax_compilation_cache_dir", old)
  assert "warning: compiled programs cannot be kept" in capsys.readouterr().err
