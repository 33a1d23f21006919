"""The rows nearest to a vector, exactly, without reading all of each row.

Vectors of encoders lie near a few dimensions. Turned so that these come first,
a row's first numbers nearly tell its cosine with a query: that of the others is
at most the product of their lengths. Most rows are so ruled out unread.
"""

from collections.abc import Callable
import functools

from jaxtyping import Float, Int
import numpy as np
import scipy.linalg

from pcl_jax.embedding.tables import search

LEADING = 24  # Numbers of a row that are read of all rows.
_FEWEST_ROWS = 1 << 14  # All of fewer are read soon.
_MOST_SHARE = 16  # At most one row of so many is read whole.
_SAMPLE = 1 << 13  # Rows that the axes are of.
_TRIED, _TRIED_K = 16, 20  # Queries that show whether the bounds are tight.
_BATCH = 1 << 16  # Rows turned at once.
_SLACK = 1e-5  # More than the rounding of bounds and cosines.

Product = Callable[[np.ndarray], np.ndarray]


class Bounds:
  """Upper bounds of the cosines of unit rows with a query.

  Attributes:
    rows: of each row its products with the axes, and the length of what they
      leave of it. The product of such a row with that of a query is at least
      the cosine of the two (Cauchy and Schwarz).
  """

  def __init__(self, unit: Float[np.ndarray, "rows d"]):
    """Takes unit rows, of at least `LEADING` numbers."""
    count, length = unit.shape
    some = unit[:: max(count // _SAMPLE, 1)]
    moments = (some.T @ some).astype(np.float64)
    _, axes = scipy.linalg.eigh(
      moments, subset_by_index=[length - LEADING + 1, length - 1]
    )
    self._axes = np.ascontiguousarray(axes, np.float32)
    self.rows = np.empty((count, LEADING), np.float32)
    for first in range(0, count, _BATCH):
      part = slice(first, first + _BATCH)
      self.rows[part] = self.turned(unit[part])

  def turned(
    self, unit: Float[np.ndarray, "some d"]
  ) -> Float[np.ndarray, "some leading"]:
    """Returns vectors as `rows` has them."""
    leading = unit @ self._axes
    rest = np.linalg.norm(unit - leading @ self._axes.T, axis=1)
    return np.column_stack([leading, rest])


def multiply(rows: Float[np.ndarray, "rows d"]) -> Product:
  """Returns what multiplies rows by a vector."""
  return functools.partial(np.matmul, rows)


class RowSearch:
  """Finds the rows of the highest cosine with a vector."""

  def __init__(
    self,
    unit: Float[np.ndarray, "rows d"],
    bounds: Bounds | None = None,
    product: Callable[[np.ndarray], Product] = multiply,
  ):
    """Takes unit rows.

    Args:
      unit: the rows.
      bounds: of their cosines; None reads all rows for each query.
      product: returns what multiplies rows by a vector; a server computes the
        products of several requests at once.
    """
    self._unit, self._bounds = unit, bounds
    self._most = len(unit) // _MOST_SHARE
    self.scores = product(unit)  # The product of each row with a vector.
    self._above = None if bounds is None else product(bounds.rows)

  def nearest(
    self,
    query: Float[np.ndarray, " d"],
    k: int,
    hidden: Int[np.ndarray, " hidden"] | None = None,
  ) -> search.Found:
    """Finds what `search.nearest_rows` does."""
    query = search.unit_row(query)
    rows = self.let_through(query, k, hidden)
    if rows is None:
      scores = self.scores(query)
      return search.nearest_scored(self._unit, query, scores, k, hidden)
    some = self._unit[rows]
    found = search.nearest_scored(some, query, some @ query, k)
    return search.Found(rows[found.rows], found.scores)

  def let_through(
    self,
    query: Float[np.ndarray, " d"],
    k: int,
    hidden: Int[np.ndarray, " hidden"] | None = None,
  ) -> Int[np.ndarray, " some"] | None:
    """Returns rows among which the nearest are, in order; None for too many."""
    wanted = k + search.SPARE
    if self._bounds is None or wanted > self._most:
      return None
    above = self._above(self._bounds.turned(query[None])[0])
    if hidden is not None:
      above[hidden] = -np.inf
    first = search.best(above, wanted)
    first = first[above[first] > -np.inf]
    if len(first) <= k:
      return np.sort(first)
    known = self._unit[first] @ query
    least = np.partition(known, len(known) - k)[len(known) - k]
    rows = np.flatnonzero(above >= least - _SLACK)
    return rows if len(rows) <= self._most else None


def bounds_of(unit: Float[np.ndarray, "rows d"]) -> Bounds | None:
  """Returns bounds of rows; None where searching with them is no quicker."""
  count, length = unit.shape
  if count < _FEWEST_ROWS or length < 2 * LEADING:
    return None
  bounds = Bounds(unit)
  tried = RowSearch(unit, bounds)
  queries = unit[:: count // _TRIED][:_TRIED]
  wide = [tried.let_through(one, _TRIED_K) is None for one in queries]
  return None if sum(wide) > _TRIED // 4 else bounds
