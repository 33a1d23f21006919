"""Brings a table up to date: only songs that are new or changed are embedded.

A song is known by its id and its file's length and time, or else by the digest
of its encoded audio: a file that was moved or tagged anew keeps its vector.
"""

from collections.abc import Iterator
import pathlib
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pcl_jax.common import errors
from pcl_jax.common import prefetch
from pcl_jax.common import storage
from pcl_jax.embedding import audio_sources
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.library import song_labels

_OF_SONGS = ("songs_sha256", "roots")  # What a table says of its songs.
_ROWS = 8192  # Rows that are put together at once.


class Update(NamedTuple):
  """What becomes of the songs of a source, by their numbers."""

  kept: dict[int, str]  # Song -> the id whose vector it has in the table.
  todo: list[int]  # Songs to embed.
  gone: int  # Songs of the table that are no longer there.
  stale: frozenset[int] = frozenset()  # Kept songs with perhaps other labels.
  changed: bool = True  # Whether more is new than songs once unreadable.


def _flat(about: dict[str, Any]) -> dict[str, Any]:
  """Returns what a table says of all but its songs, by dotted names.

  Which checkpoint it was is left out: the weights have a hash.
  """
  found = {}
  for key, value in about.items():
    if isinstance(value, dict):
      found |= {f"{key}.{name}": one for name, one in value.items()}
    elif key not in (*_OF_SONGS, "checkpoint"):
      found[key] = value
  return found


def has_changed(out: pathlib.Path, about: dict[str, Any]) -> bool:
  """Tells whether a table is of other songs, or lacks their labels.

  Args:
    out: the table.
    about: what it is to say of its encoder, settings and songs.

  Raises:
    InputError: it is of another encoder or other settings.
  """
  there = embedding_table.read_about(out)
  differing = storage.differences(_flat(there), _flat(about))
  if differing:
    raise errors.InputError(
      f"{out} exists and was made otherwise ({'; '.join(differing)}): give "
      "another --out, or --force to replace it."
    )
  others = any(about[key] != there.get(key) for key in _OF_SONGS)
  return others or not embedding_table.has_labels(out)


def is_of_kind(path: pathlib.Path, like: pa.Schema) -> bool:
  """Tells whether a file has embeddings of some encoder and settings."""
  try:
    there = embedding_table.read_about(path)
  except errors.InputError:
    return False
  return _flat(there) == _flat(embedding_table.about_of(like))


def gather(
  out: pathlib.Path, tables: list[pathlib.Path], like: pa.Schema
) -> None:
  """Writes the songs of several tables into one; `out` may be among them.

  Of a song that is in several, the first one's rows are taken.

  Args:
    out: the table.
    tables: of one encoder and its settings.
    like: a schema with the provenance of the table.
  """
  schemas = [embedding_table.read_schema(path) for path in tables]
  columns = pa.unify_schemas([one.remove_metadata() for one in schemas])

  def rows() -> Iterator[pa.Table]:
    done: set[str] = set()
    for path in tables:
      here: set[str] = set()
      for group in embedding_table.read_groups(path):
        names = embedding_table.names_of(group, "id")
        here.update(names)
        new = pa.array([name not in done for name in names], pa.bool_())
        yield pa.concat_tables(
          [columns.empty_table(), group.filter(new)], promote_options="default"
        )
      done |= here

  embedding_table.write(out, columns.with_metadata(like.metadata), rows())


def _contents(
  source: audio_sources.Source, songs: list[int], threads: int
) -> Iterator[tuple[int, str]]:
  """Yields songs and their digests, without those that have none."""

  def read(song: int) -> tuple[int, str]:
    try:
      return song, source.content(song)
    except OSError:
      return song, ""

  found = prefetch.in_order(read, songs, threads=threads, ahead=2 * threads)
  return (one for one in found if one[1])


