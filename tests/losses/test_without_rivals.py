"""Tests of NT-Xent whose positives are no rivals of one another."""

import functools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcl_jax.losses import loss_terms
from pcl_jax.losses import nt_xent
from pcl_jax.training import train_step

pytestmark = pytest.mark.usefixtures("quick_compilation")

N, LISTS = 12, 5  # Anchors; lists that songs stand in.
OFFSET = 1e-5


@functools.cache
def _mesh(devices: int) -> jax.sharding.Mesh:
  return train_step.make_mesh(jax.devices()[:devices])


@functools.cache
def _compiled(devices: int, tile: int | None, temperature: float = 0.1):
  """Compiles value and gradient; tile None computes all pairs at once."""

  def loss(z, songs, sets, left_out):
    groups = jnp.arange(2 * N) % N
    value = nt_xent.nt_xent(
      z[:N],
      z[N:],
      loss_terms.Positives(groups, songs, loss_terms.Shared(sets)),
      loss_terms.NoNegatives(songs, loss_terms.Shared(left_out)),
      temperature=temperature,
      rivals=False,
      mesh=_mesh(devices),
      tiled_above=0 if tile else 10**6,
      tile=tile or 1,
    )
    return 3 * value  # So that the cotangent is not 1.

  return jax.jit(jax.value_and_grad(loss))


def _inputs(seed: int, share: float = 0.15, songs: int = 18):
  """Draws rows, songs, and the lists whose songs are or are no negatives."""
  rng = np.random.default_rng(seed)
  z = rng.standard_normal((2 * N, 6)) + rng.standard_normal(6)
  in_lists, left_out = rng.random((2, 2 * N, LISTS)) < share
  numbers = rng.integers(0, songs, 2 * N)
  return z.astype(np.float32), numbers.astype(np.int32), in_lists, left_out


def _positive(songs, in_lists) -> np.ndarray:
  """Returns which rows are positives of one another, pair by pair."""
  flags = np.zeros((2 * N, 2 * N), bool)
  for i in range(2 * N):
    for j in range(2 * N):
      together = (in_lists[i] & in_lists[j]).any() and songs[i] != songs[j]
      flags[i, j] = i != j and (abs(i - j) == N or together)
  return flags


def _oracle(z, songs, in_lists, left_out) -> float:
  """Computes three times the loss in float64, row by row."""
  z = z.astype(np.float64)
  z = z / np.linalg.norm(z, axis=1, keepdims=True)
  s = np.exp(z @ z.T / 0.1)
  positive = _positive(songs, in_lists)
  losses = []
  for i in range(2 * N):
    negatives = sum(
      s[i, j]
      for j in range(2 * N)
      if j != i
      and not positive[i, j]
      and songs[i] != songs[j]
      and not (left_out[i] & left_out[j]).any()
    )
    each = [
      np.log(s[i, p] + negatives) - np.log(s[i, p] + OFFSET)
      for p in np.flatnonzero(positive[i])
    ]
    losses.append(np.mean(each))
  return 3 * np.mean(losses)


def _assert_alike(found, expected):
  (value, grad), (expected_value, expected_grad) = found, expected
  np.testing.assert_allclose(value, expected_value, rtol=1e-5, atol=1e-5)
  unit = max(np.abs(expected_grad).max(), 1e-3)
  np.testing.assert_allclose(grad / unit, expected_grad / unit, atol=1e-4)


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.15, 0.6]))
def test_the_loss_is_that_of_each_positive_against_the_negatives_alone(
  seed, share
):
  inputs = _inputs(seed, share)
  expected = _oracle(*inputs)
  for tile in (None, 5):
    value, grad = _compiled(1, tile)(*inputs)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    assert np.isfinite(grad).all()


@settings(deadline=None, max_examples=8)
@given(
  st.integers(0, 2**32 - 1),
  st.sampled_from([0.0, 0.15, 0.6, 1.0]),
  st.sampled_from([18, 3, 10**6]),
)
def test_value_and_gradient_by_tiles_are_those_at_once(seed, share, songs):
  inputs = _inputs(seed, share, songs)
  at_once = _compiled(1, None)(*inputs)
  _assert_alike(_compiled(1, 5)(*inputs), at_once)


