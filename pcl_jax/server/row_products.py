"""Products of all rows with vectors, those that wait in one product.

A single product reads all rows for few sums; several at once read them once.
"""

import dataclasses
import threading

from jaxtyping import Float
import numpy as np

MOST_AT_ONCE = 32  # Vectors of one product.
_MOST_SCORES = 1 << 24  # Of one product: 64 MB.


@dataclasses.dataclass(eq=False)
class _Wanted:
  """A vector whose product is wanted, and the product once it is there."""

  vector: Float[np.ndarray, " d"]
  scores: Float[np.ndarray, " rows"] | None = None


class RowProducts:
  """Multiplies rows by vectors for any number of threads at once."""

  def __init__(self, rows: Float[np.ndarray, "rows d"]):
    """Takes the rows."""
    self._rows = rows
    self._waiting: list[_Wanted] = []
    self._guard = threading.Lock()  # Of what waits.
    self._turn = threading.Lock()  # Of the one who computes for all.
    most = _MOST_SCORES // max(len(rows), 1)
    self._at_once = min(max(most, 1), MOST_AT_ONCE)

  def of(self, vector: Float[np.ndarray, " d"]) -> Float[np.ndarray, " rows"]:
    """Returns the product of each row with a vector.

    While one thread computes, others wait; the first of these then computes
    for all that wait.
    """
    mine = _Wanted(vector)
    with self._guard:
      self._waiting.append(mine)
    try:
      while mine.scores is None:
        with self._turn:
          if mine.scores is None:
            self._compute()
    finally:
      with self._guard:  # Where it failed, nobody is to compute it for nobody.
        if mine in self._waiting:
          self._waiting.remove(mine)
    return mine.scores

  def _compute(self) -> None:
    with self._guard:
      some = self._waiting[: self._at_once]
    vectors = [one.vector for one in some]
    if len(some) == 1:
      found = (self._rows @ vectors[0])[None]
    else:
      found = np.stack(vectors) @ self._rows.T
    for one, scores in zip(some, found, strict=True):
      one.scores = scores
    with self._guard:
      self._waiting = [one for one in self._waiting if one.scores is None]
