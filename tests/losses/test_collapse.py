"""Tests of pcl_jax.losses.collapse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcl_jax.losses import collapse

pytestmark = pytest.mark.usefixtures("quick_compilation")
_diagnose = jax.jit(collapse.diagnostics)


def _rows(n: int = 40, d: int = 6, seed: int = 0) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.standard_normal((n, d)).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_one_point_is_full_collapse():
  found = _diagnose(jnp.ones((10, 4)))
  assert found["effective_rank"] == pytest.approx(1.0, abs=5e-3)
  assert found["uniformity"] == pytest.approx(0.0, abs=1e-5)
  assert found["mean_cosine"] == pytest.approx(1.0, abs=1e-5)


def test_rounding_is_no_direction():
  rows = np.outer(np.linspace(0.1, 3, 300), _rows(1, 256)[0])
  found = _diagnose(jnp.asarray(rows.astype(np.float32)))
  assert found["effective_rank"] == pytest.approx(1.0, abs=5e-3)


def test_orthogonal_rows_use_every_direction():
  found = _diagnose(jnp.eye(5) * 3.0)
  assert found["effective_rank"] == pytest.approx(5.0, rel=1e-5)
  assert found["uniformity"] == pytest.approx(-4.0, rel=1e-5)
  assert found["mean_cosine"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_the_effective_rank_is_that_of_the_singular_values(shape):
  rows = _rows(*shape)
  values = np.linalg.svd(_unit(rows), compute_uv=False)
  shares = values / values.sum()
  expected = np.exp(-(shares * np.log(shares)).sum())
  found = _diagnose(jnp.asarray(rows))["effective_rank"]
  assert found == pytest.approx(expected, rel=1e-4)


def test_uniformity_and_cosine_are_means_over_all_pairs_of_different_rows():
  rows = _unit(_rows())
  i, j = np.nonzero(~np.eye(len(rows), dtype=bool))
  squared = ((rows[i] - rows[j]) ** 2).sum(axis=1)
  found = _diagnose(jnp.asarray(rows))
  assert found["uniformity"] == pytest.approx(
    np.log(np.exp(-2 * squared).mean()), rel=1e-4
  )
  assert found["mean_cosine"] == pytest.approx(
    (rows[i] * rows[j]).sum(axis=1).mean(), abs=1e-5
  )


def test_alignment_is_the_squared_distance_of_directions():
  first = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
  second = jnp.array([[5.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
  found = collapse.alignments(first, second)
  np.testing.assert_allclose(found, [0.0, 4.0, 2.0], atol=1e-6)


def test_a_scale_of_each_row_changes_nothing():
  rows = _rows()
  scales = np.random.default_rng(1).uniform(0.5, 2, (len(rows), 1))
  first = _diagnose(jnp.asarray(rows))
  scaled = _diagnose(jnp.asarray((rows * scales).astype(np.float32)))
  for name, value in first.items():
    assert scaled[name] == pytest.approx(float(value), rel=1e-4, abs=1e-5)


def test_diagnostics_compile_and_are_finite_for_rows_of_zeros():
  rows = _rows()
  rows[:3] = 0.0
  found = _diagnose(rows)
  assert all(np.isfinite(value) for value in found.values())
