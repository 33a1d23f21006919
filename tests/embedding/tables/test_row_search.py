"""Tests of pcl_jax.embedding.tables.row_search."""

import numpy as np
import pytest

from pcl_jax.embedding.tables import row_search
from pcl_jax.embedding.tables import search

ROWS, LENGTH = 20_000, 96


def _rows(kind: str) -> np.ndarray:
  """Draws unit rows: near a few dimensions, in groups, with equal ones."""
  rng = np.random.default_rng(0)
  spread = np.exp(-np.arange(LENGTH) / 8)
  if kind == "isotropic":
    spread = np.ones(LENGTH)
  rows = rng.normal(size=(ROWS, LENGTH)) * spread
  if kind == "near one direction":
    rows[:, 0] += 4
  if kind == "few dimensions":
    rows[:, 5:] = 0
  if kind == "groups":
    rows += 30 * rows[rng.integers(0, 50, ROWS)]
  rows[[3, 77, 9999]] = rows[12]
  rows[500] = 0
  turn, _ = np.linalg.qr(rng.normal(size=(LENGTH, LENGTH)))
  return search.unit(rows @ turn).astype(np.float32)


@pytest.mark.parametrize(
  ("kind", "bounded"),
  [
    ("spread", True),
    ("near one direction", True),
    ("few dimensions", True),
    ("groups", True),
    ("isotropic", False),
  ],
)
def test_what_is_found_is_what_all_rows_have(kind, bounded):
  unit = _rows(kind)
  bounds = row_search.bounds_of(unit)
  assert (bounds is not None) == bounded
  made = row_search.RowSearch(unit, bounds or row_search.Bounds(unit))
  rng = np.random.default_rng(1)
  hidden = rng.choice(ROWS, 300, replace=False)
  fresh = rng.normal(size=LENGTH).astype(np.float32)
  for query in (3 * unit[12], unit[hidden[0]], unit[:7].mean(axis=0), fresh):
    for k, left_out in ((1, None), (20, hidden), (700, hidden)):
      found = made.nearest(query, k, left_out)
      expected = search.nearest_rows(unit, query, k, left_out)
      np.testing.assert_array_equal(found.scores, expected.scores)
      np.testing.assert_array_equal(found.rows, expected.rows)


def test_bounds_are_never_below_the_cosines_and_rule_most_rows_out():
  unit = _rows("spread")
  bounds = row_search.Bounds(unit)
  queries = unit[:50]
  above = bounds.rows @ bounds.turned(queries).T
  cosines = unit @ queries.T
  assert (above >= cosines - row_search._SLACK).all()
  made = row_search.RowSearch(unit, bounds)
  assert max(len(made.let_through(one, 10)) for one in queries) < ROWS / 50


def test_where_few_rows_may_be_found_these_are_found():
  unit = _rows("spread")
  made = row_search.RowSearch(unit, row_search.Bounds(unit))
  hidden = np.setdiff1d(np.arange(ROWS), [5, 80, 81])
  found = made.nearest(unit[80], 20, hidden)
  assert sorted(found.rows.tolist()) == [5, 80, 81] and found.rows[0] == 80


def test_few_rows_and_short_ones_have_no_bounds():
  assert row_search.bounds_of(_rows("spread")[:1000]) is None
  assert row_search.bounds_of(np.eye(LENGTH, 16, dtype=np.float32)) is None
