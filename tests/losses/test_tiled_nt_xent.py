"""Tests of pcl_jax.tiled_nt_xent, with losses.nt_xent as the oracle."""

import functools
import re

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcl_jax.losses import dense_nt_xent
from pcl_jax.losses import tiled_nt_xent

pytestmark = pytest.mark.usefixtures("quick_compilation")

TAGS, CODES, GROUPS = 2, 4, 4
# Anchors, dimensions, rows of a tile, temperature, positives, pairs left out,
# devices. Tiles are filled up, larger than the rows, or of one row. A table,
# not all of them, since each takes a second to compile.
CASES = (
  (8, 4, 3, 0.5, None, None, 1),
  (12, 5, 2, 0.1, None, "groups", 8),
  (5, 3, 4, 0.1, "genres", "groups", 1),
  (12, 5, 2, 0.01, "genres", None, 8),
  (8, 2, 64, 10.0, "groups", "genres", 8),
  (3, 8, 1, 0.05, "groups", None, 1),
)


@functools.cache
def _mesh(devices: int) -> jax.sharding.Mesh:
  return jax.make_mesh(
    (devices,),
    ("data",),
    (jax.sharding.AxisType.Auto,),
    devices=jax.devices()[:devices],
  )


def _pairs(kind, tags, labels):
  """Returns what gives the tiles of one kind of pairs."""
  if kind == "genres":
    return tiled_nt_xent.SharedGenres(dense_nt_xent.genre_sets(tags, CODES))
  return tiled_nt_xent.SameGroup(labels) if kind == "groups" else None


def _dense(kind, tags, labels):
  """Returns the same pairs as an array whose rows sum to 1 or to 0."""
  if kind == "genres":
    return dense_nt_xent.genre_weights(tags, CODES)
  if kind is None:
    return None
  same = (labels[:, None] == labels[None]) & (labels[:, None] >= 0)
  same = same & ~jnp.eye(len(labels), dtype=bool)
  return same / jnp.maximum(same.sum(axis=1, keepdims=True), 1)


@functools.cache
def _compiled(devices, tile, temperature, weights, excluded):
  """Compiles value and gradient; tile None is the dense loss."""

  def loss(anchors, positives, tags, labels):
    if tile is None:
      left_out = _dense(excluded, tags, labels)
      value = dense_nt_xent.nt_xent(
        anchors,
        positives,
        temperature,
        _dense(weights, tags, labels),
        None if left_out is None else left_out > 0,
      )
    else:
      value = tiled_nt_xent.nt_xent(
        anchors,
        positives,
        temperature,
        _pairs(weights, tags, labels),
        _pairs(excluded, tags, labels),
        mesh=_mesh(devices),
        tile=tile,
      )
    return 3 * value  # So that the cotangent is not 1.

  return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))


def _inputs(seed: int, n: int, d: int, spread: float = 1.0):
  rng = np.random.default_rng(seed)
  middle = rng.standard_normal(d)
  noise = rng.standard_normal((2 * n, d))
  z = middle / np.linalg.norm(middle) + spread * noise
  tags = rng.integers(0, CODES + 1, (2 * n, TAGS)).astype(np.int32)
  labels = rng.integers(-1, GROUPS, 2 * n).astype(np.int32)
  z = z.astype(np.float32)
  return z[:n], z[n:], tags, labels


def _assert_as_dense(inputs, case):
  """Compares value and gradient with the dense loss."""
  _, _, tile, *kind, devices = case
  temperature, rows = kind[0], 2 * len(inputs[0])
  mesh = _mesh(devices)
  # Anchors alone need not split over the devices.
  spec = jax.P() if len(inputs[0]) % devices else jax.P("data")
  split = jax.device_put(inputs, jax.NamedSharding(mesh, spec))
  expected, expected_grads = _compiled(None, None, *kind)(*inputs)
  actual, grads = _compiled(devices, tile, *kind)(*split)
  # The loss is a difference of terms of up to 1 / t.
  tolerance = 1e-6 * max(1.0, 1 / temperature)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=tolerance)
  # The terms of a gradient, which cancel where all rows agree, set its unit.
  norms = np.linalg.norm(np.concatenate(inputs[:2]), axis=1)
  terms = 3 / (temperature * rows * norms[norms > 0].min())
  unit = max(np.abs(expected_grads).max(), terms)
  for one, other in zip(grads, expected_grads, strict=True):
    np.testing.assert_allclose(one / unit, other / unit, atol=1e-4)


