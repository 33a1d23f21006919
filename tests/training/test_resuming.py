"""Tests that a run goes on where it stopped, whatever stopped it."""

import itertools

import jax
import numpy as np
import pytest

from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.common import errors
from pcl_jax.training import loop
from tests.support import tiny_run

pytestmark = pytest.mark.usefixtures("quick_compilation", "build_once")

STEPS = 4  # Of an epoch: 36 training songs, 8 a batch.
EPOCHS = 3


@pytest.fixture(scope="module")
def config(data_dir):
  return tiny_run.narrow_config(data_dir, epochs=EPOCHS)


def _files(folder):
  return {
    path: (path.read_bytes(), path.stat().st_mtime_ns)
    for path in folder.rglob("*")
    if path.is_file()
  }


@pytest.mark.parametrize(
  "after",
  [
    [2],  # Nothing is saved yet.
    pytest.param([3], marks=pytest.mark.long),  # Saved in the step before.
    pytest.param([4], marks=pytest.mark.long),  # Between two epochs.
    [7],  # In the middle of an epoch.
    [5, 3, 2],  # Again and again.
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
  tiny_run.assert_same_end(tmp_path, unbroken, config, STEPS * EPOCHS)


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
  tiny_run.assert_same_end(tmp_path, unbroken, config, STEPS * EPOCHS)


def test_a_finished_run_is_left_as_it_is(unbroken, config, capsys):
  before = tiny_run.rows_of(unbroken)
  progress = tiny_run.train_on_one(config, unbroken)
  assert progress["step"] == 12 and tiny_run.rows_of(unbroken) == before
  said = capsys.readouterr().out
  assert "going on from step 12" in said and "done: 12 steps" in said


def test_a_finished_run_goes_on_with_more_epochs_and_says_what_changed(
  unbroken, config, data_dir, tmp_path, capsys
):
  short = tiny_run.narrow_config(data_dir, epochs=1)
  tiny_run.train_on_one(short, tmp_path)
  tiny_run.train_on_one(config, tmp_path)
  assert "changed since then: epochs was 1 and is 3 now" in (
    capsys.readouterr().out
  )
  tiny_run.assert_same_end(tmp_path, unbroken, config, STEPS * EPOCHS)


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
  other = tiny_run.narrow_config(data_dir, epochs=EPOCHS, **keys)
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
    (6, "loss", "the loss of step 6 is not finite"),
    (6, "weights", "after step 6 the weights are not finite"),
    (8, "weights", "the validation loss of epoch 1 is not finite"),
    pytest.param(5, "weights", "step 6", marks=pytest.mark.long),
  ],
)
def test_a_run_that_goes_astray_stops_and_goes_on_from_what_was_good(
  steps, what, said, unbroken, config, data_dir, tmp_path, monkeypatch
):
  strict = tiny_run.narrow_config(
    data_dir, epochs=EPOCHS, train__max_nonfinite_steps=1
  )
  with monkeypatch.context() as patch:
    tiny_run.wrap_step(patch, _spoil_after(steps, what))
    with pytest.raises(errors.RunError, match="are kept.*lr") as caught:
      tiny_run.train_on_one(strict, tmp_path)
  assert said in str(caught.value)
  files = checkpoint_files.CheckpointFiles(tmp_path)
  assert files.latest() == (6 if steps == 8 else 4)
  tiny_run.train_on_one(config, tmp_path)
  tiny_run.assert_same_end(tmp_path, unbroken, config, STEPS * EPOCHS)
