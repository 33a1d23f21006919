"""Embeddings on disk: a Parquet file that says which encoder made them.

There is a row for each song or patch. The file's metadata holds, as json, the
provenance of the encoder: embeddings of two encoders have nothing to do with
one another, and are never compared.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import hashlib
import itertools
import json
import os
import pathlib
from typing import Any, NamedTuple

from flax import nnx
import jax
from jaxtyping import Float
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import storage
from pcl_jax.common import versions
from pcl_jax.library import song_labels
from pcl_jax.models import audio_encoder

FORMAT_VERSION = 1
_ABOUT_SONGS = ("name", "stamp", "content")
# What is known of a song besides its audio: of tables of songs only.
FACTS = {
  "artists": pa.list_(pa.string()),
  "album": pa.string(),
  "album_id": pa.string(),
  "genres": pa.list_(pa.string()),
  "seconds": pa.float64(),
}
_KEY = b"pcl_jax.embeddings"
_NAMES, _BYTES = ("id", "path"), "_bytes"
_ROWS_AT_ONCE, _BUFFER_BYTES = 8192, 1 << 20
_VERSIONS_OF = ("jax", "flax", "numpy", "av", "soxr", "pyarrow")


def weights_digest(encoder: audio_encoder.AudioEncoder) -> str:
  """Returns the SHA-256 of an encoder's weights and statistics.

  Two encoders of one digest give the same embeddings, up to rounding.
  """
  _, params, stats = nnx.split(encoder, nnx.Param, nnx.BatchStat)
  digest = hashlib.sha256()
  for tree in (params, stats):
    leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(tree))
    for name, leaf in leaves:
      array = np.ascontiguousarray(leaf)
      digest.update(
        f"{jax.tree_util.keystr(name)} {array.dtype} {array.shape}\n".encode()
      )
      digest.update(array.tobytes())
  return digest.hexdigest()


def provenance(
  encoder: audio_encoder.AudioEncoder,
  meta: dict[str, Any],
  workdir: str | os.PathLike[str],
) -> dict[str, Any]:
  """Returns what a table says of a run's encoder, in plain values for json.

  `meta` is what its checkpoint says about itself.
  """
  return {
    "format_version": FORMAT_VERSION,
    "weights_sha256": weights_digest(encoder),
    "workdir": os.path.abspath(workdir),
    "step": meta["progress"]["step"],
    "strategy": meta["strategy"],
    "architecture": meta["architecture"]["audio"],
    "feature": meta["feature"],
    "versions": versions.installed(*_VERSIONS_OF),
    "device": jax.devices()[0].device_kind,
  }


def name_columns(columns: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the columns id and path as Parquet holds them, in UTF-8.

  Where a name is no text, id_bytes and path_bytes have all such names as they
  are; they are left out where every name is text.
  """
  texts, contents = {}, {}
  for name in _NAMES:
    pairs = list(map(file_names.to_text, columns[name]))
    texts[name] = [text for text, _ in pairs]
    raw = [content for _, content in pairs]
    contents[name + _BYTES] = pa.array(raw, pa.binary())
  odd = any(one.null_count < len(one) for one in contents.values())
  return texts | (contents if odd else {})


def names_of(rows: pa.Table | pa.RecordBatch, column: str) -> list[str]:
  """Returns the exact ids or paths of rows; see `name_columns`."""
  contents: Iterable[bytes | None] = itertools.repeat(None)
  if column + _BYTES in rows.schema.names:
    contents = rows.column(column + _BYTES).to_pylist()
  texts = rows.column(column).to_pylist()
  return list(map(file_names.from_text, texts, contents))


def schema(
  length: int,
  about: dict[str, Any],
  *,
  per_patch: bool = False,
  odd_names: bool = False,
) -> pa.Schema:
  """Returns the columns of a table of songs or patches, with its provenance.

  With `odd_names` there are the columns of names that are no text.
  """
  vector = pa.list_(pa.float32(), length)
  columns = [("id", pa.string()), ("path", pa.string())]
  if per_patch:
    columns += [("start_s", pa.float64()), ("vector", vector)]
  else:
    columns += [("vector", vector), ("patches", pa.int32())]
  columns += [("padded", pa.bool_()), ("silent", pa.bool_())]
  columns += [(name, pa.string()) for name in _ABOUT_SONGS]
  columns += [] if per_patch else list(FACTS.items())
  if odd_names:
    columns += [(name + _BYTES, pa.binary()) for name in _NAMES]
  content = json.dumps(about, sort_keys=True).encode()
  return pa.schema(columns, metadata={_KEY: content})


