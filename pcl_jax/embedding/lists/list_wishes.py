"""What a list is to be like, and which songs it may hold."""

from collections.abc import Sequence
import dataclasses
import functools
import os
import unicodedata

from jaxtyping import Bool, Int
import numpy as np

from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.embedding import song_queries
from pcl_jax.embedding.lists import song_choice
from pcl_jax.embedding.tables import song_facts
from pcl_jax.embedding.tables import song_table

_GENRES_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Wishes:
  """What a list is to be like.

  Attributes:
    exclude_same: leaves out songs that share an `artist` or an `album` with
      the queries.
    excluded: rows of songs that are left out.
    folder: takes songs below it only; a path, or the beginning of the ids.
    genre: takes songs of this genre only.
    min_score: the least score.
    per_artist: how many songs of one artist there may be.
    max_minutes: how long the songs may last together.
    diversity: 0 takes the best songs, 1 songs as different as can be.
    order: whether the songs come in an order of small steps.
  """

  exclude_same: Sequence[str] = ()
  excluded: Sequence[int] | Int[np.ndarray, " excluded"] = ()
  folder: str | os.PathLike[str] = ""
  genre: str = ""
  min_score: float | None = None
  per_artist: int | None = None
  max_minutes: float | None = None
  diversity: float = 0.0
  order: bool = False

  def __post_init__(self) -> None:
    # Wishes are compared with each other, which an array would not take.
    object.__setattr__(self, "excluded", tuple(map(int, self.excluded)))

  def check(self) -> None:
    """Raises InputError where a wish is none that can be had."""
    unknown = [one for one in self.exclude_same if one not in song_facts.GROUPS]
    numbers = {
      "diversity": (self.diversity, 0, 1),
      "min_score": (self.min_score, -1, 1),
      "per_artist": (self.per_artist, 1, np.inf),
      "max_minutes": (self.max_minutes, 0, np.inf),
    }
    if unknown:
      raise errors.InputError(
        f"exclude_same is {unknown[0]!r}: give some of "
        f"{', '.join(song_facts.GROUPS)}."
      )
    for name, (value, least, most) in numbers.items():
      if value is not None and not least <= value <= most:
        raise errors.InputError(
          f"{name} is {value:g}: give a number from {least} "
          + (f"to {most}." if np.isfinite(most) else "on.")
        )

  def limits(self) -> song_choice.Limits:
    """Returns what the songs may be together."""
    most = np.inf if self.max_minutes is None else 60 * self.max_minutes
    return song_choice.Limits(self.per_artist, most, self.diversity)


def _need(table: song_table.Table, column: str, wish: str) -> None:
  if not table.facts.known(column):
    raise errors.InputError(
      f"{table.path} does not say the {column} of its songs, which {wish} "
      "needs: give the command that made it once more, which adds them."
    )


def allowed_songs(
  table: song_table.Table, queries: Sequence[song_queries.Query], wishes: Wishes
) -> Bool[np.ndarray, " songs"]:
  """Returns which songs a list may hold.

  Raises:
    InputError: the table does not say what a wish asks for, or no song is left.
  """
  wishes.check()
  facts, count = table.facts, len(table.ids)
  allowed = np.ones(count, bool)
  allowed[table.silent_rows] = False
  allowed[list(wishes.excluded)] = False
  allowed[[one.row for one in queries if one.row >= 0]] = False
  for kind in wishes.exclude_same:
    _need(table, f"{kind}s" if kind == song_facts.ARTIST else kind, kind)
    allowed &= ~_same(facts, kind, queries)
  if wishes.per_artist is not None:
    _need(table, "artists", "per_artist")
  if wishes.folder:
    allowed &= _inside(table, wishes.folder)
  if wishes.genre:
    _need(table, "genres", "genre")
    of_genre = np.isin(np.arange(count), facts.of_genre(wishes.genre))
    if not of_genre.any():
      known = ", ".join(facts.genre_names()[:_GENRES_SHOWN]) or "none"
      raise errors.InputError(
        f"no song of {table.path} is of the genre {wishes.genre!r}. Those of "
        f"most songs are: {known}."
      )
    allowed &= of_genre
  if not allowed.any():
    raise errors.InputError(
      f"none of the {count} songs of {table.path} is left that the list may "
      "hold: ask for less."
    )
  return allowed


def _same(
  facts: song_facts.SongFacts,
  kind: str,
  queries: Sequence[song_queries.Query],
) -> Bool[np.ndarray, " songs"]:
  """Tells which songs share an artist or an album with a query."""
  lists = facts.artists if kind == song_facts.ARTIST else facts.albums
  rows = np.array([one.row for one in queries if one.row >= 0], np.int64)
  labels = [one.labels for one in queries]
  names = [
    name
    for one in labels
    for name in (one.artists if kind == song_facts.ARTIST else [one.album_id])
  ]
  theirs = [lists.select(rows).values, facts.numbers_of(kind, names)]
  shared = np.isin(lists.values, np.concatenate(theirs))
  found = np.zeros(len(lists), bool)
  found[lists.list_index()[shared]] = True
  return found


def _inside(
  table: song_table.Table, folder: str | os.PathLike[str]
) -> Bool[np.ndarray, " songs"]:
  """Tells which songs lie below a folder; raises InputError where none does."""
  composed = functools.partial(unicodedata.normalize, "NFC")
  text = composed(os.fspath(folder).rstrip("/") + "/")
  whole = os.path.join(os.path.abspath(file_names.path(folder)), "")
  whole = composed(whole)
  found = np.array(
    [
      composed(path).startswith(whole) or composed(name).startswith(text)
      for path, name in zip(table.paths, table.ids, strict=True)
    ]
  )
  if not found.any():
    raise errors.InputError(
      f"no song of {table.path} lies in {folder}: give a folder of the songs' "
      f"paths, such as that of {table.paths[0] or table.ids[0]}."
    )
  return found
