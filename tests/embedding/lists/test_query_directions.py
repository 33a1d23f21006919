"""Tests of pcl_jax.embedding.lists.query_directions."""

import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.embedding.lists import query_directions


def _rows(seed: int, count: int = 5) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)


def test_one_song_is_its_own_direction():
  (row,) = _rows(0, 1)
  found = query_directions.direction(row[None])
  np.testing.assert_allclose(found, row / np.linalg.norm(row), rtol=1e-6)


def test_neither_order_nor_lengths_of_songs_matter():
  wanted, unwanted = _rows(0), _rows(1, 3)
  found = query_directions.direction(wanted, unwanted)
  assert np.linalg.norm(found) == pytest.approx(1)
  scaled = np.arange(1, 6, dtype=np.float32)[:, None] * wanted
  again = query_directions.direction(scaled[::-1], 7 * unwanted[::-1])
  np.testing.assert_allclose(again, found, atol=1e-6)


def test_an_unwanted_song_turns_the_direction_away_from_itself():
  for seed in range(20):
    wanted, unwanted = _rows(seed), _rows(100 + seed, 1)
    unwanted /= np.linalg.norm(unwanted)
    before = query_directions.direction(wanted) @ unwanted[0]
    after = query_directions.direction(wanted, unwanted) @ unwanted[0]
    assert after < before


def test_songs_that_cancel_each_other_out_are_refused():
  rows = _rows(0)
  with pytest.raises(errors.InputError, match="5 songs .* cancel each other"):
    query_directions.direction(rows, 3 * rows)
  with pytest.raises(errors.InputError, match="cancel"):
    query_directions.direction(np.stack([rows[0], -rows[0]]))
  with pytest.raises(errors.InputError, match="cancel"):
    query_directions.direction(np.zeros((1, 8), np.float32))


def test_a_blend_leads_from_the_one_order_to_the_other():
  rng = np.random.default_rng(0)
  scores = rng.normal(size=50).astype(np.float32)
  others = rng.normal(size=50).astype(np.float32)
  others[::5] = np.nan
  known = np.isfinite(others)
  np.testing.assert_allclose(
    query_directions.blended(scores, others, 0.0), scores, atol=1e-6
  )
  whole = query_directions.blended(scores, others, 1.0)
  assert (np.argsort(whole[known]) == np.argsort(others[known])).all()
  for share in (0.0, 0.3, 1.0):
    mixed = query_directions.blended(scores, others, share)
    np.testing.assert_array_equal(mixed[~known], scores[~known])
    # How the other cosines are spread has no influence.
    moved = query_directions.blended(scores, 3 * others - 2, share)
    np.testing.assert_allclose(moved, mixed, atol=1e-5)


def test_without_a_second_score_nothing_is_blended():
  scores = np.arange(3, dtype=np.float32)
  nothing = np.full(3, np.nan, np.float32)
  found = query_directions.blended(scores, nothing, 0.5)
  np.testing.assert_array_equal(found, scores)
