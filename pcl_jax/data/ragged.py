"""Lists of integers of different lengths, as two arrays."""

from collections.abc import Sequence
import dataclasses

from jaxtyping import Bool, Int
import numpy as np


@dataclasses.dataclass(frozen=True)
class Ragged:
  """Lists laid end to end; list i is values[offsets[i]:offsets[i + 1]]."""

  values: Int[np.ndarray, " total"]
  offsets: Int[np.ndarray, " ends"]

  @classmethod
  def from_lengths(
    cls, values: Int[np.ndarray, " total"], lengths: Int[np.ndarray, " lists"]
  ) -> "Ragged":
    """Cuts values into lists of the given lengths."""
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return cls(values, offsets)

  @classmethod
  def from_lists(cls, lists: Sequence[Sequence[int]]) -> "Ragged":
    """Lays lists end to end."""
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    values = [value for one in lists for value in one]
    return cls.from_lengths(np.array(values, np.int32), lengths)

  @classmethod
  def from_pairs(
    cls,
    index: Int[np.ndarray, " total"],
    values: Int[np.ndarray, " total"],
    size: int,
  ) -> "Ragged":
    """Gathers `size` lists from values and the ascending list of each."""
    lengths = np.bincount(index, minlength=size)
    return cls.from_lengths(values.astype(np.int32), lengths)

  def __len__(self) -> int:
    return len(self.offsets) - 1

  def __getitem__(self, i: int) -> Int[np.ndarray, " n"]:
    return self.values[self.offsets[i] : self.offsets[i + 1]]

  @property
  def lengths(self) -> Int[np.ndarray, " lists"]:
    """The length of each list."""
    return np.diff(self.offsets)

  def list_index(self) -> Int[np.ndarray, " total"]:
    """Returns the number of the list that each value stands in."""
    return np.repeat(np.arange(len(self), dtype=np.int32), self.lengths)

  def places(self) -> Int[np.ndarray, " total"]:
    """Returns the place of each value in its list, from 0."""
    return np.arange(len(self.values)) - np.repeat(
      self.offsets[:-1], self.lengths
    )

  def keep(self, kept: Bool[np.ndarray, " total"]) -> "Ragged":
    """Keeps some values; a list that loses all of them stays, empty."""
    lengths = np.bincount(self.list_index()[kept], minlength=len(self))
    return Ragged.from_lengths(self.values[kept], lengths)

  def select(self, lists: Int[np.ndarray, " selected"]) -> "Ragged":
    """Returns the lists of these numbers, in the given order."""
    # Not `lengths`, which are of all lists.
    lengths = self.offsets[lists + 1] - self.offsets[lists]
    chosen = Ragged.from_lengths(self.values[:0], lengths)
    moved = np.repeat(self.offsets[lists] - chosen.offsets[:-1], chosen.lengths)
    return Ragged(self.values[moved + np.arange(len(moved))], chosen.offsets)

  def transposed(self, size: int = 0) -> "Ragged":
    """Swaps lists and values: list v holds the lists in which v stands.

    There are as many lists as the values ask for, and at least `size`.
    """
    order = np.argsort(self.values, kind="stable")
    lengths = np.bincount(self.values, minlength=size)
    return Ragged.from_lengths(self.list_index()[order], lengths)