@settings(deadline=None, max_examples=50)
@given(
  case=st.sampled_from(CASES),
  seed=st.integers(0, 2**32 - 1),
  spread=st.sampled_from([0.0, 0.1, 1.0, 10.0]),
)
def test_value_and_gradient_are_those_of_the_dense_loss(case, seed, spread):
  n, d, *_ = case
  _assert_as_dense(_inputs(seed, n, d, spread), case)


@pytest.mark.parametrize("case", [CASES[1], CASES[2]])
def test_rows_of_zeros_are_as_in_the_dense_loss(case):
  n, d, *_ = case
  anchors, positives, tags, labels = _inputs(0, n, d)
  anchors[[0, 3]] = positives[[0, 4]] = 0.0  # The first are partners.
  _assert_as_dense((anchors, positives, tags, labels), case)


@pytest.mark.parametrize("case", [CASES[1], CASES[2]])
def test_a_positive_is_not_left_out_of_the_normaliser(case):
  n, d, *_ = case
  anchors, positives, tags, labels = _inputs(0, n, d)
  tags[[0, n]] = 0  # These have no positive where genres decide.
  labels[:] = 0  # Every pair is excluded.
  _assert_as_dense((anchors, positives, tags, labels), case)


def test_a_batch_without_any_positive_has_loss_and_gradient_0():
  n, d, tile, *kind, devices = CASES[5]
  anchors, positives, tags, labels = _inputs(0, n, d)
  labels[:] = -1
  value, grads = _compiled(devices, tile, *kind)(
    anchors, positives, tags, labels
  )
  assert float(value) == 0.0
  np.testing.assert_array_equal(grads, 0.0)


@pytest.mark.parametrize("kind", ["genres", "groups"])
def test_pairs_have_the_same_number_in_either_order(kind):
  *_, tags, labels = _inputs(0, 12, 4)

  @jax.jit
  def both_orders(tags, labels):
    some = _pairs(kind, tags[:7], labels[:7])
    others = _pairs(kind, tags[7:], labels[7:])
    return some.tile(others), others.tile(some).T

  one, other = jax.device_get(both_orders(tags, labels))
  np.testing.assert_array_equal(one, other)
  assert (one >= 0).all()
  assert (one > 0).any()


def test_rows_that_do_not_split_over_the_devices_are_refused():
  anchors, positives, *_ = map(jnp.asarray, _inputs(0, 6, 4))
  with pytest.raises(ValueError, match="12 rows on 8 devices"):
    tiled_nt_xent.nt_xent(anchors, positives, 0.1, mesh=_mesh(8))


def _lowered(devices: int, rows: int, weights: str | None, tile: int):
  """Compiles for a batch of `rows` in d = 128, split as in a step."""
  split = jax.NamedSharding(_mesh(devices), jax.P("data"))

  def loss(audio, tags):
    half = rows // 2
    return tiled_nt_xent.nt_xent(
      audio[:half],
      audio[half:],
      0.1,
      _pairs(weights, tags, None),
      mesh=_mesh(devices),
      tile=tile,
    )

  return (
    jax.jit(jax.value_and_grad(loss))
    .lower(
      jax.ShapeDtypeStruct((rows, 128), jnp.float32, sharding=split),
      jax.ShapeDtypeStruct((rows, TAGS), jnp.int32, sharding=split),
    )
    .compile()
  )


def test_one_device_communicates_nothing_and_eight_gather_nothing():
  def collectives(devices):
    text = _lowered(devices, 64, "genres", 8).as_text()
    return set(re.findall(r" (all-\w+|collective-\w+|reduce-scatter)\(", text))

  assert collectives(1) == set()
  assert collectives(8) == {"collective-permute", "all-reduce"}


def test_memory_grows_with_the_rows_and_not_with_the_pairs():
  sizes = [16384, 32768, 65536]
  analyses = [
    _lowered(1, size, "genres", 1024).memory_analysis() for size in sizes
  ]
  used = [a.temp_size_in_bytes for a in analyses]
  per_row = np.diff(used) / np.diff(sizes)
  assert per_row.max() < 1.5 * per_row.min()
  largest = analyses[-1]
  ends = largest.argument_size_in_bytes + largest.output_size_in_bytes
  assert largest.temp_size_in_bytes + ends < 1e9
