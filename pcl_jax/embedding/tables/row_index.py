"""What lies beside a table so that searching it begins at once.

TABLE.index holds the unit rows, which are mapped into memory and not computed
again, and, where that was asked for, a graph of neighbours. Their names have a
hash of the table: those of another table are not taken.
"""

from collections.abc import Iterator
import contextlib
import importlib
import os
import pathlib
from typing import Any

from jaxtyping import Float, Int
import numpy as np
import tqdm

from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.embedding.tables import search

SUFFIX = ".index"
_HASH = 16  # Characters.
_ROWS, _GRAPH = ("rows", ".npy"), ("graph", ".usearch")
_BATCH = 1 << 16  # Rows at once.
# Of the graph: neighbours of a node, and nodes that are looked at when one is
# added or looked for.
_NEIGHBOURS, _ADDING, _SEARCHING = 16, 128, 128


def folder_of(table: pathlib.Path) -> pathlib.Path:
  """Returns where the index of a table lies."""
  return table.with_name(table.name + SUFFIX)


def _path(
  file: embedding_table.TableFile, kind: tuple[str, str]
) -> pathlib.Path:
  name, suffix = kind
  return folder_of(file.path) / f"{name}_{file.digest[:_HASH]}{suffix}"


def unit_rows(
  vectors: Float[np.ndarray, "rows d"],
  where: str,
  before: int = 0,
) -> Float[np.ndarray, "rows d"]:
  """Returns vectors of length one, float32; rows of zeros stay.

  Args:
    vectors: of any length.
    where: the file they are from, for the message.
    before: how many rows of that file come before these.

  Raises:
    InputError: a row has values that are not finite.
  """
  out = np.empty(vectors.shape, np.float32)
  for first in range(0, len(vectors), _BATCH):
    part = search.unit(vectors[first : first + _BATCH])
    finite = np.isfinite(part).all(axis=1)
    if not finite.all():
      row = before + first + int(np.argmin(finite))
      raise errors.InputError(
        f"row {row} of {where} has values that are not finite numbers, so "
        "that nothing is near it: embed its songs again with --force."
      )
    out[first : first + _BATCH] = part
  return out


