"""Tests of pcl_jax.losses.nt_xent: all pairs at once, on one device."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pcl_jax.losses import loss_terms
from pcl_jax.losses import nt_xent

pytestmark = pytest.mark.usefixtures("quick_compilation")

GOLDEN = {"n4_d16_t0.1": 0.1, "n8_d128_t0.5": 0.5, "n32_d128_t0.1": 0.1,
          "n96_d128_t0.1": 0.1}  # fmt: skip
# Each shape is a program.
SHORT = ("n8_d128_t0.5", "n96_d128_t0.1")
CELLS = [
  pytest.param(name, marks=[] if name in SHORT else pytest.mark.long)
  for name in GOLDEN
]
OFFSET = 1e-5


class Table(NamedTuple):
  """The numbers of all pairs, for the loss at once."""

  numbers: jax.Array

  def tile(self, columns):
    del columns
    return self.numbers


@functools.partial(jax.jit, static_argnums=1)
def _loss_and_grad(z, temperature, weights=None, excluded=None):
  """Computes the loss and its gradient for anchors and positives, stacked."""

  def loss(z):
    half = len(z) // 2
    pairs = [None if x is None else Table(x) for x in (weights, excluded)]
    return nt_xent.nt_xent(z[:half], z[half:], *pairs, temperature=temperature)

  return jax.value_and_grad(loss)(z)


def _loss(z, temperature, weights=None):
  return _loss_and_grad(z, temperature, weights)[0]


def _random() -> np.ndarray:
  """Draws rows of one shape, so that programs are shared."""
  rng = np.random.default_rng(0)
  return rng.standard_normal((8, 16)).astype(np.float32)


def _golden(golden_dir, name: str) -> dict[str, np.ndarray]:
  with np.load(golden_dir / "losses.npz") as file:
    prefix = f"loss/{name}/"
    return {
      key.removeprefix(prefix): file[key]
      for key in file.files
      if key.startswith(prefix)
    }


def _genre_weights(flags: np.ndarray) -> np.ndarray:
  """Returns weights by shared genres, scaled to sum 1, from rows of flags."""
  genres = loss_terms.Shared(jnp.asarray(flags))
  weights = np.array(genres.tile(genres))
  np.fill_diagonal(weights, 0.0)
  return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)


def _flags(sets: list[set[int]]) -> np.ndarray:
  return np.array([[code in one for code in range(1, 5)] for one in sets])


def _published(z, temperature, weights, left_out=False) -> float:
  """Computes the loss as REFERENCE states it, in float64, row by row."""
  z = z.astype(np.float64)
  unit = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-8)
  s = np.exp(unit @ unit.T / temperature)
  np.fill_diagonal(s, 0.0)
  kept = np.where(left_out & (weights == 0), 0.0, s).sum(axis=1)
  some = weights.any(axis=1)
  attracted = (weights * np.log(s + OFFSET)).sum(axis=1)
  return float((np.log(kept[some]) - attracted[some]).sum() / len(z))


def _assert_close_gradients(actual, expected):
  """Compares with the largest element of the gradient as the unit."""
  unit = np.abs(expected).max()
  np.testing.assert_allclose(actual / unit, expected / unit, atol=1e-5)


@pytest.mark.parametrize("name", CELLS)
def test_loss_and_gradient_are_those_measured_on_the_published_code(
  golden_dir, name
):
  golden = _golden(golden_dir, name)
  loss, grad = _loss_and_grad(golden["z"], GOLDEN[name])
  np.testing.assert_allclose(loss, golden["loss"], rtol=1e-5)
  _assert_close_gradients(grad, golden["grad"])


@pytest.mark.parametrize("name", CELLS)
def test_genre_weighted_loss_is_the_published_one_by_rows_or_columns(
  golden_dir, name
):
  golden = _golden(golden_dir, name)
  weights = _genre_weights(golden["genres"] > 0)
  loss, grad = _loss_and_grad(golden["z"], GOLDEN[name], weights)
  for scaled in ("rownorm", "reference"):
    expected = golden[f"genre_loss_{scaled}"]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    _assert_close_gradients(grad, golden[f"genre_grad_{scaled}"])


@pytest.mark.parametrize(
  "temperature", [0.1, pytest.param(1.0, marks=pytest.mark.long)]
)
def test_loss_agrees_with_optax_but_for_the_offset_of_the_positive(temperature):
  z = _random()
  pair = jnp.tile(jnp.arange(4), 2)
  textbook = optax.losses.ntxent(jnp.asarray(z), pair, temperature)
  unit = z / np.linalg.norm(z, axis=1, keepdims=True)
  cosine = (unit * np.roll(unit, 4, axis=0)).sum(axis=1)
  # log(s + 1e-5) = log s + log(1 + 1e-5 / s): what the offset takes off.
  offset = np.log1p(OFFSET / np.exp(cosine / temperature)).mean()
  actual = _loss(z, temperature)
  np.testing.assert_allclose(actual, textbook - offset, rtol=2e-6)


def test_loss_of_a_collapsed_encoder_is_the_log_of_the_choices():
  actual = _loss(np.full((8, 16), 0.25, np.float32), 0.1)
  np.testing.assert_allclose(actual, np.log(7), rtol=1e-6)


@pytest.mark.parametrize(
  "temperature",
  [0.01, 0.1, pytest.param(10.0, marks=pytest.mark.long)],
)
def test_loss_agrees_with_float64_at_any_temperature(temperature):
  z = _random()
  partner = np.roll(np.eye(8, dtype=np.float32), 4, axis=1)
  expected = _published(z, temperature, partner)
  for weights in (None, partner):
    loss, grad = _loss_and_grad(z, temperature, weights)
    np.testing.assert_allclose(loss, expected, rtol=2e-5)
    assert np.isfinite(grad).all()


def test_loss_does_not_depend_on_the_norm_of_any_row():
  z = _random()
  weights = _genre_weights(np.random.default_rng(1).random((8, 6)) < 0.4)
  factors = np.random.default_rng(2).uniform(-3, 3, (8, 1))
  scaled = (z * 10.0**factors).astype(np.float32)
  for w in (None, weights):
    np.testing.assert_allclose(
      _loss(scaled, 0.1, w), _loss(z, 0.1, w), rtol=1e-5
    )


def test_anchors_and_positives_may_be_exchanged():
  z = _random()
  np.testing.assert_allclose(
    _loss(np.roll(z, 4, axis=0), 0.1), _loss(z, 0.1), rtol=1e-6
  )


def test_rows_of_zeros_give_a_finite_loss_and_gradient():
  z = _random()
  z[[0, 3, 4]] = 0.0  # Of them 0 and 4 are partners.
  for weights in (None, np.ones((8, 8), np.float32)):
    loss, grad = _loss_and_grad(z, 0.1, weights)
    assert np.isfinite(loss)
    assert np.isfinite(grad).all()


def test_a_row_without_positives_adds_exactly_nothing():
  z = _random()
  # Rows 3, 4 and 7 share no genre with another.
  weights = _genre_weights(
    _flags([{1}, {2}, {1, 2}, set(), {3}, {1}, {2}, {4}])
  )
  assert np.flatnonzero(~weights.any(axis=1)).tolist() == [3, 4, 7]
  loss, grad = _loss_and_grad(z, 0.1, weights)
  np.testing.assert_allclose(loss, _published(z, 0.1, weights), rtol=1e-5)
  assert np.isfinite(grad).all()
  loss, grad = _loss_and_grad(z, 0.1, np.zeros_like(weights))
  assert float(loss) == 0.0
  np.testing.assert_array_equal(grad, 0.0)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_pairs_left_out_are_missed_only_by_the_normaliser(share):
  z = _random()
  left_out = np.random.default_rng(1).random((8, 8)) < share
  partner = np.roll(np.eye(8, dtype=np.float32), 4, axis=1)
  sets = [{1}, {2}, {1, 2}, set(), {3}, {1}, {2}, {1, 3}]
  shared = _genre_weights(_flags(sets))
  for passed, weights in ((None, partner), (shared, shared)):
    loss, grad = _loss_and_grad(z, 0.1, passed, left_out)
    expected = _published(z, 0.1, weights, left_out)
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-5)
    assert np.isfinite(grad).all()
