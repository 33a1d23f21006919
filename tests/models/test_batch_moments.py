"""Tests of pcl_jax.models.batch_moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.ahead_of_time import compiled_program
from pcl_jax.models import batch_moments
from tests.support import oracles

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(params=["_in_one_pass", "_in_two_passes"])
def normalise(request, monkeypatch):
  """Normalises by the moments of accelerators and by those of CPUs."""
  moments = getattr(batch_moments, request.param)
  monkeypatch.setattr(batch_moments, "_moments", moments)
  return lambda *inputs: batch_moments.normalise(*inputs)


def _inputs(mean, *shape):
  """Draws a batch with a mean so many times its deviation, scale and bias."""
  x = oracles.normal(*shape) + mean
  scale, bias = (1.0 + oracles.normal(shape[-1], seed=seed) for seed in (1, 2))
  return x, scale, bias


@pytest.mark.parametrize("mean", [0.0, 3.0, -1000.0])
def test_moments_are_those_of_float64_however_far_the_mean_is(mean, normalise):
  x, scale, bias = _inputs(mean, 12, 9, 5, 4)
  y, found, var = jax.jit(normalise)(x, scale, bias)
  rows = np.asarray(x, np.float64).reshape(-1, 4)
  np.testing.assert_allclose(found, rows.mean(0), rtol=2e-6, atol=1e-7)
  np.testing.assert_allclose(var, rows.var(0), rtol=2e-5)
  unit = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + batch_moments.EPSILON)
  expected = unit * np.asarray(scale, np.float64) + np.asarray(bias, np.float64)
  error = 1e-6 * max(abs(mean), 3)
  np.testing.assert_allclose(np.reshape(y, (-1, 4)), expected, atol=error)


def _plain(x, scale, bias):
  axes = tuple(range(x.ndim - 1))
  mean, var = jnp.mean(x, axis=axes), jnp.var(x, axis=axes)
  shape = (1,) * (x.ndim - 1) + (-1,)
  unit = (x - mean.reshape(shape)) / jnp.sqrt(var + 1e-5).reshape(shape)
  return unit * scale.reshape(shape) + bias.reshape(shape)


@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_the_gradient_is_that_which_jax_derives_of_the_formula(mean):
  ours = lambda *inputs: batch_moments.normalise(*inputs)[0]  # noqa: E731
  for shape in ((8, 3, 2, 4), (6, 4)):
    got, want = oracles.both_with_gradients(
      ours, _plain, *_inputs(mean, *shape)
    )
    error = 6e-6 * max(mean, 3)  # Of what float32 keeps of the deviation.
    for one, other in zip(got[1], want[1], strict=True):
      np.testing.assert_allclose(one, other, atol=error)


def test_a_batch_in_bfloat16_has_moments_in_float32(normalise):
  x, scale, bias = _inputs(1.0, 16, 4, 4, 3)
  narrow = x.astype(jnp.bfloat16)
  y, mean, var = jax.jit(normalise)(narrow, scale, bias)
  assert y.dtype == jnp.bfloat16
  rows = np.asarray(narrow, np.float64).reshape(-1, 3)
  np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-6)
  np.testing.assert_allclose(var, rows.var(0), rtol=1e-5)


def test_equal_elements_have_their_mean_and_no_variance(normalise):
  x = jnp.full((8, 5, 2), 0.1)
  _, mean, var = jax.jit(normalise)(x, jnp.ones(2), jnp.zeros(2))
  np.testing.assert_allclose(mean, 0.1, rtol=1e-6)
  np.testing.assert_allclose(var, 0.0, atol=1e-13)


def test_eight_devices_exchange_moments_and_sums_and_no_rows(monkeypatch):
  """Forward three numbers of each channel, which GPUs and TPUs put together."""
  in_one_pass = batch_moments._in_one_pass
  monkeypatch.setattr(batch_moments, "_moments", in_one_pass)
  mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
  split = jax.NamedSharding(mesh, jax.P("data"))
  x, scale, bias = _inputs(0.0, 96, 6, 5, 4)

  def loss(x, scale, bias):
    return (batch_moments.normalise(x, scale, bias)[0] ** 3).sum()

  step = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
  arguments = jax.device_put(x, split), scale, bias
  text = step.lower(*arguments).compile().as_text()
  program = compiled_program.read(text)
  assert program.collectives == {"all-gather": 3, "all-reduce": 1}
  number = 4  # Bytes.
  assert program.collective_bytes["all-gather"] == 3 * 8 * 4 * number
  assert program.collective_bytes["all-reduce"] == 2 * 4 * number
