"""Tests of pcl_jax.losses.nt_xent by tiles, and on several devices."""

import functools
import re
from typing import NamedTuple

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


class SameGroup(NamedTuple):
  """1 for rows of the same group; negative labels are of no group."""

  labels: jax.Array

  def tile(self, columns):
    same = self.labels[:, None] == columns.labels[None, :]
    return same & (self.labels >= 0)[:, None]


@functools.cache
def _mesh(devices: int) -> jax.sharding.Mesh:
  return train_step.make_mesh(jax.devices()[:devices])


def _pairs(kind, tags, labels):
  if kind == "genres":
    return loss_terms.shared_genres(tags, CODES)
  return SameGroup(labels) if kind == "groups" else None


@functools.cache
def _compiled(devices, tile, temperature, weights, excluded):
  """Compiles value and gradient; tile None computes all pairs at once."""

  def loss(anchors, positives, tags, labels):
    value = nt_xent.nt_xent(
      anchors,
      positives,
      _pairs(weights, tags, labels),
      _pairs(excluded, tags, labels),
      temperature=temperature,
      mesh=_mesh(devices),
      tiled_above=0 if tile else 10**6,
      tile=tile or 1,
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


def _assert_as_at_once(inputs, case):
  """Compares value and gradient by tiles with those at once, on one device."""
  _, _, tile, *kind, devices = case
  temperature, rows = kind[0], 2 * len(inputs[0])
  mesh = _mesh(devices)
  # Anchors alone need not split over the devices.
  spec = jax.P() if len(inputs[0]) % devices else jax.P("data")
  split = jax.device_put(inputs, jax.NamedSharding(mesh, spec))
  expected, expected_grads = _compiled(1, None, *kind)(*inputs)
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


def _drawn(cases, examples):
  drawn = given(
    case=st.sampled_from(cases),
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([0.0, 0.1, 1.0, 10.0]),
  )
  return lambda test: settings(deadline=None, max_examples=examples)(
    drawn(test)
  )


@_drawn(CASES[1:3], 8)
def test_value_and_gradient_by_tiles_are_those_at_once(case, seed, spread):
  n, d, *_ = case
  _assert_as_at_once(_inputs(seed, n, d, spread), case)


@pytest.mark.long
@_drawn(CASES, 100)
def test_by_tiles_of_any_size_they_are_those_at_once(case, seed, spread):
  n, d, *_ = case
  _assert_as_at_once(_inputs(seed, n, d, spread), case)


@pytest.mark.parametrize("case", [CASES[1], CASES[2]])
def test_zeros_and_excluded_positives_are_by_tiles_as_at_once(case):
  n, d, *_ = case
  anchors, positives, tags, labels = _inputs(0, n, d)
  tags[[0, n]] = 0  # These have no positive where genres decide.
  labels[:] = 0  # Every pair is excluded.
  _assert_as_at_once((anchors, positives, tags, labels), case)
  anchors[[0, 3]] = positives[[0, 4]] = 0.0  # The first are partners.
  _assert_as_at_once((anchors, positives, tags, labels), case)


def test_a_batch_without_any_positive_has_loss_and_gradient_0_by_tiles():
  n, d, tile, *kind, devices = CASES[5]
  anchors, positives, tags, labels = _inputs(0, n, d)
  labels[:] = -1
  value, grads = _compiled(devices, tile, *kind)(
    anchors, positives, tags, labels
  )
  assert float(value) == 0.0
  np.testing.assert_array_equal(grads, 0.0)


@pytest.mark.parametrize(
  "kind",
  [
    pytest.param((0.1, None, None), marks=pytest.mark.long),
    (0.1, "genres", None),
  ],
)
def test_all_pairs_at_once_do_not_depend_on_the_number_of_devices(kind):
  inputs = _inputs(0, 16, 16)
  split = jax.device_put(inputs, jax.NamedSharding(_mesh(8), jax.P("data")))
  one, one_grads = _compiled(1, None, *kind)(*inputs)
  eight, eight_grads = _compiled(8, None, *kind)(*split)
  np.testing.assert_allclose(eight, one, rtol=1e-6)
  for actual, expected in zip(eight_grads, one_grads, strict=True):
    unit = np.abs(expected).max()
    np.testing.assert_allclose(actual / unit, expected / unit, atol=1e-6)


def test_shared_genres_are_the_same_in_either_order():
  *_, tags, _ = _inputs(0, 12, 4)
  some, others = (
    loss_terms.shared_genres(x, CODES) for x in jnp.split(jnp.asarray(tags), 2)
  )
  one, other = some.tile(others), others.tile(some).T
  np.testing.assert_array_equal(one, other)
  assert (one >= 0).all() and (one > 0).any()


def test_rows_that_do_not_split_over_the_devices_are_refused():
  anchors, positives, *_ = map(jnp.asarray, _inputs(0, 6, 4))
  with pytest.raises(ValueError, match="12 rows on 8 devices"):
    nt_xent.nt_xent(
      anchors, positives, temperature=0.1, mesh=_mesh(8), tiled_above=0
    )


def _lowered(devices: int, rows: int, tile: int):
  """Compiles for a batch of `rows` in d = 128, split as in a step."""
  split = jax.NamedSharding(_mesh(devices), jax.P("data"))

  def loss(audio, tags):
    everywhere = jax.NamedSharding(_mesh(devices), jax.P())
    # As a step does, before it takes halves of them.
    audio = jax.lax.with_sharding_constraint(audio, everywhere)
    half = rows // 2
    return nt_xent.nt_xent(
      audio[:half],
      audio[half:],
      loss_terms.shared_genres(tags, CODES),
      temperature=0.1,
      mesh=_mesh(devices),
      tiled_above=0,
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


@pytest.mark.parametrize(
  "devices, expected",
  [
    pytest.param(1, set(), marks=pytest.mark.long),
    (8, {"all-gather", "all-reduce"}),
  ],
)
def test_one_device_communicates_nothing_and_eight_gather_rows_and_sums(
  devices, expected
):
  text = _lowered(devices, 64, 8).as_text()
  found = re.findall(r" (all-\w+|collective-\w+|reduce-scatter)\(", text)
  assert set(found) == expected


@pytest.mark.long
def test_memory_grows_with_the_rows_and_not_with_the_pairs():
  small, largest = (
    _lowered(1, size, 1024).memory_analysis() for size in (16384, 65536)
  )
  # Four times the rows, sixteen times the pairs.
  assert largest.temp_size_in_bytes < 5 * small.temp_size_in_bytes
  ends = largest.argument_size_in_bytes + largest.output_size_in_bytes
  assert largest.temp_size_in_bytes + ends < 1e9
