"""Tests of pcl_jax.optimizer: the learning rate over a run."""

import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pcl_jax.common import errors
from pcl_jax.training import optimizers
from pcl_jax.training import setup
from pcl_jax.training import train_step
from tests.support import quick_backbone
from tests.support import tiny_run

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


def _step(learning_rate, gradients, first_step):
  """Takes steps of Adam; returns the parameters and the optimizer's state."""
  optimizer = optimizers.make_optimizer(learning_rate, 0.1)
  params = {"w": jnp.linspace(-1.0, 1.0, 6)}
  state = optimizer.init(params)
  for i, gradient in enumerate(gradients, first_step):
    updates, state = optimizer.update(
      {"w": gradient}, state, params, step=jnp.int32(i)
    )
    params = optax.apply_updates(params, updates)
  return params["w"], state


def test_the_rate_of_a_step_is_that_of_the_runs_own_count():
  rng = np.random.default_rng(0)
  gradients = jnp.asarray(rng.standard_normal((1, 6)), jnp.float32)
  schedule = optimizers.make_schedule("cosine", PEAK, 0, 20)
  for step in (0, 7, 19):
    found, state = _step(schedule, gradients, step)
    expected, plain = _step(float(schedule(step)), gradients, step)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # A checkpoint fits whatever the schedule is.
    assert jax.tree.structure(state) == jax.tree.structure(plain)


def test_a_constant_schedule_is_the_constant():
  rng = np.random.default_rng(0)
  gradients = jnp.asarray(rng.standard_normal((5, 6)), jnp.float32)
  schedule = optimizers.make_schedule("constant", PEAK, 0, 20)
  np.testing.assert_array_equal(
    _step(schedule, gradients, 0)[0], _step(PEAK, gradients, 0)[0]
  )


@pytest.fixture
def config(data_dir, monkeypatch):
  quick_backbone.register(monkeypatch)
  return tiny_run.quick_config(
    data_dir,
    opt_params__lr=PEAK,
    opt_params__lr_schedule="cosine",
    opt_params__warmup_steps=2,
  )


@pytest.mark.usefixtures("quick_compilation")
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
  config.opt_params.lr_schedule = "constant"  # Its first rate is 0.
  run = setup.build(config, jax.devices()[:1])
  before = jax.device_get(run.state)
  batch = {
    "audio": jax.random.normal(jax.random.key(0), (16, 128, 48), jnp.float32)
  }
  after, terms = run.train_step(run.state, batch, run.key)
  train_step.take_flags(terms)
  jax.tree.map(np.testing.assert_array_equal, before["params"], after["params"])
  moved, _ = run.train_step(after, batch, run.key)
  same = jax.tree.map(
    lambda a, b: bool(np.array_equal(a, b)), before["params"], moved["params"]
  )
  assert not all(jax.tree.leaves(same))
