"""A library as it is served: its songs by name, their audio, their map."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import os
import pathlib
import threading
from typing import Any
import unicodedata
import urllib.parse

from jaxtyping import Float, Int
import numpy as np

from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.embedding import song_queries
from pcl_jax.embedding.lists import second_vectors
from pcl_jax.embedding.tables import search
from pcl_jax.embedding.tables import song_table
from pcl_jax.pages import song_map
from pcl_jax.server import api_parameters
from pcl_jax.server import row_products

_AUDIO = "/api/audio"


def _folded(text: str) -> str:
  return unicodedata.normalize("NFC", text).casefold()


class Library:
  """The songs of one state of a table; nothing of it changes.

  Attributes:
    table: the table, all of which is in memory or mapped.
    audio: the folder whose files are served; None for none.
    ids: the id of each song, as text.
  """

  def __init__(
    self,
    table: song_table.Table,
    *,
    audio: pathlib.Path | None = None,
    data: pathlib.Path | None = None,
  ):
    """Takes a table, the folder of its audio, and a data set for blends.

    Raises:
      InputError: the table has no songs or cannot be read, or the data set has
        none of them.
    """
    if not len(table.ids):
      raise errors.InputError(
        f"{table.path} has no songs to serve: embed some first."
      )
    self.table, self.audio, self._data = table, audio, data
    self._with_silent = dataclasses.replace(table, silent=frozenset())
    self.ids = [file_names.to_text(one)[0] for one in table.ids]
    self._names = list(table.names) or [""] * len(self.ids)
    self._rows = {one: row for row, one in enumerate(self.ids)}
    table.facts.read_all()
    # Requests that wait at once share their products.
    table.rows.prepare(lambda rows: row_products.RowProducts(rows).of)
    self._by_path = {one: row for row, one in enumerate(table.paths) if one}
    # What is asked for later, while the table may be gone.
    self.facts = table.facts.artists, table.facts.albums, table.facts.seconds
    self.genres = table.facts.genre_names()
    self._texts = [_folded(self._text(row)) for row in range(len(self.ids))]
    self.second = None
    if data is not None:
      self.second = second_vectors.of_playlists(table, data, 0.0)
    self._placing = threading.Lock()

  def __len__(self) -> int:
    return len(self.ids)

  def _text(self, row: int) -> str:
    """Returns what a search for names looks through."""
    name = self._names[row]
    return f"{name}\n{self.ids[row]}\n{self.table.facts.album(row)}"

  def row(self, query: str) -> int:
    """Returns the row of an id, a path or its end, or a name.

    Raises:
      Refusal: there is no such song, or there are several.
    """
    row = self._rows.get(query)
    if row is not None:
      return row
    try:
      return song_queries.find_song(self._with_silent, query, files=False)
    except errors.InputError as error:
      raise api_parameters.Refusal(404, str(error)) from error

  def sounding_row(self, query: str) -> int:
    """Returns what `row` does, of a song that others can be compared with.

    Raises:
      Refusal: there is no such song, there are several, or it is silent.
    """
    row = self.row(query)
    if row in self.table.silent:
      raise api_parameters.Refusal(
        400,
        f"{song_queries.label(self.table, row)} is silent, or its channels "
        "cancel each other out: no song sounds like it. Give another song, or "
        "start the server with --keep_silent.",
      )
    return row

  def row_of_path(self, path: str) -> int | None:
    """Returns the row of an exact path; None if there is none."""
    return self._by_path.get(path)

  def query(self, row: int) -> song_queries.Query:
    """Returns a song as what others are to sound like."""
    return song_queries.Query(self.table.rows.unit[row], row)

  def with_words(self, words: str, most: int) -> Int[np.ndarray, " found"]:
    """Returns songs whose name, id or album has all of some words.

    Those whose name begins with them come first.
    """
    wanted = _folded(words).split()
    found = [
      row
      for row, text in enumerate(self._texts)
      if all(one in text for one in wanted)
    ]
    first = wanted[0] if wanted else ""
    found.sort(key=lambda row: not self._texts[row].startswith(first))
    return np.array(found[:most], np.int64)

  def name(self, row: int) -> str:
    """Returns what people know a song by: never empty, and one line."""
    if self._names[row]:
      return file_names.shown(self._names[row])
    stem = os.path.splitext(os.path.basename(self.ids[row]))[0]
    return file_names.shown(stem or self.ids[row])

  def title(self, row: int) -> str:
    """Returns the name of a song without its artists."""
    artists = ", ".join(self.table.facts.artist_names(row))
    return self.name(row).removeprefix(f"{artists} - ")

  def song(self, row: int) -> dict[str, Any]:
    """Returns what is known of a song, in plain values."""
    facts = self.table.facts
    address = f"{_AUDIO}?id={urllib.parse.quote(self.ids[row], safe='')}"
    return {
      "id": self.ids[row],
      "name": self.name(row),
      "title": self.title(row),
      "artists": facts.artist_names(row),
      "album": facts.album(row),
      "genres": facts.genres_of(row),
      "seconds": round(float(facts.seconds[row]), 3),
      "audio": address if self.audio else None,
    }

  def songs(self, found: search.Found) -> list[dict[str, Any]]:
    """Returns what is known of songs that were found, with their scores."""
    pairs = zip(found.rows.tolist(), found.scores.tolist(), strict=True)
    return [
      {"rank": i + 1, "score": round(score, 4), **self.song(row)}
      for i, (row, score) in enumerate(pairs)
    ]

  def map(self) -> Mapping[str, Any]:
    """Returns the map of the songs, placed when it is first asked for."""
    with self._placing:
      return self._map

  @functools.cached_property
  def _map(self) -> dict[str, Any]:
    rows = song_map.drawn(len(self), 0)
    places, method = song_map.place(self.table.rows.unit[rows])
    facts = self.table.facts
    folders = [os.path.dirname(self.ids[row]) for row in rows.tolist()]
    has = {
      "genre": [facts.genres_of(row) for row in rows.tolist()],
      "artist": [facts.artist_names(row) for row in rows.tolist()],
      "folder": [[one] if one else [] for one in folders],
    }
    names = [self.name(row) for row in rows.tolist()]
    ids = [self.ids[row] for row in rows.tolist()]
    return {
      "method": method,
      "left_out": len(self) - len(rows),
      "songs": song_map.columns(ids, names, places, has),
    }

  @functools.cached_property
  def artists(self) -> tuple[list[str], Float[np.ndarray, "artists d"]]:
    """The name and the direction of each artist: the mean of the songs."""
    lists, facts = self.table.facts.artists, self.table.facts
    count = int(lists.values.max(initial=-1)) + 1
    rows = lists.list_index()
    order = np.argsort(lists.values, kind="stable")
    numbers, firsts = np.unique(lists.values[order], return_index=True)
    sums = np.zeros((count, self.table.rows.shape[1]), np.float32)
    names = [""] * count
    if len(numbers):
      ordered = self.table.rows.unit[rows[order]]
      sums[numbers] = np.add.reduceat(ordered, firsts, axis=0)
    for number, place in zip(numbers.tolist(), firsts.tolist(), strict=True):
      row = int(rows[order[place]])
      at = lists[row].tolist().index(number)
      names[number] = facts.artist_names(row)[at]
    return names, search.unit(sums)


class ServedLibrary:
  """The library that is served now: read again when its table is replaced."""

  def __init__(
    self,
    path: pathlib.Path,
    read: Callable[[], Library],
    after_reading: Callable[[], None] = lambda: None,
  ):
    """Takes the table's file, what reads it, and what follows each time.

    Raises:
      InputError: it cannot be served.
    """
    self._path, self._read, self._after_reading = path, read, after_reading
    self._reading = threading.Lock()
    self._seen = self._stamp()
    self._library = read()
    after_reading()
    self.said = ""  # Why the table that is there now is not served.

  def _stamp(self) -> tuple[int, ...] | None:
    try:
      found = os.stat(self._path)
    except OSError:
      return None
    return found.st_ino, found.st_size, found.st_mtime_ns

  def now(self) -> Library:
    """Returns the library; whoever notices a new table reads it first."""
    if self._stamp() != self._seen and self._reading.acquire(blocking=False):
      try:
        self._replace()
      finally:
        self._reading.release()
    return self._library

  def _replace(self) -> None:
    stamp = self._stamp()
    if stamp == self._seen:  # Another thread was quicker.
      return
    before = self._library.table.about["weights_sha256"]
    try:
      new = self._read()
      if new.table.about["weights_sha256"] != before:
        raise errors.InputError(
          f"{self._path} is now of another encoder (weights "
          f"{new.table.about['weights_sha256'][:12]}, not {before[:12]}): "
          "start the server again to serve it."
        )
    except (errors.InputError, OSError) as error:
      self.said = f"the songs of before are served, since {error}"
      console.warn(self.said)
    else:
      self._library, self.said = new, ""
      self._after_reading()
      console.say(f"{self._path} was replaced: {len(new)} songs are served")
    self._seen = stamp
