"""Embeds songs into a table, in parts, so that an interrupted run goes on.

The songs alone decide where the next part begins, and every part begins a new
batch: a run that was interrupted writes, bit by bit, what one that was not
would have.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import functools
import itertools
import json
import pathlib
import shutil

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import tqdm

from pcl_jax.audio import song_patches
from pcl_jax.common import errors
from pcl_jax.common import locks
from pcl_jax.common import prefetch
from pcl_jax.common import storage
from pcl_jax.embedding import audio_sources
from pcl_jax.embedding import embedding_table

PART_BATCHES = 64  # A part ends with the song that completes them.
PARTS = ".parts"
FAILURES = ".failures.json"
PATCHES_AHEAD = 512  # Of one song: 35 minutes, 13 MB.
_LEAST_AHEAD = 16  # Songs that are read ahead.
_PART_KEY = b"pcl_jax.embeddings.part"


@dataclasses.dataclass
class _Part:
  """What its file says of a part, in json, besides its rows; see `Report`."""

  begin: int  # Number of the first song.
  end: int  # Number after the last song.
  patches: int = 0
  padded: int = 0
  failures: list[dict[str, str]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Report:
  """What a run did.

  Attributes:
    songs: how many were embedded.
    patches: how many patches they have.
    padded: songs shorter than a patch, padded with silence.
    failures: {id, path, reason} of each song that could not be read.
  """

  songs: int
  patches: int
  padded: int
  failures: list[dict[str, str]]


def _read_song(
  source: audio_sources.Source, song: int
) -> tuple[int, Iterator[song_patches.Piece]]:
  """Reads a song; an hours-long one is read on where its pieces are used.

  What goes wrong is raised there, too.
  """
  read, patches = [], 0
  try:
    pieces = source.pieces(song)
    for piece in pieces:
      read.append(piece)
      patches += len(piece.patches)
      if patches >= PATCHES_AHEAD:
        break
  except (errors.InputError, OSError) as error:
    pieces = _raise(error)
  return song, itertools.chain(read, pieces)


def _raise(error: Exception) -> Iterator[song_patches.Piece]:
  raise error
  yield


def _reason(error: Exception) -> str:
  if isinstance(error, OSError):
    return str(error.strerror or error)
  return getattr(error, "reason", str(error))


def _encode_part(
  songs: Iterator[tuple[int, Iterator[song_patches.Piece]]],
  part: _Part,
  source: audio_sources.Source,
  embedder: Callable,
  like: pa.Schema,
  batch_patches: int,
) -> pa.Table:
  """Embeds songs until the part is full, or there are no more; fills it in."""
  padded, failed = set(), set()

  def read_patches() -> Iterator[tuple[int, np.ndarray]]:
    left = PART_BATCHES * batch_patches
    for song, pieces in songs:
      try:
        for piece in pieces:
          left -= len(piece.patches)
          if piece.padded:
            padded.add(song)
          yield song, piece.patches
      except (errors.InputError, OSError) as error:
        failed.add(song)
        about = {"id": source.ids[song], "path": source.paths[song]}
        part.failures.append(about | {"reason": _reason(error)})
      part.end = song + 1
      if left <= 0:
        return

  batches = song_patches.gathered(read_patches(), batch_patches)
  found = list(song_patches.encoded(embedder, batches))
  length = like.field("vector").type.list_size
  nothing = np.zeros(0, np.int64), np.zeros((0, length), np.float32)
  songs_of, vectors = map(np.concatenate, zip(nothing, *found, strict=True))
  kept = ~np.isin(songs_of, list(failed))
  part.patches, part.padded = int(kept.sum()), len(padded - failed)
  song_index, vectors, own = _rows(songs_of[kept], vectors[kept], like)
  columns = {
    "id": [source.ids[song] for song in song_index],
    "path": [source.paths[song] for song in song_index],
    "padded": [song in padded for song in song_index],
  }
  return embedding_table.rows(columns | own, vectors, like)


def _rows(
  song_index: np.ndarray, vectors: np.ndarray, like: pa.Schema
) -> tuple[list[int], np.ndarray, dict[str, np.ndarray]]:
  """Returns the song and the vector of each row, and the column of its kind."""
  songs, first, number = np.unique(
    song_index, return_index=True, return_inverse=True
  )
  if "start_s" in like.names:
    starts_s = (np.arange(len(number)) - first[number]) * song_patches.SECONDS
    return song_index.tolist(), vectors, {"start_s": starts_s}
  means, counts = song_patches.mean_vectors([(number, vectors)], len(songs))
  return songs.tolist(), means, {"patches": counts}


def _path(folder: pathlib.Path, part: _Part) -> pathlib.Path:
  return folder / f"{part.begin:09d}.parquet"


def _finished(folder: pathlib.Path, like: pa.Schema) -> list[_Part]:
  """Returns the parts that are there, without a gap; deletes all other files.

  Those of other songs, settings or another encoder are not used.
  """
  found: list[_Part] = []
  for path in sorted(folder.glob("*.parquet")):
    try:
      metadata = parquet.read_schema(path).metadata
      part = _Part(**json.loads(metadata.pop(_PART_KEY)))
    except (pa.ArrowException, OSError, ValueError, KeyError):
      break  # Damaged: it is made again, and what follows.
    if metadata != like.metadata:
      print(
        f"{folder} is of other songs, settings or another encoder: everything "
        "is embedded again"
      )
      break
    if part.begin != (found[-1].end if found else 0):
      break
    found.append(part)
  for path in {*folder.glob("0*")} - {_path(folder, part) for part in found}:
    path.unlink()
  return found


def _add(folder: pathlib.Path, part: _Part, table: pa.Table) -> None:
  content = json.dumps(dataclasses.asdict(part)).encode()
  metadata = table.schema.metadata | {_PART_KEY: content}
  embedding_table.write(
    _path(folder, part),
    table.schema.with_metadata(metadata),
    [table.replace_schema_metadata()],
  )


def _embed_rest(
  source: audio_sources.Source,
  embedder: Callable,
  like: pa.Schema,
  folder: pathlib.Path,
  *,
  batch_patches: int,
  threads: int,
) -> list[_Part]:
  """Adds the parts that are not there yet; returns all."""
  parts = _finished(folder, like)
  begin = parts[-1].end if parts else 0
  count = len(source.ids)
  songs = prefetch.in_order(
    functools.partial(_read_song, source),
    range(begin, count),
    threads=threads,
    ahead=max(_LEAST_AHEAD, batch_patches // 4),
  )
  shown = iter(
    tqdm.tqdm(songs, "songs", count, initial=begin, unit="song", disable=None)
  )
  with contextlib.closing(songs):
    while begin < count:
      part = _Part(begin, begin)
      table = _encode_part(shown, part, source, embedder, like, batch_patches)
      _add(folder, part, table)
      parts.append(part)
      begin = part.end
  return parts


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

  Interrupted, it goes on after the last part that was finished. It holds a
  part and some songs that are read ahead.

  Args:
    source: the songs.
    embedder: patches [batch_patches, 256, 48] to vectors.
    like: the table's columns and provenance. Finished parts of another
      provenance are not used.
    out: the table; made at the end.
    batch_patches: patches encoded at once.
    threads: songs read at once.

  Raises:
    InputError: another process is making the same table.
    RunError: not one song could be read.
  """
  folder = out.with_name(out.name + PARTS)
  with locks.hold(folder, f"pcl_jax.embed --out={out}"):
    parts = _embed_rest(
      source, embedder, like, folder, batch_patches=batch_patches,
      threads=threads,
    )  # fmt: skip
    failures = [one for part in parts for one in part.failures]
    storage.write_json(failures_path(out), failures)
    songs = len(source.ids) - len(failures)
    if songs:
      tables = (parquet.read_table(_path(folder, part)) for part in parts)
      embedding_table.write(
        out, like, (t.replace_schema_metadata(like.metadata) for t in tables)
      )
    shutil.rmtree(folder)
  if not songs:
    first = failures[0]
    raise errors.RunError(
      f"none of the {len(source.ids)} songs can be read; the first: "
      f"{first['path'] or first['id']}: {first['reason']}. All are in "
      f"{failures_path(out)}."
    )
  patches = sum(part.patches for part in parts)
  padded = sum(part.padded for part in parts)
  return Report(songs, patches, padded, failures)


def failures_path(out: pathlib.Path) -> pathlib.Path:
  """Returns the file that lists the failures, in the table's folder."""
  return out.with_name(out.name + FAILURES)
