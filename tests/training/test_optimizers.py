"""Tests of the optimizer: the learning rate over a run."""

import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.training import optimizers
from pcl_jax.training import setup
from tests.support.tiny import tiny_run

PEAK = 0.02


def _cosine(step, total):
  return PEAK * (1 + math.cos(math.pi * step / total)) / 2


@pytest.mark.parametrize(
  "kind, warmup, expected",
  [
    ("constant", 0, lambda step: PEAK),
    ("constant", 4, lambda step: PEAK * min(step / 4, 1)),
    ("cosine", 0, lambda step: _cosine(step, 20)),
    (
      "cosine",
      4,
      lambda step: PEAK * step / 4 if step < 4 else _cosine(step - 4, 16),
    ),
  ],
)
def test_a_schedule_rises_to_its_peak_and_falls_to_0_with_the_last_step(
  kind, warmup, expected
):
  schedule = optimizers.make_schedule(kind, PEAK, warmup, 20)
  found = [float(schedule(step)) for step in range(20)]
  np.testing.assert_allclose(found, [expected(i) for i in range(20)], atol=1e-8)
  if kind == "cosine":
    assert float(schedule(20)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("warmup", [20, 21])
def test_a_warm_up_without_end_is_refused(warmup):
  with pytest.raises(errors.InputError, match=r"warmup_steps is 2\d and the r"):
    optimizers.make_schedule("cosine", PEAK, warmup, 20)


def test_the_rate_of_an_update_is_that_of_the_count_in_its_state():
  rng = np.random.default_rng(0)
  gradients = rng.standard_normal((3, 6)).astype(np.float32)
  schedule = optimizers.make_schedule("cosine", PEAK, 0, 4)
  moving = optimizers.make_optimizer(schedule, 0.1)
  constant = optimizers.make_optimizer(1.0, 0.1)
  params = {"w": jnp.linspace(-1.0, 1.0, 6)}
  states = moving.init(params), constant.init(params)
  # A checkpoint fits whatever the schedule is.
  assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
  for step, gradient in enumerate(gradients):
    gradient = {"w": jnp.asarray(gradient)}
    found, first = moving.update(gradient, states[0], params)
    expected, second = constant.update(gradient, states[1], params)
    np.testing.assert_allclose(
      found["w"], schedule(step) * expected["w"], rtol=1e-6
    )
    states = first, second


@pytest.fixture
def config(data_dir, quickly):
  return tiny_run.quick_config(
    data_dir,
    opt_params__lr=PEAK,
    opt_params__lr_schedule="cosine",
    opt_params__warmup_steps=2,
    epochs=2,
  )


def test_a_run_follows_its_schedule_through_a_restart(
  config, tmp_path: pathlib.Path, monkeypatch
):
  tiny_run.train_on_one(config, tmp_path / "unbroken")
  rows = tiny_run.rows_of(tmp_path / "unbroken")
  found = [row["learning_rate"] for row in rows if row["kind"] == "train"]
  schedule = optimizers.make_schedule("cosine", PEAK, 2, len(found))
  assert len(found) == 8 and found[2] == pytest.approx(PEAK)
  np.testing.assert_allclose(found, [schedule(i) for i in range(8)], rtol=1e-6)

  with monkeypatch.context() as patch:
    tiny_run.interrupt_after(patch, 5)
    with pytest.raises(tiny_run.Interrupted):
      tiny_run.train_on_one(config, tmp_path / "broken")
  tiny_run.train_on_one(config, tmp_path / "broken")
  tiny_run.assert_same_end(
    tmp_path / "broken", tmp_path / "unbroken", config, 8
  )


def test_a_schedule_that_does_not_exist_is_refused(config):
  config.opt_params.lr_schedule = "linear"
  with pytest.raises(
    errors.InputError,
    match=re.escape(
      "config.opt_params.lr_schedule is 'linear'; it is one of constant, cosine"
    ),
  ):
    setup.build(config)


def test_a_step_moves_weights_by_its_rate_and_statistics_in_any_case(config):
  """The first rate of a warm-up is 0."""
  run = setup.build(config, jax.devices()[:1])
  before = jax.device_get(run.state)
  batch = next(iter(run.batches.load(run.batches.plan_epoch(0))))
  after, _ = run.train_step(run.state, batch, run.key)
  jax.tree.map(np.testing.assert_array_equal, before["params"], after["params"])
  moved, _ = run.train_step(after, batch, run.key)
  same = jax.tree.map(
    lambda a, b: bool(np.array_equal(a, b)), before["params"], moved["params"]
  )
  assert not all(jax.tree.leaves(same))
