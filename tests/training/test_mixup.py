"""Tests of pcl_jax.training.mixup."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pcl_jax.training import mixup

pytestmark = pytest.mark.usefixtures("quick_compilation")

_draw = jax.jit(mixup.draw, static_argnums=(1, 2, 3))
_mix = jax.jit(mixup.mix)


def _patches(seed: int, rows: int = 16) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.uniform(-2, 2, (rows, 5, 4)).astype(np.float16)


@functools.cache
def _mixed_on(devices: int) -> list[np.ndarray]:
  """Draws and mixes a batch that is split over some devices."""
  auto = jax.sharding.AxisType.Auto
  mesh = jax.make_mesh(
    (devices,), ("data",), (auto,), devices=jax.devices()[:devices]
  )

  def whole(key, patches):
    gains, order = mixup.draw(key, len(patches), 7.0, 2.0)
    return gains, order, mixup.mix(patches, gains, order)

  patches = jax.device_put(_patches(0), jax.NamedSharding(mesh, jax.P("data")))
  return jax.device_get(jax.jit(whole)(jax.random.key(3), patches))


def test_gains_follow_the_beta_distribution():
  alpha = 7.0
  gains, _ = _draw(jax.random.key(0), 5000, alpha, 2.0)
  assert gains.dtype == np.float32
  assert 0 < gains.min() and gains.max() < 1
  np.testing.assert_allclose(gains.mean(), alpha / (alpha + 2), atol=0.01)
  assert stats.kstest(gains, stats.beta(alpha, 2).cdf).pvalue > 1e-3


def test_the_order_is_a_permutation_of_all_rows():
  _, order = _draw(jax.random.key(0), 5000, 7.0, 2.0)
  assert sorted(order.tolist()) == list(range(5000))
  assert (order == np.arange(5000)).sum() < 10  # On average one stays.


def test_another_key_draws_other_gains_and_another_order():
  first = _draw(jax.random.key(0), 5000, 7.0, 2.0)
  again = _draw(jax.random.key(0), 5000, 7.0, 2.0)
  other = _draw(jax.random.key(1), 5000, 7.0, 2.0)
  for one, same, different in zip(first, again, other, strict=True):
    np.testing.assert_array_equal(one, same)
    assert (one != different).mean() > 0.99


def test_a_patch_is_mixed_with_its_partner_by_its_own_gain():
  patches = _patches(0, rows=3)
  gains = jnp.array([0.25, 0.5, 1.0])
  mixed = _mix(patches, gains, jnp.array([2, 0, 1]))
  assert mixed.dtype == np.float32
  x = patches.astype(np.float32)
  expected = [0.25 * x[0] + 0.75 * x[2], 0.5 * x[1] + 0.5 * x[0], x[2]]
  np.testing.assert_allclose(mixed, expected, rtol=1e-6, atol=1e-6)


def test_mixing_is_linear_and_keeps_what_all_patches_share():
  rng = np.random.default_rng(2)
  gains = rng.random(16, np.float32)
  order = rng.permutation(16).astype(np.int32)
  x, y = (_patches(seed).astype(np.float32) for seed in (0, 1))
  np.testing.assert_allclose(
    _mix(3 * x - y, gains, order),
    3 * _mix(x, gains, order) - _mix(y, gains, order),
    atol=1e-5,
  )
  silence = np.full((16, 5, 4), -2, np.float16)
  np.testing.assert_allclose(_mix(silence, gains, order), -2.0, rtol=1e-6)


@pytest.mark.long  # test_train_step has a short form of it.
def test_a_batch_split_over_8_devices_is_mixed_like_one_on_1():
  one, eight = _mixed_on(1), _mixed_on(8)
  np.testing.assert_array_equal(eight[1], one[1])
  np.testing.assert_allclose(eight[0], one[0], rtol=1e-6)
  np.testing.assert_allclose(eight[2], one[2], rtol=1e-5, atol=1e-6)
