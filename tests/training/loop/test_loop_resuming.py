"""Tests that a run goes on where it stopped, whatever stopped it."""

import dataclasses
import itertools
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.common import errors
from pcl_jax.common import locks
from pcl_jax.data import dataset
from pcl_jax.training import loop
from pcl_jax.training import resuming
from pcl_jax.training import setup
from tests.support.tiny import tiny_run

pytestmark = pytest.mark.usefixtures("quickly")


def _files(folder):
  return {
    path: (path.read_bytes(), path.stat().st_mtime_ns)
    for path in folder.rglob("*")
    if path.is_file()
  }


@pytest.mark.parametrize(
  "after",
  [
    pytest.param([2], marks=pytest.mark.long),  # Nothing is saved yet.
    pytest.param([3], marks=pytest.mark.long),  # Saved in the step before.
    pytest.param([4], marks=pytest.mark.long),  # Between two epochs.
    pytest.param([7], marks=pytest.mark.long),  # In the middle of an epoch.
    [2, 5, 3],  # Again and again: with nothing saved, and in the middle.
  ],
)
def test_an_interrupted_run_ends_bitwise_as_the_unbroken_one(
  after, unbroken, config, tmp_path, monkeypatch
):
  for steps in after:
    with monkeypatch.context() as patch:
      tiny_run.interrupt_after(patch, steps)
      with pytest.raises(tiny_run.Interrupted):
        tiny_run.train_on_one(config, tmp_path)
  tiny_run.train_on_one(config, tmp_path)
  tiny_run.assert_same_end(tmp_path, unbroken, config, tiny_run.LAST)


def test_a_run_interrupted_before_an_epoch_is_on_file_validates_it_again(
  unbroken, config, tmp_path, monkeypatch
):
  validate = loop.validate
  with monkeypatch.context() as patch:
    left = iter([False, True])

    def interrupted(*args):
      if next(left):
        raise tiny_run.Interrupted
      return validate(*args)

    patch.setattr(loop, "validate", interrupted)
    with pytest.raises(tiny_run.Interrupted):
      tiny_run.train_on_one(config, tmp_path)
  tiny_run.train_on_one(config, tmp_path)
  tiny_run.assert_same_end(tmp_path, unbroken, config, tiny_run.LAST)


def test_a_finished_run_is_left_as_it_is(unbroken, config, tmp_path, capsys):
  run = shutil.copytree(unbroken, tmp_path / "run")
  progress = tiny_run.train_on_one(config, run)
  assert progress["step"] == tiny_run.LAST
  assert tiny_run.rows_of(run) == tiny_run.rows_of(unbroken)
  said = capsys.readouterr().out
  assert "going on from step 12" in said and "done: 12 steps" in said


def test_a_finished_run_goes_on_with_more_epochs_and_says_what_changed(
  unbroken, config, data_dir, tmp_path, capsys
):
  short = tiny_run.quick_config(data_dir, epochs=1)
  tiny_run.train_on_one(short, tmp_path)
  tiny_run.train_on_one(config, tmp_path)
  assert "changed since then: epochs was 1 and is 3 now" in (
    capsys.readouterr().out
  )
  tiny_run.assert_same_end(tmp_path, unbroken, config, tiny_run.LAST)


@pytest.mark.parametrize(
  "keys, said",
  [
    ({"model_params__audio__width": 5}, "audio.width was 1 and is 5 now"),
    ({"seed": 1}, "seed was 0 and is 1 now"),
    ({"data__batch_size": 4}, "data.batch_size was 8 and is 4 now"),
    (
      {"contrast_combos": (("audio", "cf"),)},
      "strategy was 'SS' and is 'CM A,P' now",
    ),
  ],
)
def test_a_checkpoint_of_another_run_is_refused_and_nothing_is_touched(
  unbroken, data_dir, keys, said
):
  before = _files(unbroken)
  other = tiny_run.quick_config(data_dir, **keys)
  with pytest.raises(errors.InputError) as caught:
    tiny_run.train_on_one(other, unbroken)
  assert said in str(caught.value) and "another --workdir" in str(caught.value)
  assert _files(unbroken) == before


def _spoil_batches(train_step, steps):
  """Makes the patches of some steps no numbers."""
  count = itertools.count(1)

  def step(state, batch, key):
    if next(count) in steps:
      with jax.transfer_guard("allow"):
        batch = batch | {"audio": batch["audio"] * np.float16(np.nan)}
    return train_step(state, batch, key)

  return step