def open_rows(
  file: embedding_table.TableFile,
) -> Float[np.ndarray, "songs d"] | None:
  """Maps the unit rows of a table; None where there are none of it.

  Raises:
    InputError: their file is damaged.
  """
  path = _path(file, _ROWS)
  if not path.exists():
    return None
  try:
    rows = np.load(path, mmap_mode="r", allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    raise _damaged(path, str(error)) from error
  if rows.shape != file.shape or rows.dtype != np.float32:
    raise _damaged(path, f"{rows.dtype} {rows.shape}")
  return np.asarray(rows)  # Without the checks of a memmap at each access.


def _damaged(path: pathlib.Path, reason: str) -> errors.InputError:
  return errors.InputError(
    f"{path} cannot be used ({reason}): delete {path.parent}, or make it again "
    "with python -m pcl_jax.index --force."
  )


@contextlib.contextmanager
def _written(
  file: embedding_table.TableFile, kind: tuple[str, str]
) -> Iterator[pathlib.Path]:
  """Yields a path to write to; then removes what is of other tables."""
  path = _path(file, kind)
  path.parent.mkdir(exist_ok=True)
  with storage.write_aside(path) as partial:
    yield partial
  for other in path.parent.glob(f"{kind[0]}_*{kind[1]}"):
    if other != path:
      other.unlink(missing_ok=True)


def is_stale(
  file: embedding_table.TableFile, kind: tuple[str, str] = _ROWS
) -> bool:
  """Tells whether there is an index, but of another state of the table."""
  there = any(folder_of(file.path).glob(f"{kind[0]}_*{kind[1]}"))
  return there and not _path(file, kind).exists()


def follow(path: pathlib.Path) -> list[str]:
  """Makes the unit rows beside a table again where they are of another state.

  Without unit rows beside it, a table has none made. A graph of neighbours is
  not made again, since that takes long.

  Returns:
    Lines that say what was done, and what is left to do.

  Raises:
    InputError: the table cannot be read, or a row is not finite.
  """
  if not folder_of(path).exists():
    return []
  file, lines = embedding_table.TableFile(path), []
  if is_stale(file):
    lines.append(
      f"{write_rows(file)} was made again for the table as it is now"
    )
  if is_stale(file, _GRAPH):
    lines.append(
      f"the graph in {folder_of(path)} is of the table as it was: "
      f"python -m pcl_jax.index --embeddings={path} --graph makes it again"
    )
  return lines


def write_rows(
  file: embedding_table.TableFile, *, force: bool = False
) -> pathlib.Path | None:
  """Writes the unit rows of a table beside it.

  Returns:
    Their file; None if it is there already and whole.

  Raises:
    InputError: a row is not finite, or the table changes meanwhile.
  """
  path = _path(file, _ROWS)
  if path.exists() and not force:
    return None if open_rows(file) is not None else path
  if not all(file.shape):
    raise errors.InputError(
      f"{file.path} has no songs: an index needs some. Embed songs first."
    )
  about = {"descr": "<f4", "fortran_order": False, "shape": file.shape}
  before = 0
  # Not mapped: a mapped file without room kills the process.
  with _written(file, _ROWS) as partial, open(partial, "wb") as opened:
    np.lib.format.write_array_header_1_0(opened, about)
    for vectors in file.vector_batches():
      unit = unit_rows(vectors, str(file.path), before)
      opened.write(unit.astype("<f4", copy=False))
      before += len(vectors)
  return path


class Graph:
  """A graph of neighbours of the songs that sound; found are nearly the best.

  It is usearch's (HNSW), over half-precision copies of the unit rows.
  """

  def __init__(self, index: Any, unit: Float[np.ndarray, "songs d"]):
    """Takes the graph of unit rows, and these."""
    self._index, self._unit = index, unit

  def nearest(
    self,
    query: Float[np.ndarray, " d"],
    k: int,
    hidden: Int[np.ndarray, " hidden"] | None = None,
  ) -> search.Found:
    """Finds songs of high cosine with a query; most of the k best are there.

    Args:
      query: a vector of any length.
      k: how many.
      hidden: rows that may not be found, a few.
    """
    hidden = np.zeros(0, np.int64) if hidden is None else hidden
    query, wanted = search.unit_row(query), k + len(hidden)
    self._index.expansion_search = max(_SEARCHING, 2 * wanted)
    rows = self._index.search(query, wanted).keys.astype(np.int64)
    rows = rows[~np.isin(rows, hidden)]
    return search.ranked(self._unit, rows, query, k)


def _usearch() -> Any:
  """Imports usearch; raises InputError where it is not installed."""
  try:
    return importlib.import_module("usearch.index")
  except ImportError as error:
    raise errors.InputError(
      "a graph of neighbours needs the package usearch, which the base "
      'install leaves out. Install it with pip install "pcl_jax[index]".'
    ) from error


def _new_graph(length: int) -> Any:
  return _usearch().Index(
    ndim=length,
    metric="ip",
    dtype="f16",
    connectivity=_NEIGHBOURS,
    expansion_add=_ADDING,
    expansion_search=_SEARCHING,
  )


def write_graph(
  file: embedding_table.TableFile,
  unit: Float[np.ndarray, "songs d"],
  sounding: Int[np.ndarray, " rows"],
  *,
  threads: int,
  force: bool = False,
) -> pathlib.Path | None:
  """Writes a graph of neighbours beside a table.

  Args:
    file: the table.
    unit: its unit rows.
    sounding: the rows that may be found.
    threads: how many add rows at once.
    force: makes it again where it is there.

  Returns:
    Its file; None if it is there already.

  Raises:
    InputError: usearch is not installed.
  """
  path = _path(file, _GRAPH)
  if path.exists() and not force:
    return None
  graph = _new_graph(unit.shape[1])
  for first in tqdm.trange(0, len(sounding), _BATCH, disable=None):
    rows = sounding[first : first + _BATCH]
    graph.add(rows.astype(np.uint64), unit[rows], threads=threads)
  with _written(file, _GRAPH) as partial:
    graph.save(os.fspath(partial))
  return path


def open_graph(
  file: embedding_table.TableFile, unit: Float[np.ndarray, "songs d"]
) -> Graph:
  """Maps the graph of a table.

  Raises:
    InputError: there is none of it, it is damaged, or usearch is missing.
  """
  path = _path(file, _GRAPH)
  if not path.exists():
    raise errors.InputError(
      f"{folder_of(file.path)} has no graph of {file.path} as it is now: make "
      f"it with python -m pcl_jax.index --embeddings={file.path} --graph."
    )
  graph = _new_graph(unit.shape[1])
  try:
    graph.view(os.fspath(path))
  except (OSError, RuntimeError, ValueError) as error:
    raise _damaged(path, str(error)) from error
  return Graph(graph, unit)
