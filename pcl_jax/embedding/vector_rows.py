"""The vectors of a table, read when they are asked for."""

import functools
import pathlib

from jaxtyping import Float
import numpy as np

from pcl_jax.common import errors
from pcl_jax.embedding import embedding_table
from pcl_jax.embedding import search

_ROWS = 1 << 16  # Rows that are made unit rows at once.


def unit_rows(
  vectors: Float[np.ndarray, "rows d"],
  where: str,
  out: Float[np.ndarray, "rows d"] | None = None,
) -> Float[np.ndarray, "rows d"]:
  """Returns vectors of length one, float32; rows of zeros stay.

  Args:
    vectors: of any length.
    where: the file they are from, for the message.
    out: where to write the rows.

  Raises:
    InputError: a row has values that are not finite.
  """
  if out is None:
    out = np.empty(vectors.shape, np.float32)
  for first in range(0, len(vectors), _ROWS):
    part = search.unit(vectors[first : first + _ROWS])
    finite = np.isfinite(part).all(axis=1)
    if not finite.all():
      raise errors.InputError(
        f"row {first + int(np.argmin(finite))} of {where} has values that are "
        "not finite numbers, so that nothing is near it: embed its songs "
        "again with --force."
      )
    out[first : first + _ROWS] = part
  return out


class VectorRows:
  """Vectors of songs, and the same with length one."""

  def __init__(
    self,
    vectors: Float[np.ndarray, "songs d"] | None = None,
    *,
    file: embedding_table.TableFile | None = None,
  ):
    """Takes vectors, or the file of a table to read them from."""
    self._vectors, self._file = vectors, file

  @property
  def shape(self) -> tuple[int, int]:
    """Songs and length of a vector; nothing is read."""
    return self._file.shape if self._file else self._vectors.shape

  @functools.cached_property
  def vectors(self) -> Float[np.ndarray, "songs d"]:
    """The vectors as they were embedded.

    Raises:
      InputError: the file has changed since it was opened.
    """
    return self._file.read_vectors() if self._file else self._vectors

  @functools.cached_property
  def unit(self) -> Float[np.ndarray, "songs d"]:
    """The vectors with length one; of an index beside the table, mapped.

    Raises:
      InputError: a row is not finite, or the file has changed.
    """
    where = str(self._file.path if self._file else pathlib.Path("the vectors"))
    return unit_rows(self.vectors, where)
