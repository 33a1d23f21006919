"""Tests of pcl_jax.losses."""

from fractions import Fraction
import functools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pcl_jax.losses import dense_nt_xent

pytestmark = pytest.mark.usefixtures("quick_compilation")

GOLDEN = {"n4_d16_t0.1": 0.1, "n8_d128_t0.5": 0.5, "n32_d128_t0.1": 0.1,
          "n96_d128_t0.1": 0.1}  # fmt: skip
OFFSET = 1e-5
ROWS, TAGS, CODES = 6, 4, 5


@functools.partial(jax.jit, static_argnums=1)
def _loss_and_grad(z, temperature, weights=None, excluded=None):
  """Computes the loss and its gradient for anchors and positives, stacked."""

  def loss(z):
    half = len(z) // 2
    return dense_nt_xent.nt_xent(
      z[:half], z[half:], temperature, weights, excluded
    )

  return jax.value_and_grad(loss)(z)


def _loss(z, temperature, weights=None):
  return _loss_and_grad(z, temperature, weights)[0]


_weights = jax.jit(dense_nt_xent.genre_weights, static_argnums=1)


def _random(seed: int, rows: int, dims: int = 16) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.standard_normal((rows, dims)).astype(np.float32)


def _golden(golden_dir, name: str) -> dict[str, np.ndarray]:
  with np.load(golden_dir / "losses.npz") as file:
    prefix = f"loss/{name}/"
    return {
      key.removeprefix(prefix): file[key]
      for key in file.files
      if key.startswith(prefix)
    }


def _tags(sets: list[set[int]] | np.ndarray, width: int) -> np.ndarray:
  """Writes sets of codes as rows of tags, padded with 0."""
  tags = np.zeros((len(sets), width), np.int32)
  for row, codes in zip(tags, sets, strict=True):
    row[: len(codes)] = sorted(codes)
  return tags


def _golden_weights(genres: np.ndarray) -> jax.Array:
  sets = [set((np.flatnonzero(row) + 1).tolist()) for row in genres]
  tags = _tags(sets, max(map(len, sets)))
  return _weights(tags, genres.shape[1])


def _published(z: np.ndarray, temperature: float, weights: np.ndarray) -> float:
  """Computes the loss as REFERENCE states it, in float64, row by row."""
  z = z.astype(np.float64)
  unit = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-8)
  s = np.exp(unit @ unit.T / temperature)
  np.fill_diagonal(s, 0.0)
  rows = np.log(s.sum(axis=1)) - (weights * np.log(s + OFFSET)).sum(axis=1)
  return float(rows[weights.any(axis=1)].sum() / len(z))


def _assert_close_gradients(actual, expected, tolerance=1e-5):
  """Compares with the largest element of the gradient as the unit."""
  unit = np.abs(expected).max()
  np.testing.assert_allclose(actual / unit, expected / unit, atol=tolerance)


@pytest.mark.parametrize("name", GOLDEN)
def test_loss_and_gradient_are_those_measured_on_the_published_code(
  golden_dir, name
):
  golden = _golden(golden_dir, name)
  loss, grad = _loss_and_grad(golden["z"], GOLDEN[name])
  np.testing.assert_allclose(loss, golden["loss"], rtol=1e-5)
  _assert_close_gradients(grad, golden["grad"])


@pytest.mark.parametrize("name", GOLDEN)
def test_genre_weighted_loss_is_the_published_one_by_rows_or_columns(
  golden_dir, name
):
  golden = _golden(golden_dir, name)
  weights = _golden_weights(golden["genres"])
  loss, grad = _loss_and_grad(golden["z"], GOLDEN[name], weights)
  for scaled in ("rownorm", "reference"):
    expected = golden[f"genre_loss_{scaled}"]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    _assert_close_gradients(grad, golden[f"genre_grad_{scaled}"])


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_loss_agrees_with_optax_but_for_the_offset_of_the_positive(temperature):
  z = _random(0, rows=10)
  pair = jnp.tile(jnp.arange(5), 2)
  textbook = optax.losses.ntxent(jnp.asarray(z), pair, temperature)
  unit = z / np.linalg.norm(z, axis=1, keepdims=True)
  cosine = (unit * np.roll(unit, 5, axis=0)).sum(axis=1)
  # log(s + 1e-5) = log s + log(1 + 1e-5 / s): what the offset takes off.
  offset = np.log1p(OFFSET / np.exp(cosine / temperature)).mean()
  actual = _loss(z, temperature)
  np.testing.assert_allclose(actual, textbook - offset, rtol=2e-6)


