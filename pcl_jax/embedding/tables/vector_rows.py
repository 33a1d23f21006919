"""The vectors of a table, read when they are asked for."""

from collections.abc import Callable
import functools

from jaxtyping import Float
import numpy as np

from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.embedding.tables import row_index
from pcl_jax.embedding.tables import row_search


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
    kept = row_index.open_rows(self._file) if self._file else None
    if kept is not None:
      return kept
    if self._file and row_index.is_stale(self._file):
      console.warn(
        f"{row_index.folder_of(self._file.path)} is of another state of the "
        "table, and not used: python -m pcl_jax.index "
        f"--embeddings={self._file.path} makes it again"
      )
    where = str(self._file.path) if self._file else "the vectors"
    return row_index.unit_rows(self.vectors, where)

  @functools.cached_property
  def search(self) -> row_search.RowSearch:
    """Finds the nearest rows; raises what `unit` does."""
    return row_search.RowSearch(self.unit)

  def prepare(
    self,
    product: Callable[[np.ndarray], row_search.Product] = row_search.multiply,
  ) -> None:
    """Makes searches quicker; takes as long as some thirty.

    Args:
      product: as `RowSearch` takes it.
    """
    bounds = row_search.bounds_of(self.unit)
    self.search = row_search.RowSearch(self.unit, bounds, product)

  @functools.cached_property
  def graph(self) -> row_index.Graph:
    """A graph of neighbours, mapped.

    Raises:
      InputError: there is none beside the table, or usearch is missing.
    """
    if self._file is None:
      raise errors.InputError(
        "vectors that are not of a file have no graph of neighbours: search "
        "them exactly."
      )
    return row_index.open_graph(self._file, self.unit)
