"""Tests of runs whose length is given in steps."""

import dataclasses

import jax
import ml_collections
import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import plans
from pcl_jax.training import optimizers
from pcl_jax.training import setup
from tests.support.tiny import tiny_run

pytestmark = pytest.mark.usefixtures("quickly")

STEPS, ROUND = 15, 6  # An epoch has four.


@pytest.fixture
def in_rounds(data_dir):
  return tiny_run.quick_config(
    data_dir, epochs=150, steps=STEPS, validate_every_steps=ROUND
  )


@pytest.fixture(scope="module")
def unbroken_rounds(data_dir, quickly, tmp_path_factory):
  """Workdir of an uninterrupted run in rounds."""
  workdir = tmp_path_factory.mktemp("rounds") / "run"
  config = tiny_run.quick_config(
    data_dir, epochs=150, steps=STEPS, validate_every_steps=ROUND
  )
  progress = tiny_run.train_on_one(config, workdir)
  assert (progress["step"], progress["step_in_epoch"]) == (STEPS, 3)
  return workdir


def _validated(workdir):
  rows = tiny_run.rows_of(workdir)
  return [row["step"] for row in rows if row["kind"] == "validation"]


def _same(one: plans.Plan, other: plans.Plan) -> bool:
  return bool(
    np.array_equal(one.songs, other.songs)
    and np.array_equal(one.starts, other.starts)
  )


def test_a_round_is_the_first_steps_of_passes_of_its_own(in_rounds, config):
  run = setup.build(in_rounds, jax.devices()[:1])
  passes = setup.build(config, jax.devices()[:1]).batches.plan_epoch
  assert len(passes(0)) == 4
  for number in range(3):
    expected = plans.joined([passes(2 * number), passes(2 * number + 1)], ROUND)
    # A function of the seed and the number, whatever was planned before.
    assert _same(run.batches.plan_epoch(number), expected)
  assert run.batches.total_steps == STEPS


def test_a_run_of_steps_is_validated_after_each_round_and_at_its_end(
  unbroken_rounds,
):
  assert _validated(unbroken_rounds) == [6, 12, 15]


@pytest.mark.parametrize(
  "after", [[8], pytest.param([5, 8], marks=pytest.mark.long)]
)
def test_an_interrupted_run_of_rounds_ends_as_the_unbroken_one(
  after, in_rounds, unbroken_rounds, tmp_path, monkeypatch
):
  for steps in after:
    with monkeypatch.context() as patch:
      tiny_run.interrupt_after(patch, steps)
      with pytest.raises(tiny_run.Interrupted):
        tiny_run.train_on_one(in_rounds, tmp_path)
  tiny_run.train_on_one(in_rounds, tmp_path)
  tiny_run.assert_same_end(tmp_path, unbroken_rounds, in_rounds, STEPS)


def test_steps_without_rounds_are_those_of_epochs(unbroken, data_dir, tmp_path):
  config = tiny_run.quick_config(data_dir, epochs=150, steps=tiny_run.LAST)
  tiny_run.train_on_one(config, tmp_path)
  tiny_run.assert_same_end(tmp_path, unbroken, config, tiny_run.LAST)


def test_more_steps_finish_a_short_last_round_and_end_as_the_unbroken_run(
  data_dir, tmp_path
):
  config = tiny_run.quick_config(data_dir, epochs=150, steps=9)
  once, twice = tmp_path / "once", tmp_path / "twice"
  tiny_run.train_on_one(config, once)
  config.steps = 6
  tiny_run.train_on_one(config, twice)
  assert _validated(twice) == [4, 6]
  config.steps = 9
  progress = tiny_run.train_on_one(config, twice)
  assert progress["step"] == 9
  assert _validated(twice) == [4, 6, 8, 9]
  rows = tiny_run.rows_of(twice)
  rows = [r for r in rows if (r["kind"], r["step"]) != ("validation", 6)]
  assert rows == tiny_run.rows_of(once)
  jax.tree.map(
    np.testing.assert_array_equal,
    *(tiny_run.state_of(path, config, 9) for path in (once, twice)),
  )
  # Fewer than there were: nothing is left.
  config.steps = 8
  assert tiny_run.train_on_one(config, twice)["step"] == 9


def test_the_learning_rate_falls_to_the_last_step(data_dir):
  config = tiny_run.quick_config(
    data_dir,
    epochs=150,
    steps=STEPS,
    validate_every_steps=ROUND,
    opt_params__lr_schedule="cosine",
    opt_params__warmup_steps=5,
    opt_params__lr=0.5,
  )
  schedule = setup.build(config, jax.devices()[:1]).schedule
  assert float(schedule(5)) == 0.5
  assert float(schedule(STEPS)) == pytest.approx(0.0, abs=1e-7)
  assert float(schedule(STEPS - 1)) > 1e-3


# Steps of passes over pairs of a small library; its number is a pass's songs.
LENGTHS = [2, 0, 1, 3, 2, 0, 2, 1]


def _batches(config, monkeypatch, lengths, schedule=optimizers.CONSTANT):
  def plan_pass(self, epoch):
    length = lengths[epoch] if epoch < len(lengths) else 0
    songs = np.full((length, 4), epoch, np.int32)
    return plans.Plan(songs, songs)

  monkeypatch.setattr(setup.Batches, "_plan_pass", plan_pass)
  batches = setup.build(config, jax.devices()[:1]).batches
  config = ml_collections.ConfigDict(batches.config)
  config.epochs, config.opt_params.lr_schedule = 3, schedule
  return dataclasses.replace(batches, config=config)


def test_a_pass_that_fills_no_batch_gives_its_place_to_a_later_one(
  config, monkeypatch
):
  """Pairs of playlists are more or fewer from one pass to the next."""
  batches = _batches(config, monkeypatch, LENGTHS)
  epochs = [batches.plan_epoch(epoch).songs[:, 0] for epoch in range(3)]
  assert [epoch.tolist() for epoch in epochs] == [[0, 0], [4, 4], [2]]


def test_epochs_are_as_long_as_the_first_where_the_rate_knows_the_end(
  config, monkeypatch
):
  batches = _batches(config, monkeypatch, LENGTHS, optimizers.COSINE)
  epochs = [batches.plan_epoch(epoch) for epoch in range(3)]
  assert [len(epoch) for epoch in epochs] == [2, 2, 2]
  assert sum(map(len, epochs)) == batches.total_steps
  assert epochs[1].songs[:, 0].tolist() == [2, 3]


def test_a_batch_that_hardly_any_pass_fills_is_refused(config, monkeypatch):
  batches = _batches(config, monkeypatch, [2])
  assert len(batches.plan_epoch(0)) == 2
  with pytest.raises(errors.InputError, match="batch_size is .* smaller batch"):
    batches.plan_epoch(1)
