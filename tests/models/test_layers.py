"""Tests of pcl_jax.models.layers: norms, dropout, initial weights."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcl_jax.models import layers
from pcl_jax.models import resnet
from pcl_jax.models import short_chunk_cnn
from pcl_jax.training import train_step
from tests.support import oracles

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_batch_norm_keeps_the_unbiased_variance_and_divides_by_the_biased():
  norm = layers.BatchNorm(3)
  x = 2.0 * oracles.normal(2, 2, 3) + 5.0
  y = norm(x, training=True)
  rows = np.asarray(x, np.float64).reshape(4, 3)
  scaled = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
  np.testing.assert_allclose(np.reshape(y, (4, 3)), scaled, atol=1e-5)
  np.testing.assert_allclose(norm.mean[...], 0.1 * rows.mean(0), rtol=1e-6)
  unbiased = 0.9 + 0.1 * rows.var(0, ddof=1)
  np.testing.assert_allclose(norm.var[...], unbiased, rtol=1e-6)


def test_batch_norm_in_training_refuses_a_single_element():
  with pytest.raises(ValueError, match="at least 2 elements"):
    layers.BatchNorm(3)(oracles.normal(1, 1, 3), training=True)


@pytest.mark.long  # test_train_step has a short form of it.
def test_a_batch_over_eight_devices_normalises_and_learns_as_on_one():
  conv = functools.partial(
    layers.Conv, kernel_init=layers.he_fan_out, padding=1, rngs=nnx.Rngs(0)
  )
  chain = nnx.Dict(
    conv1=conv(1, 4, (3, 3)),
    norm=layers.BatchNorm(4),
    conv2=conv(4, 32, (3, 3), strides=2),
  )
  graph, *states = nnx.split(chain, nnx.Param, nnx.BatchStat)
  weights, stats = map(nnx.to_pure_dict, states)

  @jax.jit
  def step(weights, x):
    def loss(weights):
      chain = nnx.merge(graph, weights, stats, copy=True)
      y = chain["conv2"](chain["norm"](chain["conv1"](x), training=True))
      return (y**3).mean(), nnx.to_pure_dict(nnx.state(chain, nnx.BatchStat))

    return jax.grad(loss, has_aux=True)(weights)

  x = oracles.normal(16, 8, 6, 1) + jnp.arange(16.0).reshape(16, 1, 1, 1)
  mesh = train_step.make_mesh(jax.devices())
  split = jax.NamedSharding(mesh, jax.P("data"))
  whole = jax.NamedSharding(mesh, jax.P())
  alone = step(weights, x)
  spread = step(jax.device_put(weights, whole), jax.device_put(x, split))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5),
    spread,
    alone,
  )


def test_dropout_zeroes_its_share_and_keeps_the_mean():
  x = jnp.ones(100_000)
  y = layers.dropout(x, 0.3, True, jax.random.key(0))
  assert abs(float((y == 0).mean()) - 0.3) < 0.01
  np.testing.assert_allclose(np.unique(y), [0.0, 1 / 0.7], rtol=1e-6)


def test_weights_start_as_pytorch_starts_them():
  kernel = resnet.BasicBlock(64, 64, rngs=nnx.Rngs(0)).conv2.kernel[...]
  assert abs(float(kernel.std()) / np.sqrt(2 / (9 * 64)) - 1) < 0.02
  block = short_chunk_cnn.ConvBlock(32, 64, pool=(2, 2), rngs=nnx.Rngs(0))
  linear = layers.linear(128, 64, rngs=nnx.Rngs(0))
  for layer, fan_in in [(block.conv, 9 * 32), (linear, 128)]:
    for array in (layer.kernel[...], layer.bias[...]):
      assert 0.9 < float(jnp.abs(array).max()) * np.sqrt(fan_in) <= 1.0
      assert abs(float(array.mean())) * np.sqrt(fan_in) < 0.4


def test_fan_out_counts_the_outputs():
  kernel = layers.he_fan_out(jax.random.key(0), (3, 3, 8, 256), jnp.float32)
  assert abs(float(kernel.std()) / np.sqrt(2 / (9 * 256)) - 1) < 0.02
