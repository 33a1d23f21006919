"""Tests of pcl_jax.pages.song_map."""

import numpy as np
import pytest

from pcl_jax.embedding.tables import search
from pcl_jax.pages import song_map


@pytest.fixture(autouse=True)
def without_umap(monkeypatch):
  """Places songs as where umap-learn is not installed."""
  monkeypatch.setattr(song_map, "_has_umap", lambda: False)


def _vectors(songs: int = 50, dims: int = 8, seed: int = 0) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.normal(size=(songs, dims)) * np.linspace(3, 0.1, dims)


def test_axes_are_the_principal_components_of_the_directions():
  placed, method = song_map.place(_vectors())
  rows = search.unit(_vectors())
  left, _, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
  assert method == "PCA"
  for axis in (0, 1):
    correlation = np.corrcoef(placed[:, axis], left[:, axis])[0, 1]
    assert abs(correlation) == pytest.approx(1, abs=1e-5)
  np.testing.assert_allclose(placed.max(axis=0), 1, atol=1e-9)
  np.testing.assert_allclose(placed.min(axis=0), -1, atol=1e-9)


def test_the_length_of_a_vector_does_not_move_a_song():
  lengths = np.random.default_rng(1).uniform(0.5, 2, (50, 1))
  placed, _ = song_map.place(_vectors())
  longer, _ = song_map.place(_vectors() * lengths)
  np.testing.assert_allclose(longer, placed, atol=1e-4)


@pytest.mark.parametrize(
  "vectors", [np.ones((1, 4)), np.ones((3, 4)), np.zeros((2, 1))]
)
def test_songs_that_are_all_alike_have_finite_places(vectors):
  placed, _ = song_map.place(vectors)
  assert placed.shape == (len(vectors), 2)
  assert np.isfinite(placed).all()
