"""The embeddings of songs, as they are searched."""

from collections.abc import Sequence
import dataclasses
import functools
import os
import pathlib
from typing import Any

from jaxtyping import Float, Int
import numpy as np
from pyarrow import compute

from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import jax_setup
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.embedding.tables import search
from pcl_jax.embedding.tables import song_facts
from pcl_jax.embedding.tables import table_names
from pcl_jax.embedding.tables import vector_rows

# What is read at once; the rest when it is asked for.
_COLUMNS = ("id", "path", "id_bytes", "path_bytes", "name", "silent")


@dataclasses.dataclass(frozen=True)
class Table:
  """The embeddings of songs."""

  path: pathlib.Path  # The file they were read from.
  ids: Sequence[str]  # The name of each song.
  paths: Sequence[str]  # Of each song's audio; empty where it is not known.
  rows: vector_rows.VectorRows
  facts: song_facts.SongFacts  # Artists, album, genres, length of each song.
  about: dict[str, Any]  # The provenance: encoder, layer, songs, versions.
  names: Sequence[str] = ()  # Artist and title of each song, if known.
  silent: frozenset[int] = frozenset()  # Rows of songs that are never found.

  @property
  def vectors(self) -> Float[np.ndarray, "songs features"]:
    """The vector of each song, read when it is first asked for."""
    return self.rows.vectors

  @functools.cached_property
  def silent_rows(self) -> Int[np.ndarray, " silent"]:
    """The rows of songs that are never found."""
    return np.array(sorted(self.silent), np.int64)

  @property
  def patches(self) -> Int[np.ndarray, " songs"]:
    """How many patches each vector is the mean over."""
    return self.facts.patches

  @jax_setup.in_own_types
  def nearest(
    self,
    query: Float[np.ndarray, " features"],
    k: int,
    *,
    without: int = -1,
    approximate: bool = False,
  ) -> search.Found:
    """Finds the k songs nearest to a vector by cosine.

    Args:
      query: a vector of the same encoder and layer, [features].
      k: how many.
      without: the row of a song that may not be found.
      approximate: takes the graph of neighbours that python -m pcl_jax.index
        --graph made: quicker where there are very many songs, and a few of the
        best are missed.

    Raises:
      InputError: the query has another length, there are fewer songs, or there
        is no graph.
    """
    self.check_query(query)
    hidden = {*self.silent, without} - {search.NONE}
    self.check_k(k, len(self.ids) - len(hidden))
    if approximate:
      few = [without] if without >= 0 else []
      return self.rows.graph.nearest(query, k, np.array(few, np.int64))
    return self.rows.search.nearest(
      query, k, np.array(sorted(hidden), np.int64)
    )

  @jax_setup.in_own_types
  def continue_playlist(
    self, members: Sequence[int] | Int[np.ndarray, " members"], k: int
  ) -> search.Found:
    """Finds the songs that go best with a playlist, by the paper's rule.

    Args:
      members: rows of the playlist's songs, all different.
      k: how many; fewer are found where the songs' lists hold fewer.

    Raises:
      InputError: fewer than `k` songs are not members.
    """
    members = np.asarray(members)
    known = self._sounding(members)
    self.check_k(k, len(known) - len(members))
    unit = self.rows.unit
    found = search.continue_playlist(
      unit if len(known) == len(unit) else unit[known],
      np.searchsorted(known, members),
      k,
    )
    return dataclasses.replace(found, rows=known[found.rows])

  def _sounding(
    self, members: Sequence[int] | Int[np.ndarray, " members"]
  ) -> Int[np.ndarray, " rows"]:
    """Returns the rows of songs that are not silent, and of some that are."""
    kept = np.ones(len(self.ids), bool)
    kept[list(self.silent)] = False
    kept[[row for row in members if row >= 0]] = True
    return np.flatnonzero(kept)

  def check_query(self, query: Float[np.ndarray, " features"]) -> None:
    """Raises an InputError where a query cannot be compared with the songs."""
    if query.shape != self.rows.shape[1:]:
      raise errors.InputError(
        f"the query has shape {query.shape}, and a vector of {self.path} has "
        f"{self.rows.shape[1:]}: embed it with that encoder and layer."
      )
    if not np.isfinite(query).all():
      raise errors.InputError(
        "the query has values that are not finite numbers, so that nothing is "
        "near it: embed it again."
      )

  def check_k(self, k: int, others: int) -> None:
    """Raises an InputError where `k` is more than `others`, or below 1."""
    if not others:
      raise errors.InputError(
        f"{self.path} has no other songs to find: embed more."
      )
    if not 1 <= k <= others:
      raise errors.InputError(
        f"-k is {k}, and {self.path} has {others} songs to find: give 1 to "
        f"{others}."
      )


def read_table(path: str | os.PathLike[str]) -> Table:
  """Reads a table of songs; their vectors are read when they are asked for.

  Raises:
    InputError: it cannot be read, is not a table that `embed_files` or
      `python -m pcl_jax.embed` wrote, or has a row for each patch.
  """
  path = file_names.path(path)
  file = embedding_table.TableFile(path)
  columns = file.read_columns(_COLUMNS)
  there, silent, named = columns.schema.names, (), False
  if "silent" in there:
    silent = np.flatnonzero(columns["silent"].to_numpy()).tolist()
  if "name" in there:
    named = compute.any(compute.not_equal(columns["name"], "")).as_py()
  ids, paths, names = (
    table_names.Names(columns, one) for one in ("id", "path", "name")
  )
  return Table(
    path,
    ids,
    paths,
    vector_rows.VectorRows(file=file),
    song_facts.SongFacts(file),
    file.about,
    names if named else (),
    frozenset(silent),
  )
