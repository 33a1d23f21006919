"""Lists of songs from a table: alike, between two songs, in smooth order."""

from collections.abc import Sequence
import dataclasses
import functools

from jaxtyping import Bool, Float, Int
import numpy as np

from pcl_jax.common import errors
from pcl_jax.common import jax_setup
from pcl_jax.embedding import song_queries
from pcl_jax.embedding.lists import list_wishes
from pcl_jax.embedding.lists import query_directions
from pcl_jax.embedding.lists import second_vectors
from pcl_jax.embedding.lists import song_choice
from pcl_jax.embedding.lists import song_paths
from pcl_jax.embedding.lists import step_order
from pcl_jax.embedding.tables import search
from pcl_jax.embedding.tables import song_table

_MOST_ORDERED = 5000  # Songs; their distances take 200 MB.


@jax_setup.in_own_types
def similar(
  table: song_table.Table,
  wanted: Sequence[song_queries.Query],
  k: int,
  *,
  unwanted: Sequence[song_queries.Query] = (),
  wishes: list_wishes.Wishes | None = None,
  second: second_vectors.SecondVectors | None = None,
) -> search.Found:
  """Finds songs that sound like some songs, and unlike others.

  The score is the cosine with the mean of the wanted songs minus the mean of
  the unwanted ones; with other vectors a mixture, as
  `query_directions.blended` has it.

  Args:
    table: the songs.
    wanted: at least one query.
    k: how many songs.
    unwanted: queries that the songs are to differ from.
    wishes: what the list is to be like.
    second: other vectors that have a say.

  Returns:
    The songs; fewer than k where no other song fits.

  Raises:
    InputError: the queries cancel each other out, a wish cannot be had, or no
      song is left.
  """
  wishes, queries = wishes or list_wishes.Wishes(), [*wanted, *unwanted]
  for one in queries:
    table.check_query(one.vector)
  allowed = list_wishes.allowed_songs(table, queries, wishes)
  unit = table.rows.unit
  direction = query_directions.direction(
    *(
      np.stack([one.vector for one in some]) if some else unit[:0]
      for some in (wanted, unwanted)
    )
  )
  if second is None:
    hidden = np.flatnonzero(~allowed)
    best = functools.partial(
      table.rows.search.nearest, direction, hidden=hidden
    )
  else:
    others = _second_scores(second, wanted, unwanted)
    scores = table.rows.search.scores(direction)
    scores = query_directions.blended(scores, others, second.share)
    best = song_choice.of_scores(scores, allowed)
  if wishes == list_wishes.Wishes():  # Facts of songs are not read for it.
    return best(k)
  return _chosen(table, best, k, wishes)


def _high_enough(
  scores: Float[np.ndarray, " found"], least: float
) -> Bool[np.ndarray, " found"]:
  """Tells which scores are; raises InputError where none is."""
  kept = scores >= least
  if not kept.any():
    raise errors.InputError(
      f"no song has a score of {least:g} (the best of all has "
      f"{scores.max():.4f}): give a lower min_score."
    )
  return kept


def _from(best: song_choice.Best, least: float, count: int) -> search.Found:
  """Returns the best songs, of those whose score is high enough."""
  found = best(count)
  kept = _high_enough(found.scores, least)
  return search.Found(found.rows[kept], found.scores[kept])


def _chosen(
  table: song_table.Table,
  best: song_choice.Best,
  k: int,
  wishes: list_wishes.Wishes,
) -> search.Found:
  """Chooses the best songs that a list may hold together."""
  unit, facts = table.rows.unit, table.facts
  if wishes.min_score is not None:
    best = functools.partial(_from, best, wishes.min_score)
  found = song_choice.choose(
    best,
    unit,
    k,
    artists=facts.artists,
    seconds=facts.seconds,
    limits=wishes.limits(),
  )
  if not len(found.rows):
    some = best(len(unit)).rows
    shortest = facts.seconds[some].min() / 60
    raise errors.InputError(
      f"max_minutes is {wishes.max_minutes:g}, and the shortest song that the "
      f"list may hold has {shortest:.1f} minutes: give more."
    )
  if not wishes.order:
    return found
  _check_order(len(found.rows), "a smaller -k")
  order = step_order.smallest_steps(unit[found.rows], 0)
  return search.Found(found.rows[order], found.scores[order])


def _second_scores(
  second: second_vectors.SecondVectors,
  wanted: Sequence[song_queries.Query],
  unwanted: Sequence[song_queries.Query],
) -> Float[np.ndarray, " songs"]:
  """Returns the cosines of other vectors; NaN where a song has none."""
  known = second.unit.any(axis=1)
  sides = []
  for queries in (wanted, unwanted):
    rows = [one.row for one in queries if one.row >= 0 and known[one.row]]
    sides.append(second.unit[rows])
  if not len(sides[0]):
    raise errors.InputError(
      "none of the songs that are wanted is in a playlist that the vectors to "
      "blend were learned from: leave out --blend, or give other songs."
    )
  scores = second.unit @ query_directions.direction(*sides)
  return np.where(known, scores, np.nan)


