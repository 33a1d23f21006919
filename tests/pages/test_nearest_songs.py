"""Tests of pcl_jax.pages.nearest_songs."""

import numpy as np
import pytest

from pcl_jax.embedding.tables import search
from pcl_jax.pages import nearest_songs


def _vectors(songs: int = 40) -> np.ndarray:
  return np.random.default_rng(0).normal(size=(songs, 6)).astype(np.float32)


def test_neighbours_are_those_of_the_highest_cosine_without_the_song_itself():
  found = nearest_songs.find(_vectors())
  unit = search.unit(_vectors().astype(np.float64))
  cosines = unit @ unit.T
  np.fill_diagonal(cosines, -np.inf)
  expected = np.argsort(-cosines, axis=1)[:, : nearest_songs.SHOWN]
  np.testing.assert_array_equal(found.rows, expected)
  best = np.take_along_axis(cosines, expected, axis=1)
  np.testing.assert_allclose(found.cosines, best, atol=1e-5)


@pytest.mark.parametrize("songs, expected", [(1, 0), (2, 1), (5, 4)])
def test_there_are_no_more_neighbours_than_other_songs(songs, expected):
  assert nearest_songs.find(_vectors(songs)).rows.shape == (songs, expected)


def test_confusion_is_the_share_of_neighbours_by_sub_genre():
  genres = [["a"], ["b"], [], ["a", "b"], ["a"], ["b"]]
  rows = np.array([[1, 2, 3, 4, 5]] * 6)
  found = nearest_songs.Neighbours(rows, np.zeros(rows.shape))
  names, matrix = nearest_songs.confusion(found, genres, np.array([0]))
  # Of song 0: b, none known, half a and half b, a, b.
  assert names == ["a", nearest_songs.OTHER]
  np.testing.assert_allclose(matrix[0], [1.5 / 5, 3.5 / 5])
  names, matrix = nearest_songs.confusion(found, genres, np.arange(6))
  assert names == ["a", "b", nearest_songs.NO_GENRE]
  np.testing.assert_allclose(matrix.sum(axis=1), 1)
  np.testing.assert_allclose(matrix[0], [1.5 / 5, 2.5 / 5, 1 / 5])


def test_rare_sub_genres_are_counted_together():
  genres = [[f"g{i:02d}"] for i in range(40)]
  found = nearest_songs.find(_vectors())
  names, matrix = nearest_songs.confusion(found, genres, np.arange(40))
  assert len(names) == 21 and names[-1] == nearest_songs.OTHER
  np.testing.assert_allclose(matrix.sum(axis=1), 1)
