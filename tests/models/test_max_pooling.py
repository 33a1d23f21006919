"""Tests of pcl_jax.models.max_pooling."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcl_jax.models import max_pooling
from tests.support import oracles

pytestmark = pytest.mark.usefixtures("quick_compilation")


def _windows(window, strides, padding):
  return lambda x: nnx.max_pool(x, window, strides=strides, padding=padding)


def _pool(*window):
  return functools.partial(max_pooling.max_pool, window=window)


def _overlapping_by_places(x):
  """Pools as accelerators do."""
  forward = max_pooling._overlapping_pool
  pull = lambda *both: (max_pooling._overlapping_pull(*both),)  # noqa: E731
  pool = jax.custom_vjp(lambda x: forward(x)[0])
  pool.defvjp(forward, pull)
  margins = ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0))
  return pool(jnp.pad(x, margins, constant_values=-jnp.inf))


@pytest.mark.parametrize(
  ("ours", "oracle"),
  [
    (_pool(2, 2), _windows((2, 2), (2, 2), "VALID")),
    (_pool(3, 1), _windows((3, 1), (3, 1), "VALID")),
    (_pool(7, 4), _windows((7, 4), (7, 4), "VALID")),
    (
      max_pooling.overlapping_max_pool,
      _windows((3, 3), (2, 2), ((1, 1), (1, 1))),
    ),
    (_overlapping_by_places, _windows((3, 3), (2, 2), ((1, 1), (1, 1)))),
  ],
)
@pytest.mark.parametrize(
  "shape",
  [pytest.param((2, 8, 6, 3), marks=pytest.mark.long), (2, 7, 5, 3)],
)
def test_a_max_pool_and_its_gradient_are_those_of_reduce_window(
  ours, oracle, shape
):
  got, want = oracles.both_with_gradients(ours, oracle, oracles.normal(*shape))
  np.testing.assert_array_equal(got[0], want[0])
  np.testing.assert_allclose(got[1], want[1], rtol=1e-6)


def _gradient(pool, x):
  return np.asarray(jax.grad(lambda x: pool(x).sum())(x))


@pytest.mark.parametrize(
  ("pool", "firsts"),
  [
    (_pool(2, 2), {(0, 0): 1, (0, 2): 1, (2, 0): 1, (2, 2): 1}),
    # The windows are centred at even rows and columns.
    (
      _overlapping_by_places,
      {(0, 0): 1, (0, 1): 1, (1, 0): 1, (1, 1): 1},
    ),
  ],
)
def test_of_equal_values_the_first_one_by_rows_takes_the_gradient(pool, firsts):
  gradient = _gradient(pool, jnp.zeros((1, 4, 4, 1)))[0, :, :, 0]
  found = {tuple(at): gradient[tuple(at)] for at in np.argwhere(gradient)}
  assert found == firsts


def test_the_first_of_two_maxima_is_that_of_the_upper_row():
  x = jnp.zeros((1, 2, 2, 1)).at[0, 0, 1].set(1.0).at[0, 1, 0].set(1.0)
  np.testing.assert_array_equal(
    _gradient(_pool(2, 2), x)[0, :, :, 0], [[0, 1], [0, 0]]
  )


@pytest.mark.parametrize("at", [(0, 0), (1, 3), (3, 2)])
def test_what_is_not_a_number_is_not_lost(at):
  x = jnp.zeros((1, 4, 4, 1)).at[0, *at].set(jnp.nan)
  for pool in (
    _pool(2, 2),
    max_pooling.overlapping_max_pool,
    _overlapping_by_places,
  ):
    assert np.isnan(pool(x)).any()
