"""Vectors of a data set's songs that any program made, as a Parquet file.

The file has the columns `id` and `vector`, and a row for each song. Ids are
those of the data set; for an own library, file names of song_ids.json and
absolute paths mean songs as well. Tables of `pcl_jax.embed` are such files.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import os
import pathlib

from jaxtyping import Float, Int
import numpy as np
import pyarrow as pa
import pyarrow.compute

from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import storage
from pcl_jax.data import dataset
from pcl_jax.data.splits import learned_songs
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.library import music_files

COLUMNS = ("id", "vector")
_FORM = "It needs the columns id and vector, and a row for each song."


@dataclasses.dataclass(frozen=True)
class Vectors:
  """The vectors of a data set's songs.

  Attributes:
    path: the file.
    rows: a vector for each song of the data set, finite, float32 [songs, d].
    notes: texts that say what people should know of them.
    learned: the songs that their encoder learned from, where the table is of
      `pcl_jax.embed` and the run is still there; else None.
  """

  path: pathlib.Path
  rows: Float[np.ndarray, "songs d"]
  notes: tuple[str, ...]
  learned: learned_songs.LearnedSongs | None


def _unreadable(path: pathlib.Path, error: Exception) -> errors.InputError:
  return errors.InputError(
    f"{path} cannot be read as a Parquet file "
    f"({str(error).splitlines()[0][:200]}). {_FORM}"
  )


def _read_ids(path: pathlib.Path) -> tuple[list[str], pa.DataType]:
  """Returns the id of each row, and what the column of vectors holds."""
  if not path.is_file():
    raise errors.InputError(f"--embeddings={path} is not a file. {_FORM}")
  try:
    schema = embedding_table.read_schema(path)
    lacking = [name for name in COLUMNS if name not in schema.names]
    if lacking:
      raise errors.InputError(
        f"{path} has no column {' and no column '.join(lacking)}; it has "
        f"{', '.join(schema.names) or 'none'}. {_FORM}"
      )
    wanted = [name for name in ("id", "id_bytes") if name in schema.names]
    table = embedding_table.read_rows(path, wanted)
  except (pa.ArrowException, OSError) as error:
    raise _unreadable(path, error) from error
  if not len(table):
    raise errors.InputError(f"{path} has no rows. {_FORM}")
  return _ids(path, table), schema.field("vector").type


def _ids(path: pathlib.Path, table: pa.Table) -> list[str]:
  column = table.column("id")
  if column.null_count:
    raise errors.InputError(
      f"{path}: {column.null_count} of {len(column)} rows have no id. Give "
      "each row the id of its song."
    )
  if pa.types.is_integer(column.type):
    return list(map(str, column.to_pylist()))
  if not (
    pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
  ):
    raise errors.InputError(
      f"{path}: the column id is {column.type}; it must be whole numbers or "
      "text."
    )
  return embedding_table.names_of(table, "id")


def _check_type(path: pathlib.Path, kind: pa.DataType) -> None:
  lists = (
    pa.types.is_list(kind)
    or pa.types.is_large_list(kind)
    or pa.types.is_fixed_size_list(kind)
  )
  if not lists or not (
    pa.types.is_floating(kind.value_type)
    or pa.types.is_integer(kind.value_type)
  ):
    raise errors.InputError(
      f"{path}: the column vector is {kind}; it must be lists of numbers."
    )


def _vectors(
  path: pathlib.Path, ids: Sequence[str]
) -> Iterator[Float[np.ndarray, "some d"]]:
  """Yields the column of vectors as float32, some rows at a time.

  Those that are no vectors are refused, at the end where numbers are not
  finite.
  """
  size, done, bad = None, 0, []
  for part in embedding_table.column_parts(path, "vector"):
    counts = pyarrow.compute.list_value_length(part)
    lengths = np.asarray(counts.fill_null(0)).astype(np.int64)
    size = lengths[0] if size is None else size
    other = np.flatnonzero((lengths != size) | (lengths == 0))
    if len(other):
      raise errors.InputError(
        f"{path}: the vector of song "
        f"{file_names.shown(ids[done + other[0]])} has {lengths[other[0]]} "
        f"numbers and the first row's has {size}; all must have the same "
        "number of them, and at least one."
      )
    flat = pyarrow.compute.list_flatten(part).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # Then infinite, which is refused.
      rows = np.asarray(flat, np.float32).reshape(len(part), -1)
    bad += (done + np.flatnonzero(~np.isfinite(rows).all(axis=1))).tolist()
    yield rows
    done += len(rows)
  if bad:
    raise errors.InputError(
      f"{path}: {len(bad)} of {len(ids)} vectors have numbers that are "
      "not finite (NaN, or too large), the first that of song "
      f"{file_names.shown(ids[bad[0]])}. Make these vectors again."
    )


def _matrix(
  path: pathlib.Path,
  ids: Sequence[str],
  places: Int[np.ndarray, " songs"],
) -> Float[np.ndarray, "songs d"]:
  """Returns the vectors in the order of the songs; holds them once."""
  song_of = np.full(len(ids), -1)
  song_of[places] = np.arange(len(places))
  found, done = np.empty((len(places), 0), np.float32), 0
  try:
    for rows in _vectors(path, ids):
      if not done:
        found = np.empty((len(places), rows.shape[1]), np.float32)
      songs = song_of[done : done + len(rows)]
      found[songs[songs >= 0]] = rows[songs >= 0]
      done += len(rows)
  except (pa.ArrowException, OSError) as error:
    raise _unreadable(path, error) from error
  return found


def _songs_by_name(data: dataset.DataSet) -> dict[str, int]:
  """Returns the row of each song by its id, and by its paths if it has any."""
  numbers = data.catalogue.song_ids.tolist()
  row_of = {number: row for row, number in enumerate(numbers)}
  found = {}
  index = data.directory / music_files.IDS
  if index.exists():
    content = storage.read_made_json(index)
    for name, number in content["ids"].items():
      if number in row_of:
        found[name] = row_of[number]
        found[os.path.join(content["audio_dir"], name)] = row_of[number]
  return found | {str(number): row for number, row in row_of.items()}


def _places(
  path: pathlib.Path, ids: Sequence[str], data: dataset.DataSet
) -> tuple[Int[np.ndarray, " songs"], int]:
  """Returns the table's row of each song, and how many rows are no songs."""
  row_of = _songs_by_name(data)
  songs = np.array([row_of.get(one, -1) for one in ids])
  numbers, known = data.catalogue.song_ids, np.flatnonzero(songs >= 0)
  if not len(known):
    theirs = file_names.shown(next(iter(row_of)))
    raise errors.InputError(
      f"none of the {len(ids)} ids of {path} is a song of {data.directory} "
      f"(the table has {file_names.shown(ids[0])}, the data set {theirs}). "
      "Give the data set whose songs these are, or its ids."
    )
  counts = np.bincount(songs[known], minlength=len(numbers))
  if (counts > 1).any():
    row = np.argmax(counts > 1)
    raise errors.InputError(
      f"{path}: {int((counts > 1).sum())} songs have several rows, the first "
      f"of them song {numbers[row]} with {counts[row]}. Keep one row for each "
      "song, such as the mean of its vectors."
    )
  if (counts == 0).any():
    raise errors.InputError(
      f"{path} lacks {int((counts == 0).sum())} of the {len(numbers)} songs of "
      f"{data.directory}, the first of them song {numbers[np.argmin(counts)]}. "
      "Embed these too: each song is looked for among all."
    )
  places = np.empty(len(numbers), np.int64)
  places[songs[known]] = known
  return places, len(ids) - len(known)


def _learned(path: pathlib.Path) -> learned_songs.LearnedSongs | None:
  """Returns what the run that made a table of `pcl_jax.embed` learned from."""
  try:
    workdir = embedding_table.read_about(path)["workdir"]
  except (errors.InputError, KeyError):
    return None
  return learned_songs.read(workdir)


def read(path: str | os.PathLike[str], data: dataset.DataSet) -> Vectors:
  """Reads the vectors of a data set's songs.

  Args:
    path: a Parquet file with the columns id and vector.
    data: the data set; rows of other songs are counted and not used.

  Raises:
    InputError: the file is no such table, has no vector or several for a song
      of the data set, or one that is not finite or has another length.
  """
  path = file_names.path(path)
  ids, kind = _read_ids(path)
  places, unused = _places(path, ids, data)
  _check_type(path, kind)
  rows = _matrix(path, ids, places)
  notes = []
  if unused:
    notes.append(
      f"{unused} rows of {path} are no songs of {data.directory} and are not "
      "used."
    )
  if empty := int((~rows.any(axis=1)).sum()):
    notes.append(
      f"{empty} vectors of {path} are all zeros: their cosine with any other "
      "is taken as 0."
    )
  return Vectors(path, rows, tuple(notes), _learned(path))
