"""Embeds a library in shards, on hosts of their own, into one table.

Each shard has as many songs in a row, and writes a table of its own beside the
one that they become. The process that finds all of them there puts them
together: its vectors are, bit by bit, those of one process.
"""

import functools
import itertools
import json
import pathlib
from typing import Any, NamedTuple

import pyarrow as pa

from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import locks
from pcl_jax.common import storage
from pcl_jax.embedding import audio_sources
from pcl_jax.embedding import embedding_run
from pcl_jax.embedding.tables import embedding_table

_SHARD = b"pcl_jax.embeddings.shard"
_LOCK = ".joining"


class Shard(NamedTuple):
  """One of several parts of a library, counted from 1."""

  number: int
  of: int

  def songs(self, count: int) -> list[int]:
    """Returns its songs, of `count` in all."""
    first = count * (self.number - 1) // self.of
    return list(range(first, count * self.number // self.of))

  def path(self, out: pathlib.Path) -> pathlib.Path:
    """Returns its table, beside the one of all."""
    return out.with_name(f"{out.name}.shard_{self.number}_of_{self.of}")

  def schema(self, like: pa.Schema) -> pa.Schema:
    """Returns the columns and the provenance of its table."""
    content = json.dumps(self).encode()
    return like.with_metadata({**like.metadata, _SHARD: content})


def parse(text: str) -> Shard:
  """Reads `2/8`, the second of eight.

  Raises:
    InputError: it is something else, or there is no such shard.
  """
  number, _, of = text.partition("/")
  if not (number.isdecimal() and of.isdecimal()):
    raise errors.InputError(
      f"--shard is {text!r}: give the number of a shard and how many there "
      "are, as in --shard=2/8."
    )
  shard = Shard(int(number), int(of))
  if not 1 <= shard.number <= shard.of:
    raise errors.InputError(
      f"--shard is {text!r}: shards are counted from 1 to {shard.of} (of an "
      "array of Slurm's, --array=1-N and "
      "--shard=$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT)."
    )
  return shard


def embed_shard(
  shard: Shard,
  source: audio_sources.Source,
  like: pa.Schema,
  out: pathlib.Path,
  *,
  force: bool = False,
  **how: Any,
) -> embedding_run.Report:
  """Embeds a shard, and puts all together where no other is missing.

  A shard that is there already is left as it is.

  Args:
    shard: which.
    source: the songs of all shards.
    like: columns and provenance of the table of all.
    out: the table of all.
    force: embeds the shard though it is there.
    how: what `embedding_run.embed_source` is given besides.

  Returns:
    What was done for the shard, and which are still missing; of all songs,
    where none is.

  Raises:
    InputError: a shard that is there is of other songs, settings or another
      encoder, or another process is making the same one.
    RunError: all shards are there, and not one song could be read.
  """
  path, schema, report = shard.path(out), shard.schema(like), None
  # Another shard may end just now, and make one table of all.
  joining = functools.partial(
    locks.hold,
    out.with_name(out.name + _LOCK),
    f"pcl_jax.embed --out={out}",
    wait=True,
  )
  with joining():
    if path.exists() and not force:
      _check(path, schema)
      console.say(f"{path} is there already; --force makes it again")
      report = embedding_run.report_of(path, like, _failures(path))
  if report is None:
    songs = source.select(shard.songs(len(source.ids)))
    report = embedding_run.embed_source(
      songs, like=schema, out=path, may_be_empty=True, finishing=joining, **how
    )
  shards = [Shard(number, shard.of) for number in range(1, shard.of + 1)]
  with joining():
    if not path.exists():
      return _joined(like, out)._replace(damaged=report.damaged)
    there = [one.path(out).exists() for one in shards]
    missing = [one.number for one in shards if not there[one.number - 1]]
    if not missing:
      return _join(shards, like, out)._replace(damaged=report.damaged)
  return report._replace(missing_shards=tuple(missing))


def _joined(like: pa.Schema, out: pathlib.Path) -> embedding_run.Report:
  """Returns what was done for a table that another process has put together."""
  failures = _failures(out)
  if not out.exists():
    raise embedding_run.none_readable(out, failures)
  return embedding_run.report_of(out, like, failures)


def _check(path: pathlib.Path, like: pa.Schema) -> None:
  """Raises InputError where a shard's table is not one of `like`."""
  try:
    there = embedding_table.read_schema(path)
  except (pa.ArrowException, OSError) as error:
    raise errors.InputError(
      f"{path} cannot be read ({error}): delete it, and embed this shard again."
    ) from error
  if there.metadata != like.metadata or there.names != like.names:
    raise errors.InputError(
      f"{path} is of other songs, settings or another encoder: if files were "
      "added or changed while shards were embedded, delete it, and embed this "
      "shard again."
    )


def _failures(path: pathlib.Path) -> list[dict[str, str]]:
  return storage.read_json(embedding_run.failures_path(path))


def _join(
  shards: list[Shard], like: pa.Schema, out: pathlib.Path
) -> embedding_run.Report:
  """Writes the table of all shards, and removes theirs."""
  paths = [one.path(out) for one in shards]
  for one, path in zip(shards, paths, strict=True):
    _check(path, one.schema(like))
  failures = [one for path in paths for one in _failures(path)]

  storage.write_json(embedding_run.failures_path(out), failures)
  groups = map(embedding_table.read_groups, paths)
  embedding_table.write(out, like, itertools.chain.from_iterable(groups))
  report = embedding_run.report_of(out, like, failures)
  for path in paths:
    embedding_run.failures_path(path).unlink(missing_ok=True)
    path.unlink()
  if not report.songs:
    out.unlink()
    raise embedding_run.none_readable(out, failures)
  return report
