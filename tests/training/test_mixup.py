"""Tests of pcl_jax.training.mixup."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from scipy import stats

from pcl_jax.training import mixup

pytestmark = pytest.mark.usefixtures("quick_compilation")

_draw = jax.jit(mixup.draw, static_argnums=(1, 2, 3))
_mix = jax.jit(mixup.mix)


def _patches(seed: int, rows: int = 16) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.uniform(-2, 2, (rows, 5, 4)).astype(np.float16)


def _whole(key, patches):
  gains, partners = mixup.draw(key, len(patches), 7.0, 2.0)
  return gains, partners, mixup.mix(patches, gains, partners)


def _on(devices: int, patches: np.ndarray) -> tuple[jax.Array, jax.Array]:
  """Returns a key, and patches that are split over some devices."""
  auto = jax.sharding.AxisType.Auto
  mesh = jax.make_mesh(
    (devices,), ("data",), (auto,), devices=jax.devices()[:devices]
  )
  split, every = (jax.NamedSharding(mesh, jax.P(*x)) for x in (("data",), ()))
  return jax.device_put(jax.random.key(3), every), jax.device_put(
    patches, split
  )


@functools.cache
def _mixed_on(devices: int) -> list[np.ndarray]:
  return jax.device_get(jax.jit(_whole)(*_on(devices, _patches(0, 64))))


@pytest.mark.parametrize(
  "alpha, beta",
  [
    (7.0, 2.0),
    (0.3, 2.5),
    *(
      pytest.param(*both, marks=pytest.mark.long)
      for both in ((5.0, 2.0), (1.0, 1.0), (0.2, 0.2), (1.5, 17.0), (40.0, 3.0))
    ),
  ],
)
def test_gains_follow_the_beta_distribution(alpha, beta):
  gains, _ = _draw(jax.random.key(0), 20_000, alpha, beta)
  assert gains.dtype == np.float32
  assert 0 <= gains.min() and gains.max() <= 1
  expected = stats.beta(alpha, beta)
  # So near to 1 that float32 rounds what is below to 1, gains are counted only.
  highest = 1 - 2.0**-20
  below, share = gains[gains < highest], expected.cdf(highest)
  found = stats.kstest(below, lambda x: expected.cdf(x) / share)
  assert found.pvalue > 1e-3
  deviation = (share * (1 - share) / len(gains)) ** 0.5
  assert abs(len(below) / len(gains) - share) <= 4 * deviation
  for power in (1, 2, 3):
    found = np.asarray(gains, np.float64) ** power
    error = found.std() / len(gains) ** 0.5
    assert abs(found.mean() - expected.moment(power)) < 4 * error


def _share_of_failures(shape):
  """Returns how often a try fails: 1 less the area below what it accepts."""
  scale = shape - 1 / 3
  area = scale + special.gammaln(shape) - (shape - 0.5) * np.log(scale)
  return 1 - np.exp(area) / np.sqrt(2 * np.pi)


def test_all_tries_of_a_gain_fail_less_often_than_4e_11():
  failures = _share_of_failures(np.linspace(1, 100, 10_000))
  assert failures.max() == failures[0] < 0.05
  assert failures.max() ** mixup.TRIES < 4e-11


@pytest.mark.long
@pytest.mark.parametrize("shape", [1.0, 2.5, 40.0])
def test_a_try_fails_as_often_as_that_bound_assumes(shape, monkeypatch):
  monkeypatch.setattr(mixup, "TRIES", 1)
  rows = 100_000
  drawn = mixup._log_gamma_by_tries(jax.random.key(0), shape, rows)
  failed = np.isclose(drawn, np.log(shape - 1 / 3), rtol=0, atol=1e-7).mean()
  expected = _share_of_failures(shape)
  assert abs(failed - expected) < 5 * (expected / rows) ** 0.5 + 1e-4


@pytest.mark.parametrize("rows", [1, 2, 15, 64, 768, 1000, 8192])
def test_the_partners_of_a_block_are_one_ring(rows):
  _, partners = _draw(jax.random.key(0), rows, 7.0, 2.0)
  blocks, size = partners.shape
  assert blocks * size == rows
  # So many that devices, of which there is a power of two, hold whole ones.
  assert size < 64 or blocks == 64 or size % 2
  place, met = np.zeros(blocks, int), []
  for _ in range(size):
    met.append(place)
    place = np.take_along_axis(np.asarray(partners), place[:, None], 1)[:, 0]
  assert not place.any()
  assert (np.sort(met, axis=0) == np.arange(size)[:, None]).all()


def test_each_other_row_of_a_block_is_a_partner_as_often():
  draw = jax.vmap(lambda key: mixup.draw(key, 8, 7.0, 2.0)[1])
  partners = jax.jit(draw)(jax.random.split(jax.random.key(0), 7000))[:, 0]
  counts = (np.asarray(partners)[..., None] == np.arange(8)).sum(axis=0)
  assert not counts.diagonal().any()
  others = counts[~np.eye(8, dtype=bool)]
  assert np.abs(others - 1000).max() < 5 * 1000**0.5


def test_the_partners_of_the_two_patches_of_a_pair_are_independent():
  _, partners = _draw(jax.random.key(0), 768, 7.0, 2.0)
  first, second = np.split(np.asarray(partners), 2)
  assert (first == second).mean() < 0.1


def test_another_key_draws_other_gains_and_other_partners():
  first = _draw(jax.random.key(0), 5000, 7.0, 2.0)
  again = _draw(jax.random.key(0), 5000, 7.0, 2.0)
  other = _draw(jax.random.key(1), 5000, 7.0, 2.0)
  for one, same, different in zip(first, again, other, strict=True):
    np.testing.assert_array_equal(one, same)
    assert (one != different).mean() > 0.98


def test_a_patch_is_mixed_with_its_partner_by_its_own_gain():
  patches = _patches(0, rows=6)
  gains = jnp.array([0.25, 0.5, 1.0, 0.75, 0.5, 0.0])
  mixed = _mix(patches, gains, jnp.array([[2, 0, 1], [1, 2, 0]]))
  assert mixed.dtype == np.float32
  x = patches.astype(np.float32)
  expected = [
    0.25 * x[0] + 0.75 * x[2],
    0.5 * x[1] + 0.5 * x[0],
    x[2],
    0.75 * x[3] + 0.25 * x[4],
    0.5 * x[4] + 0.5 * x[5],
    x[3],
  ]
  np.testing.assert_allclose(mixed, expected, rtol=1e-6, atol=1e-6)


def test_mixing_is_linear_and_keeps_what_all_patches_share():
  rng = np.random.default_rng(2)
  gains = rng.random(16, np.float32)
  partners = rng.permutation(16).astype(np.int32)[None]
  x, y = (_patches(seed).astype(np.float32) for seed in (0, 1))
  np.testing.assert_allclose(
    _mix(3 * x - y, gains, partners),
    3 * _mix(x, gains, partners) - _mix(y, gains, partners),
    atol=1e-5,
  )
  silence = np.full((16, 5, 4), -2, np.float16)
  np.testing.assert_allclose(_mix(silence, gains, partners), -2.0, rtol=1e-6)


def test_no_patch_moves_between_devices_that_hold_whole_blocks():
  program = jax.jit(_whole).lower(*_on(8, _patches(0, 768))).compile().as_text()
  moved = [
    line
    for line in program.splitlines()
    if "f16[" in line and ("all-" in line or "permute" in line)
  ]
  assert not moved
  assert "f16[96,5,4]" in program  # The rows of a device, in so many words.


@pytest.mark.long  # test_train_step has a short form of it.
def test_a_batch_split_over_8_devices_is_mixed_like_one_on_1():
  one, eight = _mixed_on(1), _mixed_on(8)
  np.testing.assert_array_equal(eight[1], one[1])
  np.testing.assert_allclose(eight[0], one[0], rtol=1e-6)
  np.testing.assert_allclose(eight[2], one[2], rtol=1e-5, atol=1e-6)
