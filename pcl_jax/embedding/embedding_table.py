"""Embeddings on disk: a Parquet file that says which encoder made them.

There is a row for each song or patch. The file's metadata holds, as json, the
provenance of the encoder: embeddings of two encoders have nothing to do with
one another, and are never compared.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
from typing import Any, NamedTuple

from flax import nnx
import jax
from jaxtyping import Float, Int
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import jax_setup
from pcl_jax.common import storage
from pcl_jax.common import versions
from pcl_jax.embedding import search
from pcl_jax.models import audio_encoder

FORMAT_VERSION = 1
_ABOUT_SONGS = ("name", "stamp", "content")
_KEY = b"pcl_jax.embeddings"
_NAMES, _BYTES = ("id", "path"), "_bytes"
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
  if odd_names:
    columns += [(name + _BYTES, pa.binary()) for name in _NAMES]
  content = json.dumps(about, sort_keys=True).encode()
  return pa.schema(columns, metadata={_KEY: content})


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


@dataclasses.dataclass(frozen=True)
class Table:
  """The embeddings of songs."""

  path: pathlib.Path  # The file they were read from.
  ids: list[str]  # The name of each song.
  paths: list[str]  # Of each song's audio; empty where it is not known.
  vectors: Float[np.ndarray, "songs features"]
  patches: Int[np.ndarray, " songs"]  # How many a vector is the mean over.
  about: dict[str, Any]  # The provenance: encoder, layer, songs, versions.
  names: tuple[str, ...] = ()  # Artist and title of each song, if known.
  silent: frozenset[int] = frozenset()  # Rows of songs that are never found.

  @jax_setup.in_own_types
  def nearest(
    self, query: Float[np.ndarray, " features"], k: int, *, without: int = -1
  ) -> search.Found:
    """Finds the k songs nearest to a vector by cosine.

    Args:
      query: a vector of the same encoder and layer, [features].
      k: how many.
      without: the row of a song that may not be found.

    Raises:
      InputError: the query has another length, or there are fewer songs.
    """
    if query.shape != self.vectors.shape[1:]:
      raise errors.InputError(
        f"the query has shape {query.shape}, and a vector of {self.path} has "
        f"{self.vectors.shape[1:]}: embed it with that encoder and layer."
      )
    known = self._sounding([without])
    self.check_k(k, len(known) - (without >= 0))
    places = *np.flatnonzero(known == without), search.NONE
    rows, scores = search.top_k(
      query[None],
      self._vectors(known),
      k,
      excluded=np.array(places[:1], np.int32),
    )
    return search.Found(known[rows[0]], scores[0])

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
    found = search.continue_playlist(
      self._vectors(known), np.searchsorted(known, members), k
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

  def _vectors(
    self, rows: Int[np.ndarray, " rows"]
  ) -> Float[np.ndarray, "rows features"]:
    """Returns the vectors of some rows; of all, without a copy."""
    return self.vectors if len(rows) == len(self.ids) else self.vectors[rows]

  def check_k(self, k: int, others: int) -> None:
    """Raises an InputError where `k` is more than `others`, or below 1."""
    if not 1 <= k <= others:
      raise errors.InputError(
        f"-k is {k}, and {self.path} has {others} songs to find: give 1 to "
        f"{others}."
      )


def read_table(path: str | os.PathLike[str]) -> Table:
  """Reads a table of songs.

  Raises:
    InputError: it cannot be read, is not a table that `embed_files` or
      `python -m pcl_jax.embed` wrote, or has a row for each patch.
  """
  path = file_names.path(path)
  about = read_about(path)
  if about["per_patch"]:
    raise errors.InputError(
      f"{path} has a row for each patch, and songs are asked for: make a table "
      "without --per_patch."
    )
  ids, paths, names, silent = [], [], [], set()
  try:
    with open(path, "rb") as opened, parquet.ParquetFile(opened) as file:
      count = file.metadata.num_rows
      length = file.schema_arrow.field("vector").type.list_size
      vectors = np.empty((count, length), np.float32)
      patches = np.empty(count, np.int32)
      for part in file.iter_batches(batch_size=8192):
        some = slice(len(ids), len(ids) + len(part))
        flat = part.column("vector").flatten()
        vectors[some] = flat.to_numpy().reshape(-1, length)
        patches[some] = part.column("patches").to_numpy()
        if "silent" in part.schema.names:
          flags = part.column("silent").to_numpy(zero_copy_only=False)
          silent |= {*(some.start + np.flatnonzero(flags)).tolist()}
        ids += names_of(part, "id")
        paths += names_of(part, "path")
        if "name" in part.schema.names:
          names += part.column("name").to_pylist()
  except (pa.ArrowException, OSError, KeyError, AttributeError) as error:
    raise _damaged(path, error) from error
  names = tuple(names) if any(names) else ()
  hidden = frozenset(silent)
  return Table(path, ids, paths, vectors, patches, about, names, hidden)


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
