"""Embeds songs into a table, in parts, so that an interrupted run goes on.

Where the next part begins follows from the songs alone, and every part begins a
new batch: a run that was interrupted writes, bit by bit, what one that was not
would have.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import dataclasses
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import tqdm

from pcl_jax.audio import song_patches
from pcl_jax.common import errors
from pcl_jax.common import locks
from pcl_jax.common import prefetch
from pcl_jax.embedding import audio_sources
from pcl_jax.embedding import embedding_table

PART_BATCHES = 64  # A part ends with the song that completes them.
PARTS = ".parts"
FAILURES = ".failures.json"
_LEAST_AHEAD = 16  # Songs that are read ahead.
_PLAN = "plan.json"
_PART_KEY = b"pcl_jax.part"


@dataclasses.dataclass
class _Part:
  """What is known of a part beside its rows.

  Attributes:
    begin: number of its first song.
    end: number behind its last song.
    patches: that are embedded in it.
    padded: songs shorter than a patch.
    failures: song -> why it could not be read.
  """

  begin: int
  end: int
  patches: int = 0
  padded: set[int] = dataclasses.field(default_factory=set)
  failures: dict[int, str] = dataclasses.field(default_factory=dict)

  def as_json(self) -> bytes:
    """Returns what `from_json` reads."""
    content = dataclasses.asdict(self) | {"padded": sorted(self.padded)}
    return json.dumps(content).encode()

  @classmethod
  def from_json(cls, content: bytes) -> "_Part":
    """Reads what `as_json` wrote."""
    fields = json.loads(content)
    failures = {int(song): why for song, why in fields["failures"].items()}
    padded = set(fields["padded"])
    return cls(**fields | {"padded": padded, "failures": failures})


@dataclasses.dataclass(frozen=True)
class Report:
  """What a run did.

  Attributes:
    songs: how many were embedded.
    patches: their patches.
    padded: songs shorter than a patch, padded with silence.
    failures: {id, path, reason} of each song that could not be read.
  """

  songs: int
  patches: int
  padded: int
  failures: list[dict[str, str]]


def _reason(error: Exception) -> str:
  if isinstance(error, OSError):
    return str(error.strerror or error)
  return getattr(error, "reason", str(error))


def _pieces_of_part(
  streams: Iterator[tuple[int, Iterable[song_patches.Piece]]],
  part: _Part,
  full: int,
  bar: tqdm.tqdm,
) -> Iterator[tuple[int, np.ndarray]]:
  """Yields patches of songs until there are enough; fills in the part."""
  given = 0
  for song, pieces in streams:
    try:
      for piece in pieces:
        given += len(piece.patches)
        if piece.padded:
          part.padded.add(song)
        yield song, piece.patches
    except (errors.InputError, OSError) as error:
      part.failures[song] = _reason(error)
    part.end = song + 1
    bar.update()
    if given >= full:
      return


class _Means:
  """The mean over the vectors of each song."""

  def __init__(self):
    self._sums: dict[int, np.ndarray] = {}
    self._counts: dict[int, int] = {}

  def add(self, songs: np.ndarray, vectors: np.ndarray) -> None:
    for song, vector in zip(songs.tolist(), vectors, strict=True):
      if song not in self._sums:
        self._sums[song] = np.zeros(len(vector), np.float64)
        self._counts[song] = 0
      self._sums[song] += vector
      self._counts[song] += 1

  def columns(self, songs: list[int]) -> tuple[list[int], np.ndarray, dict]:
    """Returns the song of each row, the vectors, and the own columns."""
    vectors = [self._sums[song] / self._counts[song] for song in songs]
    counts = [self._counts[song] for song in songs]
    return songs, np.array(vectors, np.float32), {"patches": counts}


class _Timeline:
  """All vectors of each song, in order."""

  def __init__(self):
    self._vectors: dict[int, list[np.ndarray]] = {}

  def add(self, songs: np.ndarray, vectors: np.ndarray) -> None:
    for song, vector in zip(songs.tolist(), vectors, strict=True):
      self._vectors.setdefault(song, []).append(vector)

  def columns(self, songs: list[int]) -> tuple[list[int], np.ndarray, dict]:
    """Returns the song of each row, the vectors, and the own columns."""
    owners, starts_s, vectors = [], [], []
    for song in songs:
      found = self._vectors[song]
      owners += [song] * len(found)
      starts_s += [i * song_patches.SECONDS for i in range(len(found))]
      vectors += found
    return owners, np.array(vectors, np.float32), {"start_s": starts_s}


def _encode_part(
  streams: Iterator[tuple[int, Iterable[song_patches.Piece]]],
  begin: int,
  source: audio_sources.Source,
  embedder: Callable,
  like: pa.Schema,
  batch_patches: int,
  bar: tqdm.tqdm,
) -> tuple[_Part, pa.Table]:
  """Embeds songs until a part is full, or there are no more."""
  part = _Part(begin, begin)
  gathered = _Timeline() if "start_s" in like.names else _Means()
  full = PART_BATCHES * batch_patches
  pieces = _pieces_of_part(streams, part, full, bar)
  batches = song_patches.gathered(pieces, batch_patches)
  for songs, vectors in song_patches.encoded(embedder, batches):
    gathered.add(songs, vectors)
  kept = [i for i in range(begin, part.end) if i not in part.failures]
  owners, vectors, columns = gathered.columns(kept)
  part.patches = sum(columns.get("patches", [len(owners)]))
  columns["id"] = [source.ids[song] for song in owners]
  columns["path"] = [source.paths[song] for song in owners]
  columns["padded"] = [song in part.padded for song in owners]
  length = like.field("vector").type.list_size
  return part, embedding_table.rows(columns, vectors.reshape(-1, length), like)


class _Parts:
  """Folder of the parts that are finished."""

  def __init__(self, folder: pathlib.Path, plan: dict[str, Any]):
    """Opens the folder; parts of another plan are deleted, and it says so."""
    self._folder = folder
    self._names: list[pathlib.Path] = []
    path = self._folder / _PLAN
    try:
      then = json.loads(path.read_text()) if path.exists() else None
    except ValueError:
      then = None
    if then != plan:
      if then is not None:
        print(
          f"{self._folder} is of other songs, settings or another encoder: "
          "everything is embedded anew"
        )
      for old in (*self._folder.glob("*.json*"), *self._folder.glob("0*")):
        old.unlink()
      partial = path.with_name(_PLAN + ".partial")
      partial.write_text(json.dumps(plan))
      partial.replace(path)

  def finished(self) -> list[_Part]:
    """Returns the parts that are there, in order and without a gap."""
    found, end = [], 0
    self._names = []
    for path in sorted(self._folder.glob("*.parquet")):
      try:
        metadata = parquet.read_schema(path).metadata
        part = _Part.from_json(metadata[_PART_KEY])
      except (pa.ArrowException, OSError, ValueError, KeyError):
        break  # Damaged: it is made again, and what follows.
      if part.begin != end:
        break
      found.append(part)
      self._names.append(path)
      end = part.end
    return found

  def add(self, part: _Part, table: pa.Table) -> None:
    """Writes a part."""
    metadata = table.schema.metadata | {_PART_KEY: part.as_json()}
    path = self._folder / f"{part.begin:09d}.parquet"
    schema = table.schema.with_metadata(metadata)
    embedding_table.write(path, schema, [table.replace_schema_metadata()])
    self._names.append(path)

  def tables(self, like: pa.Schema) -> Iterator[pa.Table]:
    """Yields the rows of each part."""
    for path in self._names:
      table = parquet.read_table(path)
      yield table.replace_schema_metadata(like.metadata)

  def delete(self) -> None:
    """Deletes the folder."""
    shutil.rmtree(self._folder)


def failures_path(out: pathlib.Path) -> pathlib.Path:
  """Returns where the failures are written: beside the table."""
  return out.with_name(out.name + FAILURES)


def _write_failures(out: pathlib.Path, failures: list[dict[str, str]]) -> None:
  path = failures_path(out)
  partial = path.with_name(path.name + ".partial")
  partial.write_text(json.dumps(failures, indent=2) + "\n")
  partial.replace(path)


def _report(source: audio_sources.Source, parts: list[_Part]) -> Report:
  failures = [
    {"id": source.ids[song], "path": source.paths[song], "reason": why}
    for part in parts
    for song, why in sorted(part.failures.items())
  ]
  return Report(
    songs=sum(part.end - part.begin for part in parts) - len(failures),
    patches=sum(part.patches for part in parts),
    padded=sum(len(part.padded - set(part.failures)) for part in parts),
    failures=failures,
  )


def _embed_rest(
  source: audio_sources.Source,
  embedder: Callable,
  like: pa.Schema,
  parts: _Parts,
  *,
  batch_patches: int,
  threads: int,
) -> list[_Part]:
  """Adds the parts that are not there yet; returns all."""
  done = parts.finished()
  begin = done[-1].end if done else 0
  count = len(source.ids)
  streams = prefetch.streams(
    source.pieces,
    range(begin, count),
    threads=threads,
    ahead=max(_LEAST_AHEAD, batch_patches // 4),
  )
  bar = tqdm.tqdm(
    total=count, initial=begin, desc="songs", unit="song", disable=None
  )
  with bar, contextlib.closing(streams):
    while begin < count:
      part, table = _encode_part(
        streams, begin, source, embedder, like, batch_patches, bar
      )
      parts.add(part, table)
      done.append(part)
      begin = part.end
  return done


def embed_source(
  source: audio_sources.Source,
  embedder: Callable,
  like: pa.Schema,
  out: pathlib.Path,
  *,
  batch_patches: int,
  threads: int,
) -> Report:
  """Embeds all songs of a source into a table.

  Interrupted, it goes on behind the last part that was finished. What is held
  is a part and some songs that are read ahead.

  Args:
    source: of the songs.
    embedder: patches [batch_patches, 256, 48] to vectors.
    like: the table's columns and provenance, on which also depends whether
      parts that are there are used.
    out: the table; made at the end.
    batch_patches: patches encoded at once.
    threads: songs read at once.

  Raises:
    InputError: another process is making the same table.
    RunError: not one song could be read.
  """
  plan = {key.decode(): like.metadata[key].decode() for key in like.metadata}
  folder = out.with_name(out.name + PARTS)
  with locks.hold(folder, f"pcl_jax.embed --out={out}"):
    parts = _Parts(folder, plan)
    done = _embed_rest(
      source,
      embedder,
      like,
      parts,
      batch_patches=batch_patches,
      threads=threads,
    )
    report = _report(source, done)
    _write_failures(out, report.failures)
    if report.songs:
      embedding_table.write(out, like, parts.tables(like))
    parts.delete()
  if not report.songs:
    first = report.failures[0]
    raise errors.RunError(
      f"none of the {len(source.ids)} songs can be read; the first: "
      f"{first['path'] or first['id']}: {first['reason']}. All are in "
      f"{failures_path(out)}."
    )
  return report
