"""Embeds songs into a table, in parts, so that an interrupted run goes on.

The songs alone decide where the next part begins, and every part begins a new
batch: a run that was interrupted writes, bit by bit, what one that was not
would have.
"""

from collections.abc import Callable, Iterator
import contextlib
import functools
import itertools
import json
import pathlib
import shutil
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import tqdm

from pcl_jax.audio import melspectrogram
from pcl_jax.audio import song_patches
from pcl_jax.common import errors
from pcl_jax.common import locks
from pcl_jax.common import prefetch
from pcl_jax.common import storage
from pcl_jax.embedding import audio_sources
from pcl_jax.embedding import table_update
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.library import song_labels

PART_BATCHES = 64  # A part ends with the song that completes them.
PARTS = ".parts"
FAILURES = ".failures.json"
PATCHES_AHEAD = 512  # Of one song: 35 minutes, 13 MB.
_KNOWN = "known.parquet"  # What was embedded before the songs changed.
_LEAST_AHEAD = 16  # Songs that are read ahead.
_TODO = b"pcl_jax.embeddings.todo"  # Digest of the songs an update embeds.
# What a part's file says in addition: the number after its last song, and the
# songs that could not be read.
_END, _FAILED = b"pcl_jax.embeddings.end", b"pcl_jax.embeddings.failed"


class Report(NamedTuple):
  """What a run did."""

  songs: int  # How many were embedded.
  patches: int
  padded: int  # Songs shorter than a patch, padded with silence.
  silent: int  # Songs whose feature is that of silence.
  failures: list[dict[str, str]]  # id, path and reason of each.
  kept: int = 0  # Songs that were in the table, and stay as they were.
  gone: int = 0  # Songs that were in the table, and are no longer there.
  damaged: int = 0  # Songs used though a little of them is missing; warned of.
  missing_shards: tuple[int, ...] = ()  # All others are counted above then.
  written: bool = True  # Else the table was this one already.


def failures_path(out: pathlib.Path) -> pathlib.Path:
  """Returns the file that lists the failures, in the table's folder."""
  return out.with_name(out.name + FAILURES)


class _Song(NamedTuple):
  """A song as a thread has read it."""

  number: int
  content: str
  labels: song_labels.Labels
  pieces: Iterator[song_patches.Piece]


def _read_song(source: audio_sources.Source, song: int) -> _Song:
  """Reads a song; an hours-long one is read on where its pieces are used."""
  read, patches, content = [], 0, ""
  try:
    pieces = source.pieces(song)
    for piece in pieces:
      read.append(piece)
      patches += len(piece.patches)
      if patches >= PATCHES_AHEAD:
        break
    content = source.content(song)
  except (errors.InputError, OSError) as error:
    pieces = _raise(error)  # There, too.
  pieces = itertools.chain(read, pieces)
  return _Song(song, content, source.labels(song), pieces)


def _raise(error: Exception) -> Iterator[song_patches.Piece]:
  raise error
  yield


def _reason(error: Exception) -> str:
  if isinstance(error, OSError):
    return str(error.strerror or error)
  return getattr(error, "reason", str(error))