@jax_setup.in_own_types
def continued(
  table: song_table.Table,
  members: Int[np.ndarray, " members"],
  k: int,
  wishes: list_wishes.Wishes | None = None,
) -> search.Found:
  """Finds the songs that go best with a playlist, by the paper's rule.

  Args:
    table: the songs.
    members: rows of the playlist's songs.
    k: how many songs.
    wishes: what the list is to be like; it has no diversity.

  Raises:
    InputError: a wish cannot be had, or no song is left.
  """
  wishes = wishes or list_wishes.Wishes()
  if wishes.diversity:
    raise errors.InputError(
      "diversity is for songs that are like others; what continues a playlist "
      "is ranked by votes: leave it out, or give the songs as --like."
    )
  queries = [song_queries.Query(table.rows.unit[i], i) for i in members]
  allowed = list_wishes.allowed_songs(table, queries, wishes)
  if wishes == list_wishes.Wishes():
    return table.continue_playlist(members, k)
  unit, known = table.rows.unit, allowed.copy()
  known[members] = True
  known = np.flatnonzero(known)
  found = search.continue_playlist(
    unit[known], np.searchsorted(known, members), k, most=len(known)
  )
  rows, ranks = known[found.rows], np.full(len(unit), np.nan, np.float32)
  ranks[rows] = -np.arange(len(rows))
  allowed = np.zeros(len(unit), bool)
  least = -np.inf if wishes.min_score is None else wishes.min_score
  allowed[rows[_high_enough(found.scores, least)]] = True
  best = song_choice.of_scores(ranks, allowed)
  # The scores are here the places in the ranking.
  wishes = dataclasses.replace(wishes, min_score=None)
  chosen = _chosen(table, best, k, wishes)
  places = -ranks[chosen.rows].astype(np.int64)
  return search.Found(chosen.rows, found.scores[places], found.lists[places])


def between(
  table: song_table.Table,
  first: int,
  last: int,
  k: int,
  wishes: list_wishes.Wishes | None = None,
) -> search.Found:
  """Finds a path of k songs from one song to another, in small steps.

  Args:
    table: the songs.
    first: row of the song that it begins with.
    last: row of the song that it ends with.
    k: how many songs, with these two.
    wishes: which songs may lie between them; those of single songs only.

  Returns:
    The songs in the order of the path; the score of each is its cosine with
    the song before, that of the first is 1.

  Raises:
    InputError: the songs are one, there are too few others, or a wish is of
      the whole list.
  """
  wishes = wishes or list_wishes.Wishes()
  of_songs = list_wishes.Wishes(
    wishes.exclude_same, wishes.excluded, wishes.folder, wishes.genre
  )
  if wishes != of_songs:
    raise errors.InputError(
      "a path takes the wishes exclude_same, not_in, folder and genre only: "
      "leave out the others."
    )
  unit = table.rows.unit
  queries = [song_queries.Query(unit[row], row) for row in (first, last)]
  allowed = None
  if k > 2:
    allowed = list_wishes.allowed_songs(table, queries, wishes)
  return _with_steps(unit, song_paths.between(unit, first, last, k, allowed))


def reordered(
  table: song_table.Table, members: Sequence[int] | Int[np.ndarray, " members"]
) -> search.Found:
  """Puts songs into an order of small steps.

  Returns:
    The songs; the score of each is its cosine with the song before, that of the
    first is 1.

  Raises:
    InputError: there are too many songs.
  """
  members = np.asarray(members, np.int64)
  _check_order(len(members), "a shorter playlist")
  unit = table.rows.unit
  order = step_order.smallest_steps(unit[members])
  return _with_steps(unit, members[order])


def remarks(
  table: song_table.Table,
  found: search.Found,
  k: int | None,
  wishes: list_wishes.Wishes,
) -> list[str]:
  """Says what a list lacks of what was asked for.

  Args:
    table: the songs.
    found: the list.
    k: how many songs were asked for; None for as many as there are.
    wishes: what it was to be like.
  """
  lines, count = [], len(found.rows)
  if count < (k or 0):
    lines.append(f"{count} songs in place of {k}: no other fits")
  names = map(table.facts.artist_names, found.rows.tolist())
  unknown = sum(not one for one in names)
  if unknown and wishes.per_artist is not None:
    lines.append(
      f"of an unknown artist, and not limited by --per_artist: {unknown}"
    )
  return lines


def _check_order(count: int, remedy: str) -> None:
  if count > _MOST_ORDERED:
    raise errors.InputError(
      f"{count} songs are to be ordered, and {_MOST_ORDERED} are the most: "
      f"give {remedy}."
    )


def _with_steps(
  unit: Float[np.ndarray, "songs d"], rows: Int[np.ndarray, " rows"]
) -> search.Found:
  steps = (unit[rows[1:]] * unit[rows[:-1]]).sum(axis=1)
  return search.Found(rows, np.append(np.float32(1), steps))