def test_loss_is_the_textbook_one_where_partners_do_not_point_apart():
  anchors = _random(0, rows=5)
  positives = anchors + 0.5 * _random(1, rows=5)  # So s_ij is above 1.
  assert (np.sum(anchors * positives, axis=1) > 0).all()
  pair = jnp.tile(jnp.arange(5), 2)
  z = jnp.concatenate([anchors, positives])
  expected = optax.losses.ntxent(z, pair, 0.1)
  np.testing.assert_allclose(_loss(z, 0.1), expected, atol=OFFSET)


@pytest.mark.parametrize("n", [2, 50])
def test_loss_of_a_collapsed_encoder_is_the_log_of_the_choices(n):
  rows = np.full((n, 16), 0.25, np.float32)
  actual = _loss(np.concatenate([rows, rows]), 0.1)
  np.testing.assert_allclose(actual, np.log(2 * n - 1), rtol=1e-6)


def test_partner_weights_give_the_loss_without_weights():
  z = _random(0, rows=12)
  partner = np.roll(np.eye(12, dtype=np.float32), 6, axis=1)
  np.testing.assert_allclose(_loss(z, 0.1, partner), _loss(z, 0.1), rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.01, 10.0])
def test_loss_agrees_with_float64_at_any_temperature(temperature):
  z = _random(0, rows=8)
  partner = np.roll(np.eye(8, dtype=np.float32), 4, axis=1)
  expected = _published(z, temperature, partner)
  for weights in (None, partner):
    loss, grad = _loss_and_grad(z, temperature, weights)
    np.testing.assert_allclose(loss, expected, rtol=2e-5)
    assert np.isfinite(grad).all()


def test_loss_does_not_depend_on_the_norm_of_any_row():
  z = _random(0, rows=12)
  weights = _golden_weights(np.random.default_rng(1).random((12, 6)) < 0.4)
  factors = np.random.default_rng(2).uniform(-3, 3, (12, 1))
  scaled = (z * 10.0**factors).astype(np.float32)
  for w in (None, weights):
    np.testing.assert_allclose(
      _loss(scaled, 0.1, w), _loss(z, 0.1, w), rtol=1e-5
    )


def test_anchors_and_positives_may_be_exchanged():
  z = _random(0, rows=12)
  np.testing.assert_allclose(
    _loss(np.roll(z, 6, axis=0), 0.1), _loss(z, 0.1), rtol=1e-6
  )


def test_rows_of_zeros_give_a_finite_loss_and_gradient():
  z = _random(0, rows=8)
  z[[0, 3, 4]] = 0.0  # Of them 0 and 4 are partners.
  weights = _golden_weights(np.ones((8, 1), bool))
  for w in (None, weights):
    loss, grad = _loss_and_grad(z, 0.1, w)
    assert np.isfinite(loss)
    assert np.isfinite(grad).all()


def test_a_row_without_positives_adds_exactly_nothing():
  z = _random(0, rows=8)
  sets = [{1}, {2}, {1, 2}, set(), {3}, {1}, {2}, {4}]  # 3, 4 and 7 are alone.
  weights = np.asarray(_weights(_tags(sets, 2), 4))
  assert np.flatnonzero(~weights.any(axis=1)).tolist() == [3, 4, 7]
  loss, grad = _loss_and_grad(z, 0.1, weights)
  np.testing.assert_allclose(loss, _published(z, 0.1, weights), rtol=1e-5)
  assert np.isfinite(grad).all()


