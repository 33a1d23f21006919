"""The ids, paths and names of a table's songs, made strings when asked for."""

from collections.abc import Iterator, Sequence
import functools

import pyarrow as pa
from pyarrow import compute

from pcl_jax.common import file_names
from pcl_jax.embedding.tables import embedding_table

NAME = "name"  # The column that is always text.


class Names(Sequence[str]):
  """The exact ids or paths of a table's rows, or names, as they are asked for.

  A million of them take half a second to become strings.
  """

  def __init__(self, rows: pa.Table, column: str):
    """Takes a column of a table, and the bytes of names that are no text."""
    self._rows, self._column = rows, column

  @functools.cached_property
  def _all(self) -> list[str]:
    if self._column == NAME:
      return self._rows.column(self._column).to_pylist()
    return embedding_table.names_of(self._rows, self._column)

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, place):
    if isinstance(place, slice) or "_all" in self.__dict__:
      return self._all[place]
    row = range(len(self))[place]
    return Names(self._rows.slice(row, 1), self._column)._all[0]

  def __iter__(self) -> Iterator[str]:
    return iter(self._all)

  def __eq__(self, other: object) -> bool:
    return isinstance(other, Sequence) and self._all == [*other]

  __hash__ = None

  def find(self, name: str) -> int | None:
    """Returns the first row of a name; None if there is none."""
    exact = f"{self._column}_bytes" not in self._rows.schema.names
    if not exact or not file_names.is_text(name):
      return next((i for i, one in enumerate(self._all) if one == name), None)
    row = compute.index(self._rows.column(self._column), name).as_py()
    return None if row < 0 else row


def find(names: Sequence[str], name: str) -> int | None:
  """Returns the first place of a name; None if there is none."""
  if isinstance(names, Names):
    return names.find(name)
  return names.index(name) if name in names else None