def _spoil_after(steps, what):
  """Makes a batch, or the weights, not a number after so many steps."""

  def wrap(train_step):
    if what == "loss":
      return _spoil_batches(train_step, {steps})
    count = itertools.count(1)

    def step(*args):
      state, terms = train_step(*args)
      if next(count) == steps:
        with jax.transfer_guard("allow"):
          nan = jax.tree.map(lambda x: x * np.float32(np.nan), state["params"])
          state = state | {"params": nan}
      return state, terms

    return step

  return wrap


@pytest.mark.parametrize(
  "steps, what, said",
  [
    pytest.param(
      6, "loss", "the loss of step 6 is not finite", marks=pytest.mark.long
    ),
    (6, "weights", "after step 6 the weights are not finite"),
    (8, "weights", "the validation loss of epoch 1 is not finite"),
    pytest.param(5, "weights", "step 6", marks=pytest.mark.long),
  ],
)
def test_a_run_that_goes_astray_stops_and_goes_on_from_what_was_good(
  steps, what, said, unbroken, config, data_dir, tmp_path, monkeypatch
):
  strict = tiny_run.quick_config(data_dir, train__max_nonfinite_steps=1)
  with monkeypatch.context() as patch:
    tiny_run.wrap_step(patch, _spoil_after(steps, what))
    with pytest.raises(errors.RunError, match="are kept.*lr") as caught:
      tiny_run.train_on_one(strict, tmp_path)
  assert said in str(caught.value)
  assert tiny_run.latest_step_of(tmp_path) == (6 if steps == 8 else 4)
  tiny_run.train_on_one(config, tmp_path)
  tiny_run.assert_same_end(tmp_path, unbroken, config, tiny_run.LAST)


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
  tiny_run.assert_same_end(tmp_path, unbroken, config, tiny_run.LAST)


# Another config, another data set.


def test_an_allowed_change_is_gone_on_with_and_config_json_tells_it(
  config, data_dir, tmp_path, capsys
):
  tiny_run.train_on_one(tiny_run.quick_config(data_dir, epochs=1), tmp_path)
  other = tiny_run.quick_config(data_dir, seed=1)
  with pytest.raises(errors.InputError, match="seed was 0 and is 1 now"):
    tiny_run.train_on_one(other, tmp_path)
  found = json.loads((tmp_path / "config.json").read_text())
  assert found["seed"] == 0
  loop.train_and_evaluate(
    other, tmp_path, jax.devices()[:1], allow_change=["seed"]
  )
  assert "changed since then: seed was 0" in capsys.readouterr().out
  found = json.loads((tmp_path / "config.json").read_text())
  assert found == json.loads(other.to_json())
  tiny_run.train_on_one(other, tmp_path)  # What is on file has it now.


def test_an_epoch_with_other_batches_starts_from_its_beginning(
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
  assert "epoch 0 has other batches now and starts from its beginning" in (
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
    allow_change=[resuming.DATA_SET],
  )
  assert progress["epoch"] == tiny_run.EPOCHS


def test_an_allowed_larger_batch_is_not_measured_by_losses_of_the_smaller(
  data_dir, tmp_path
):
  """Its validation loss is larger by itself: the log of more negatives."""
  keys = {"early_stop_patience": 1}
  first = tiny_run.quick_config(data_dir, epochs=1, **keys)
  tiny_run.train_on_one(first, tmp_path)
  larger = tiny_run.quick_config(data_dir, data__batch_size=12, **keys)
  progress = loop.train_and_evaluate(
    larger, tmp_path, jax.devices()[:1], allow_change=["data.batch_size"]
  )
  rows = tiny_run.rows_of(tmp_path)
  losses = {r["step"]: r["total"] for r in rows if r["kind"] == "validation"}
  before = losses.pop(tiny_run.STEPS)
  assert all(loss > before for loss in losses.values())
  best = checkpoint_files.CheckpointFiles(tmp_path).best()
  assert losses[best] == min(losses.values()) == progress["best_loss"]


# Other numbers of devices.


@pytest.mark.long  # A program for each number of devices; see test_train_step.
@pytest.mark.parametrize(
  "moves",
  [
    ((1, 2), (2, tiny_run.LAST)),
    ((1, 2), (4, 5), (8, tiny_run.LAST)),
  ],
)
def test_a_run_moves_to_other_devices_with_the_same_batches(
  moves, config, unbroken, tmp_path, monkeypatch
):
  batches = {}

  def noting(step):
    def noted(state, batch, key):
      with jax.transfer_guard("allow"):
        batches[int(state["step"])] = np.asarray(batch["audio"])
      return step(state, batch, key)

    return noted

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
    for epoch in range(tiny_run.EPOCHS)
    for batch in run.batches.load(run.batches.plan_epoch(epoch))
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