def label_columns(labels: Sequence[song_labels.Labels]) -> dict[str, list]:
  """Returns the columns that songs' labels fill."""
  fields = song_labels.Labels._fields
  return {name: [getattr(one, name) for one in labels] for name in fields}


def has_labels(path: pathlib.Path) -> bool:
  """Tells whether a table says what it can of its songs.

  Tables of songs that were made by earlier versions do not.
  """
  names = read_schema(path).names
  return "start_s" in names or {*FACTS} <= {*names}


def rows(
  columns: dict[str, Any],
  vectors: Float[np.ndarray, "rows features"],
  like: pa.Schema,
) -> pa.Table:
  """Returns rows of a table from the vectors and all other columns."""
  values = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
  lists = pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])
  unknown = dict.fromkeys(_ABOUT_SONGS, [""] * len(vectors))
  unknown["silent"] = [False] * len(vectors)
  unknown |= {n + _BYTES: pa.nulls(len(vectors), pa.binary()) for n in _NAMES}
  unknown |= {name: pa.nulls(len(vectors), FACTS[name]) for name in FACTS}
  made = unknown | columns | name_columns(columns) | {"vector": lists}
  return pa.table({name: made[name] for name in like.names}, schema=like)


def write(path: pathlib.Path, like: pa.Schema, parts: Iterable[pa.Table]):
  """Writes a table, some rows at a time."""
  # Vectors have no repeated values: looking for them would only take time.
  with (
    storage.write_aside(path) as partial,
    open(partial, "wb") as file,  # Whose name pyarrow wants to be UTF-8.
    parquet.ParquetWriter(
      file, like, compression="zstd", use_dictionary=["path"]
    ) as writer,
  ):
    for part in parts:
      writer.write_table(part)


def read_schema(path: pathlib.Path) -> pa.Schema:
  """Reads the columns and the metadata of a Parquet file of any name."""
  with open(path, "rb") as file:
    return parquet.read_schema(file)


def read_rows(
  path: pathlib.Path, columns: Sequence[str] | None = None
) -> pa.Table:
  """Reads a Parquet file of any name, or some columns of it."""
  with open(path, "rb") as file:
    return parquet.read_table(file, columns=columns)


def column_parts(path: pathlib.Path, column: str) -> Iterator[pa.Array]:
  """Yields a column of a Parquet file of any name, some rows at a time."""
  # Streamed, since a file may be a single group of rows.
  how = {"pre_buffer": False, "buffer_size": _BUFFER_BYTES}
  with open(path, "rb") as opened, parquet.ParquetFile(opened, **how) as file:
    for part in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[column]):
      yield part.column(column)


def read_groups(path: pathlib.Path) -> Iterator[pa.Table]:
  """Yields the rows of a Parquet file, some at a time, without metadata."""
  with open(path, "rb") as opened, parquet.ParquetFile(opened) as file:
    for number in range(file.num_row_groups):
      yield file.read_row_group(number).replace_schema_metadata()


def _damaged(path: pathlib.Path, error: Exception) -> errors.InputError:
  reason = str(error).splitlines()[0][:200]
  return errors.InputError(
    f"{path} cannot be read as a Parquet file ({reason}): give a file that "
    "python -m pcl_jax.embed wrote, or make it again."
  )


def read_about(path: pathlib.Path) -> dict[str, Any]:
  """Returns the provenance of a table; raises InputError if it is none."""
  if not path.is_file():
    raise errors.InputError(
      f"{path} is not a file: give a table that python -m pcl_jax.embed wrote."
    )
  try:
    metadata = read_schema(path).metadata or {}
    content = metadata.get(_KEY)
    about = None if content is None else dict(json.loads(content))
  except (pa.ArrowException, OSError, ValueError, TypeError) as error:
    raise _damaged(path, error) from error
  if about is None:
    raise errors.InputError(
      f"{path} is a Parquet file, but not of embeddings with a known encoder "
      f"(no {_KEY.decode()!r} in its metadata): give one that "
      "python -m pcl_jax.embed wrote."
    )
  if about.get("format_version") != FORMAT_VERSION:
    raise errors.InputError(
      f"{path} has format version {about.get('format_version')!r}, this "
      f"version of pcl_jax reads {FORMAT_VERSION}: make the table again."
    )
  return about