@pytest.mark.long
def test_eight_devices_give_what_one_gives():
  inputs = _inputs(1)
  split = jax.device_put(inputs, jax.NamedSharding(_mesh(8), jax.P("data")))
  at_once = _compiled(1, None)(*inputs)
  _assert_alike(_compiled(8, 2)(*split), at_once)
  _assert_alike(_compiled(8, None)(*split), at_once)


def test_the_gradient_is_the_slope_of_the_loss():
  z, *others = _inputs(2)
  _, grad = _compiled(1, None)(z, *others)
  rng = np.random.default_rng(3)
  for _ in range(3):
    way = rng.standard_normal(z.shape)
    step = 1e-6 * way
    slope = (_oracle(z + step, *others) - _oracle(z - step, *others)) / 2e-6
    np.testing.assert_allclose((grad * way).sum(), slope, rtol=1e-3, atol=1e-3)


def test_with_one_positive_a_row_and_no_sharing_it_is_the_partner_form():
  z, _, in_lists, left_out = _inputs(4, share=0.0)
  songs = np.arange(2 * N, dtype=np.int32)

  @jax.jit
  @jax.value_and_grad
  def partner(z):
    return 3 * nt_xent.nt_xent(z[:N], z[N:], temperature=0.1)

  for tile in (None, 5):
    found = _compiled(1, tile)(z, songs, in_lists, left_out)
    _assert_alike(found, partner(z))


def test_the_order_of_pairs_and_of_their_halves_changes_nothing():
  inputs = _inputs(5)
  pairs = np.random.default_rng(6).permutation(N)
  order = np.concatenate([pairs + N, pairs])
  value, grad = _compiled(1, None)(*inputs)
  moved = _compiled(1, None)(*(x[order] for x in inputs))
  _assert_alike(moved, (value, grad[order]))


def test_more_positives_make_no_positive_a_rival():
  """Rows of a list that agree entirely cost nothing if others are far."""
  z = np.repeat(np.eye(4, dtype=np.float32), N // 2, axis=0)  # Four lists.
  in_lists = np.zeros((2 * N, LISTS), bool)
  in_lists[:, :4] = z > 0
  # Partners are of one list: rows i and i + N.
  z = np.concatenate([z[::2], z[::2]])
  in_lists = np.concatenate([in_lists[::2], in_lists[::2]])
  songs = np.arange(2 * N, dtype=np.int32)
  nobody = np.zeros((2 * N, LISTS), bool)
  value, _ = _compiled(1, None)(z, songs, in_lists, nobody)
  assert float(value) < 0.01
  alone, _ = _compiled(1, None)(z, songs, nobody, nobody)
  assert float(alone) > 1.0  # The rest of the list then is negative.


def test_a_batch_without_negatives_has_a_finite_loss_and_gradient():
  z, songs, in_lists, left_out = _inputs(7)
  everybody = np.ones_like(in_lists)
  for tile in (None, 5):
    value, grad = _compiled(1, tile)(z, songs, everybody, left_out)
    assert abs(float(value)) < 1.0
    assert np.isfinite(grad).all()


def test_a_fixed_batch_is_learnt():
  z, _, _, left_out = _inputs(8)
  songs = np.arange(2 * N, dtype=np.int32)
  in_lists = np.eye(LISTS, dtype=bool)[np.arange(2 * N) % N % 3]
  compute = _compiled(1, None)
  first, _ = compute(z, songs, in_lists, np.zeros_like(left_out))
  for _ in range(60):
    value, grad = compute(z, songs, in_lists, np.zeros_like(left_out))
    z = z - 0.5 * np.asarray(grad)
  assert float(value) < 0.1 * float(first)
  unit = z / np.linalg.norm(z, axis=1, keepdims=True)
  cosines, positive = unit @ unit.T, _positive(songs, in_lists)
  negative = ~positive & ~np.eye(2 * N, dtype=bool)
  assert cosines[positive].min() > 0.5 > cosines[negative].max()