def _encode_part(
  songs: Iterator[_Song],
  source: audio_sources.Source,
  embedder: Callable,
  like: pa.Schema,
  batch_patches: int,
) -> pa.Table:
  """Embeds songs until a part is full, or there are no more."""
  padded, sounding, failed, end = set(), set(), {}, 0
  contents, labels = {}, {}

  def read_patches() -> Iterator[tuple[int, np.ndarray]]:
    nonlocal end
    left = PART_BATCHES * batch_patches
    for song, contents[song], labels[song], pieces in songs:
      end = song + 1
      try:
        for piece in pieces:
          left -= len(piece.patches)
          if piece.padded:
            padded.add(song)
          if song not in sounding and not melspectrogram.is_silent(
            piece.patches
          ):
            sounding.add(song)
          yield song, piece.patches
      except (errors.InputError, OSError) as error:
        about = {"id": source.ids[song], "path": source.paths[song]}
        failed[song] = about | {"reason": _reason(error)}
      if left <= 0:
        return

  batches = song_patches.gathered(read_patches(), batch_patches)
  found = list(song_patches.encoded(embedder, batches))
  length = like.field("vector").type.list_size
  nothing = np.zeros(0, np.int64), np.zeros((0, length), np.float32)
  songs_of, vectors = map(np.concatenate, zip(nothing, *found, strict=True))
  kept = ~np.isin(songs_of, list(failed))
  song_index, vectors, own = _rows(songs_of[kept], vectors[kept], like)
  columns = source.columns(song_index) | {
    "padded": [song in padded for song in song_index],
    "silent": [song not in sounding for song in song_index],
    "content": [contents[song] for song in song_index],
    "seconds": [source.seconds(song) for song in song_index],
  }
  columns |= embedding_table.label_columns([labels[one] for one in song_index])
  table = embedding_table.rows(columns | own, vectors, like)
  part = {_END: str(end), _FAILED: json.dumps(list(failed.values()))}
  return table.replace_schema_metadata(like.metadata | part)


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


def _path(folder: pathlib.Path, begin: int) -> pathlib.Path:
  return folder / f"{begin:09d}.parquet"


def _end_of(path: pathlib.Path, like: pa.Schema) -> int | None:
  """Returns the number after a part's last song.

  It is 0 where there is no such part, or it is damaged: what follows is made
  again, too. It is None where the part is of others.
  """
  try:
    found = embedding_table.read_schema(path)
    metadata = found.metadata
    end, _ = int(metadata.pop(_END)), metadata.pop(_FAILED)
  except (pa.ArrowException, OSError, ValueError, KeyError):
    return 0
  is_same = metadata == like.metadata and found.names == like.names
  return end if is_same else None


def _todo(
  source: audio_sources.Source,
  like: pa.Schema,
  update: table_update.Update | None,
) -> tuple[audio_sources.Source, pa.Schema]:
  """Returns the songs to embed, and the schema of their parts."""
  if not update:
    return source, like
  todo = source.select(update.todo)
  return todo, like.with_metadata({**like.metadata, _TODO: todo.digest})


def _take_over(
  source: audio_sources.Source,
  like: pa.Schema,
  folder: pathlib.Path,
  out: pathlib.Path,
  update: table_update.Update | None,
  threads: int,
) -> tuple[pathlib.Path, table_update.Update | None]:
  """Returns the table that songs are kept of, and which these are.

  Parts that were finished before the songs changed become such a table, with
  the one that was to be brought up to date, if any.
  """
  known = folder / _KNOWN
  if out.exists() and not update:  # It is to be made anew.
    known.unlink(missing_ok=True)
    return out, None
  # Without a table, nearly all may be left to do: too much to read twice.
  plan = functools.partial(
    table_update.plan, known, source, threads, moved=update is not None
  )
  start = out
  if table_update.is_of_kind(known, like):
    start, update = known, plan()
  parts = sorted(folder.glob("0*"))
  _, of_parts = _todo(source, like, update)
  if not parts or _end_of(parts[0], of_parts) is not None:
    return start, update
  parts = [one for one in parts if table_update.is_of_kind(one, like)]
  if not parts or (update and not embedding_table.has_labels(start)):
    print(
      f"{folder} is of other songs, settings or another encoder: everything "
      "is embedded again"
    )
    return start, update
  print(
    f"the songs have changed since {folder} was begun: those that are there as "
    "they are now are not embedded again"
  )
  table_update.gather(known, parts + [start] * bool(update), like)
  for part in parts:
    part.unlink()
  return known, plan()