def plan(
  out: pathlib.Path,
  source: audio_sources.Source,
  threads: int,
  *,
  moved: bool = True,
) -> Update:
  """Compares a table with the songs that it is to hold.

  Args:
    out: a table of the same encoder and settings.
    source: the songs.
    threads: files read at once.
    moved: whether files are known again by their content, too, for which all
      that have another name, length or time are read.
  """
  there, present = embedding_table.read_songs(out), set(source.ids)
  kept = {
    song: name
    for song, name in enumerate(source.ids)
    if name in there and there[name].stamp == source.stamps[song]
  }
  # Of files alike, those that are no longer there are taken first: the last.
  by_content: dict[str, list[str]] = {}
  for name in sorted(there, key=lambda name: name not in present):
    by_content.setdefault(there[name].content, []).append(name)
  by_content.pop("", None)
  by_content = by_content if moved else {}
  rest = [song for song in range(len(source.ids)) if song not in kept]
  labelled = {*kept} if embedding_table.has_labels(out) else set()
  for song, content in _contents(source, rest if by_content else [], threads):
    name = source.ids[song]
    if name in there and there[name].content == content:
      kept[song] = name
    elif content in by_content:
      names = by_content[content]
      kept[song] = names.pop() if len(names) > 1 else names[0]
  todo = [song for song in rest if song not in kept]
  gone = there.keys() - present - set(kept.values())
  stale = kept.keys() - (labelled if source.has_files else set())
  return Update(kept, todo, len(gone), frozenset(stale))


def _places(table: pa.Table, first: int) -> dict[str, range]:
  """Returns the rows of each song, which lie together, counted from `first`."""
  found: dict[str, range] = {}
  for row, name in enumerate(embedding_table.names_of(table, "id"), first):
    begin = found[name].start if name in found else row
    found[name] = range(begin, row + 1)
  return found


def _label_again(
  columns: dict[str, list],
  songs: list[int],
  source: audio_sources.Source,
  stale: frozenset[int],
) -> None:
  """Reads the labels of stale songs into the columns of some rows."""
  found = {song: source.labels(song) for song in stale.intersection(songs)}
  for place, song in enumerate(songs):
    if song in found:
      for name, value in found[song]._asdict().items():
        if name in columns:  # Rows of patches lack some.
          columns[name][place] = value


def _move_albums(
  old: pa.Table, source: audio_sources.Source, kept: dict[int, str]
) -> pa.Table:
  """Gives albums that are known by their folder the one where it lies now."""
  if "album_id" not in old.schema.names:
    return old
  paths = {name: source.paths[song] for song, name in kept.items()}
  albums = [
    album and song_labels.moved_album(album, before, paths.get(name, before))
    for name, before, album in zip(
      embedding_table.names_of(old, "id"),
      embedding_table.names_of(old, "path"),
      old["album_id"].to_pylist(),
      strict=True,
    )
  ]
  place = old.schema.get_field_index("album_id")
  return old.set_column(place, "album_id", pa.array(albums, pa.string()))


def merged(
  out: pathlib.Path,
  like: pa.Schema,
  source: audio_sources.Source,
  update: Update,
  parts: list[pa.Table],
) -> Iterator[pa.Table]:
  """Yields the rows of a table that is up to date, in the order of the songs.

  Args:
    out: the table as it was.
    like: the columns and the provenance of the new one.
    source: the songs.
    update: what `plan` gave.
    parts: rows of the songs that were embedded.
  """
  old = _move_albums(embedding_table.read_rows(out), source, update.kept)
  new = pa.concat_tables(
    [like.empty_table(), *parts], promote_options="default"
  )
  old_places, new_places = _places(old, 0), _places(new, len(old))
  places = [
    old_places[update.kept[song]]
    if song in update.kept
    else new_places.get(name, range(0))  # Those that could not be read.
    for song, name in enumerate(source.ids)
  ]
  songs = np.repeat(np.arange(len(places)), [len(one) for one in places])
  order = np.concatenate([np.asarray(one, np.int64) for one in places])
  given = {*source.columns([]), "id_bytes", "path_bytes"}
  taken = [name for name in like.names if name not in given]
  there = [name for name in taken if name in old.schema.names]
  both = pa.concat_tables(
    [old.select(there), new.select(taken)], promote_options="default"
  )
  for begin in range(0, len(order), _ROWS):
    some = songs[begin : begin + _ROWS].tolist()
    rows = both.take(order[begin : begin + _ROWS])
    vectors = rows["vector"].combine_chunks().flatten().to_numpy()
    columns = {n: rows[n].to_pylist() for n in taken if n != "vector"}
    columns |= source.columns(some)
    _label_again(columns, some, source, update.stale)
    yield embedding_table.rows(columns, vectors.reshape(len(some), -1), like)