def about_of(like: pa.Schema) -> dict[str, Any]:
  """Returns the provenance that `schema` was given."""
  return json.loads(like.metadata[_KEY])


class TableFile:
  """A table of songs on disk, whose vectors are read apart from the rest."""

  def __init__(self, path: pathlib.Path):
    """Reads the provenance, and what changes when the file does.

    Raises:
      InputError: it is no table, or has a row for each patch.
    """
    self.path, self.about = path, read_about(path)
    if self.about["per_patch"]:
      raise errors.InputError(
        f"{path} has a row for each patch, and songs are asked for: make a "
        "table without --per_patch."
      )
    try:
      self.digest = footer_digest(path)
      with open(path, "rb") as opened, parquet.ParquetFile(opened) as file:
        self.names = file.schema_arrow.names
        length = file.schema_arrow.field("vector").type.list_size
        self.shape = file.metadata.num_rows, length
    except (pa.ArrowException, OSError, KeyError, AttributeError) as error:
      raise _damaged(path, error) from error

  def _check(self) -> None:
    if footer_digest(self.path) != self.digest:
      raise errors.InputError(
        f"{self.path} was changed after it was read: read the table again."
      )

  def read_columns(self, wanted: Sequence[str]) -> pa.Table:
    """Reads those of some columns that there are.

    Raises:
      InputError: the file is no longer the one that was opened.
    """
    try:
      self._check()
      return read_rows(self.path, [one for one in wanted if one in self.names])
    except (pa.ArrowException, OSError) as error:
      raise _damaged(self.path, error) from error

  def vector_batches(self) -> Iterator[Float[np.ndarray, "_ features"]]:
    """Yields the vectors, some rows at a time.

    Raises:
      InputError: the file is no longer the one that was opened.
    """
    try:
      self._check()
      for part in column_parts(self.path, "vector"):
        yield part.flatten().to_numpy().reshape(-1, self.shape[1])
    except (pa.ArrowException, OSError) as error:
      raise _damaged(self.path, error) from error

  def read_vectors(self) -> Float[np.ndarray, "songs features"]:
    """Reads all vectors; raises InputError as `vector_batches` does."""
    vectors, done = np.empty(self.shape, np.float32), 0
    for rows in self.vector_batches():
      vectors[done : done + len(rows)] = rows
      done += len(rows)
    return vectors


def footer_digest(path: pathlib.Path) -> str:
  """Returns a hash of what a Parquet file says at its end about all columns.

  It has the provenance, and where each column lies with its least and greatest
  value: two tables that differ have two digests.
  """
  with open(path, "rb") as file:
    file.seek(-8, os.SEEK_END)
    length = int.from_bytes(file.read(4), "little")
    size = file.seek(0, os.SEEK_END)
    file.seek(-min(length + 8, size), os.SEEK_END)
    return hashlib.sha256(b"%d " % size + file.read()).hexdigest()


def count_songs(path: pathlib.Path) -> int:
  """Returns how many songs there are in a table of songs or patches."""
  return len(read_rows(path, ["id"])["id"].unique())


class Song(NamedTuple):
  """What a table's songs are known by; see `audio_sources.Source`."""

  stamp: str
  content: str


def read_songs(path: pathlib.Path) -> dict[str, Song]:
  """Returns what the songs of a table are known by, by their ids.

  A table of an earlier version does not say so, and has none.

  Raises:
    InputError: it cannot be read.
  """
  try:
    there = read_schema(path).names
    if not {*Song._fields, "silent"} <= set(there):
      return {}
    wanted = ("id", "id" + _BYTES, *Song._fields)
    table = read_rows(path, [name for name in wanted if name in there])
  except (pa.ArrowException, OSError) as error:
    raise _damaged(path, error) from error
  known = (table[name].to_pylist() for name in Song._fields)
  songs = map(Song, *known)
  return dict(zip(names_of(table, "id"), songs, strict=True))


def check_same_encoder(
  ours: dict[str, Any], ours_from: str, theirs: dict[str, Any], theirs_from: str
) -> None:
  """Raises InputError if two provenances, read somewhere, differ in weights."""
  if ours["weights_sha256"] == theirs["weights_sha256"]:
    return
  raise errors.InputError(
    "embeddings of two different encoders cannot be compared: "
    + " and ".join(
      f"{name} is of step {about['step']} of {about['workdir']} "
      f"(weights {about['weights_sha256'][:12]})"
      for name, about in ((ours_from, ours), (theirs_from, theirs))
    )
    + ". Embed both with the same encoder."
  )