def _embed_parts(
  source: audio_sources.Source,
  embedder: Callable,
  like: pa.Schema,
  folder: pathlib.Path,
  *,
  batch_patches: int,
  threads: int,
) -> list[pathlib.Path]:
  """Makes the parts that are not there yet; returns the files of all."""
  paths, begin, count = [], 0, len(source.ids)
  while end := _end_of(_path(folder, begin), like):
    paths.append(_path(folder, begin))
    begin = end
  for path in {*folder.glob("0*")} - {*paths}:
    path.unlink()
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
      table = _encode_part(shown, source, embedder, like, batch_patches)
      paths.append(_path(folder, begin))
      embedding_table.write(paths[-1], table.schema, [table])
      begin = int(table.schema.metadata[_END])
  return paths


def embed_source(
  source: audio_sources.Source,
  embedder: Callable,
  like: pa.Schema,
  out: pathlib.Path,
  *,
  batch_patches: int,
  threads: int,
  update: table_update.Update | None = None,
  may_be_empty: bool = False,
  finishing: Callable[
    [], contextlib.AbstractContextManager
  ] = contextlib.nullcontext,
) -> Report:
  """Embeds all songs of a source into a table.

  Interrupted, it goes on after the last part that was finished; where the songs
  have changed since, with those that are new or changed. It holds a part and
  some songs that are read ahead; where a table is brought up to date, or the
  songs have changed, it holds the whole table at the end.

  Args:
    source: the songs.
    embedder: patches [batch_patches, 256, 48] to vectors.
    like: the table's columns and provenance.
    out: the table; made at the end.
    batch_patches: patches encoded at once.
    threads: songs read at once.
    update: which songs are embedded, where the others are in the table.
    may_be_empty: makes a table where not one song could be read, too.
    finishing: what is entered to write the table and to count its songs.

  Raises:
    InputError: another process is making the same table.
    RunError: not one song could be read.
  """
  folder, failures = out.with_name(out.name + PARTS), []
  with locks.hold(folder, f"pcl_jax.embed --out={out}"):
    before = update  # Of the table itself, which parts may have added to.
    start, update = _take_over(source, like, folder, out, update, threads)
    todo, of_parts = _todo(source, like, update)
    paths = _embed_parts(
      todo, embedder, of_parts, folder, batch_patches=batch_patches,
      threads=threads,
    )  # fmt: skip
    for path in paths:
      metadata = embedding_table.read_schema(path).metadata
      failures += json.loads(metadata[_FAILED])
    songs = len(source.ids) - len(failures)
    written = not update or update.changed or len(todo.ids) > len(failures)
    with finishing():
      storage.write_json(failures_path(out), failures)
      if written and (songs or may_be_empty):
        read = map(embedding_table.read_rows, paths)
        parts = (one.replace_schema_metadata() for one in read)
        if update:
          parts = table_update.merged(start, like, source, update, list(parts))
        embedding_table.write(out, like, parts)
      shutil.rmtree(folder)
      if not songs and not may_be_empty:
        raise none_readable(out, failures)
      report = report_of(out, like, failures)
  return report._replace(
    damaged=len(source.damaged),
    kept=len(before.kept) if before else 0,
    gone=before.gone if before else 0,
    written=written,
  )


def none_readable(
  out: pathlib.Path, failures: list[dict[str, str]]
) -> errors.RunError:
  """Returns the error of a table without songs."""
  first = failures[0]
  return errors.RunError(
    f"none of the {len(failures)} songs can be read; the first: "
    f"{first['path'] or first['id']}: {first['reason']}. All are in "
    f"{failures_path(out)}."
  )


def report_of(
  out: pathlib.Path, like: pa.Schema, failures: list[dict[str, str]]
) -> Report:
  """Counts the songs and patches of a table, and those padded or silent."""
  counted = {"id", "patches", "padded", "silent"} & set(like.names)
  rows = embedding_table.read_rows(out, sorted(counted))
  patches = len(rows) if "start_s" in like.names else rows["patches"].to_numpy()
  songs, padded, silent = (
    len(some["id"].unique())
    for some in (rows, rows.filter(rows["padded"]), rows.filter(rows["silent"]))
  )
  return Report(songs, int(np.sum(patches)), padded, silent, failures)
