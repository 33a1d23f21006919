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
  # Set when the product is there, or it is this one's turn to compute.
  woken: threading.Event = dataclasses.field(default_factory=threading.Event)


class RowProducts:
  """Multiplies rows by vectors for any number of threads at once."""

  def __init__(self, rows: Float[np.ndarray, "rows d"]):
    """Takes the rows."""
    self._rows = rows
    self._waiting: list[_Wanted] = []
    self._guard = threading.Lock()
    self._busy = False  # Whether a thread computes, or was woken to do so.
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
      others, self._busy = self._busy, True
    if others:
      mine.woken.wait()
    if mine.scores is None:
      try:
        self._compute()
      finally:
        self._pass_on(mine)
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
      one.woken.set()

  def _pass_on(self, mine: _Wanted) -> None:
    """Wakes the first that still waits, which then computes."""
    with self._guard:
      self._waiting = [
        one for one in self._waiting if one.scores is None and one is not mine
      ]
      self._busy = bool(self._waiting)
      if self._busy:
        self._waiting[0].woken.set()
