"""Tests of what a step learns of batches that are not finite: nothing."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcl_jax.data import strategies
from pcl_jax.models import encoders
from pcl_jax.training import optimizers
from pcl_jax.training import train_step
from tests.support import small_step

KEY = jax.random.key(0)
SS = strategies.parse([["audio", "audio_self"]], "")


def _start(model, strategy=small_step.HYBRID):
  return small_step.start(
    model, optimizers.make_optimizer(0.01, 0.1), small_step.recipe(strategy)
  )


@pytest.fixture(scope="module")
def small(quick_compilation):
  """A state after a step, on the host, the step, and how to split."""
  state, (step, _), split = _start(small_step.SmallEncoders(rngs=nnx.Rngs(0)))
  state, terms = step(state, split(small_step.batch()), KEY)
  assert terms[train_step.SKIPPED] == 0
  return jax.device_get(state), step, split


def _spoiled_audio(value):
  audio = small_step.batch()["audio"].copy()
  audio[3, 2, 7] = value
  return {"audio": audio}


def _spoiled_bias(state, value):
  bias = state["params"]["fc"]["output"]["bias"].copy()
  bias[0] = value
  output = state["params"]["fc"]["output"] | {"bias": bias}
  fc = state["params"]["fc"] | {"output": output}
  return state | {"params": state["params"] | {"fc": fc}}


@pytest.mark.parametrize(
  "what", ["nan", "inf", "30000", "a weight", "a statistic"]
)
def test_a_skipped_step_leaves_the_state_bit_for_bit(what, small):
  state, step, split = small
  batch = small_step.batch()
  if what == "a weight":
    state = _spoiled_bias(state, np.nan)
  elif what == "a statistic":
    norm = state["batch_stats"]["norm"]
    spoiled = norm | {"var": np.full_like(norm["var"], np.inf)}
    state = state | {"batch_stats": state["batch_stats"] | {"norm": spoiled}}
  else:
    batch = batch | _spoiled_audio(float(what))
  after, terms = step(jax.device_put(state), split(batch), KEY)
  assert terms[train_step.SKIPPED] == 1
  number = after.pop("step")
  assert number == state["step"] + 1
  before = {name: state[name] for name in after}
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), before)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -2e19])
def test_a_gradient_whose_square_is_infinite_is_not_learned_from(value):
  """Adam's second moment would stay infinite, and its weight where it is."""
  params = {"a": jnp.ones(3), "b": jnp.ones((2, 2))}
  optimizer = optimizers.make_optimizer(0.1, 0.0)
  state = {
    "params": params,
    "batch_stats": {"mean": jnp.zeros(2)},
    "opt_state": optimizer.init(params),
  }
  batch = {"audio": jnp.zeros((2, 3, 4))}
  for at in range(3):
    gradients = params | {"a": params["a"].at[at].set(value)}
    new, is_good = train_step._learn(
      optimizer, state, gradients, state["batch_stats"], batch, {}
    )
    assert not is_good
    jax.tree.map(np.testing.assert_array_equal, new, state)
  new, is_good = train_step._learn(
    optimizer, state, params, state["batch_stats"], batch, {}
  )
  assert is_good and (new["params"]["a"] < 1).all()


def _narrow_resnet():
  return encoders.Encoders(
    audio_params={"backbone_type": "resnet", "width": 2}, rngs=nnx.Rngs(0)
  )


@pytest.fixture
def optimised():
  name = "jax_disable_most_optimizations"
  before = jax.config.values[name]
  jax.config.update(name, False)
  yield
  jax.config.update(name, before)


@pytest.mark.long
@pytest.mark.parametrize(
  "make", [lambda: small_step.SmallEncoders(rngs=nnx.Rngs(0)), _narrow_resnet]
)
def test_a_step_is_bitwise_the_one_without_a_choice(
  make, optimised, monkeypatch
):
  """Compiled as a run compiles it, with all optimisations."""
  found = []
  for guarded in (True, False):
    if not guarded:
      monkeypatch.setattr(train_step, "_chosen", lambda _, new, old: new)
    state, (step, _), split = _start(make(), SS)
    batch = split(small_step.batch(frames=256))
    for _ in range(2):
      state, terms = step(state, batch, KEY)
    found.append(jax.device_get((state, terms)))
  jax.tree.map(np.testing.assert_array_equal, *found)