def test_a_batch_without_any_positive_has_loss_and_gradient_0():
  z = _random(0, rows=8)
  weights = _weights(np.zeros((8, 3), np.int32), 4)
  loss, grad = _loss_and_grad(z, 0.1, weights)
  assert float(loss) == 0.0
  np.testing.assert_array_equal(grad, 0.0)


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_gradient_do_not_depend_on_the_number_of_devices(weighted):
  a, p = _random(0, rows=16), _random(1, rows=16)
  tags = _tags([{1 + i % 5, 6 + i % 3} for i in range(31)] + [{9}], 2)

  def loss(anchors, positives, tags):
    weights = dense_nt_xent.genre_weights(tags, 9) if weighted else None
    return dense_nt_xent.nt_xent(anchors, positives, 0.1, weights)

  compute = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
  auto = jax.sharding.AxisType.Auto
  results = []
  for count in (1, 8):
    mesh = jax.make_mesh(
      (count,), ("data",), (auto,), devices=jax.devices()[:count]
    )
    split = jax.device_put((a, p, tags), jax.NamedSharding(mesh, jax.P("data")))
    results.append(jax.device_get(compute(*split)))
  (one, one_grads), (eight, eight_grads) = results
  np.testing.assert_allclose(eight, one, rtol=1e-6)
  for actual, expected in zip(eight_grads, one_grads, strict=True):
    _assert_close_gradients(actual, expected, 1e-6)


def _weights_by_sets(sets: list[set[int]]) -> list[list[Fraction]]:
  """Computes the weights exactly, from python sets."""
  rows = []
  for i, one in enumerate(sets):
    row = [
      Fraction(len(one & other), len(one) + len(other))
      if i != j and one & other
      else Fraction(0)
      for j, other in enumerate(sets)
    ]
    total = sum(row)
    rows.append([value / total if total else value for value in row])
  return rows


_sets = st.sets(st.integers(1, CODES), max_size=TAGS)


@settings(deadline=None)
@given(st.lists(_sets, min_size=ROWS, max_size=ROWS), st.randoms())
def test_genre_weights_are_those_of_sets_whatever_the_order_of_tags(
  sets, random
):
  tags = _tags(sets, TAGS)
  for row in tags:
    random.shuffle(row)
  actual = _weights(tags, CODES)
  expected = np.array(_weights_by_sets(sets), np.float64)
  np.testing.assert_allclose(actual, expected, atol=1e-6)
  np.testing.assert_array_equal(actual > 0, expected > 0)


def test_genre_weights_count_a_repeated_tag_once():
  once, twice = [[1, 2, 0], [1, 3, 0]], [[1, 2, 1], [1, 3, 3]]
  np.testing.assert_array_equal(
    _weights(np.array(twice, np.int32), 3),
    _weights(np.array(once, np.int32), 3),
  )


def _published_without(z, temperature, weights, left_out):
  """Computes the loss in float64 with pairs left out, row by row."""
  unit = z.astype(np.float64)
  unit /= np.linalg.norm(unit, axis=1, keepdims=True)
  s = np.exp(unit @ unit.T / temperature)
  np.fill_diagonal(s, 0.0)
  kept = np.where(left_out & (weights == 0), 0.0, s).sum(axis=1)
  some = weights.any(axis=1)
  attracted = (weights * np.log(s + OFFSET)).sum(axis=1)
  return (np.log(kept[some]) - attracted[some]).sum() / len(z)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_pairs_left_out_are_missed_only_by_the_normaliser(share):
  z = _random(0, rows=12)
  left_out = np.random.default_rng(1).random((12, 12)) < share
  partner = np.roll(np.eye(12, dtype=np.float32), 6, axis=1)
  sets = [{1}, {2}, {1, 2}, set(), {3}, {1}, {2}, {4}, {1}, {2}, {2}, {1, 3}]
  shared = np.asarray(_weights(_tags(sets, 2), 4))
  for passed, weights in (
    (None, partner),
    (partner, partner),
    (shared, shared),
  ):
    loss, grad = _loss_and_grad(z, 0.1, passed, left_out)
    expected = _published_without(z, 0.1, weights, left_out)
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-5)
    assert np.isfinite(grad).all()
