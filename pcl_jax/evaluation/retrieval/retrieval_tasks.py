"""Retrieval by artist, album, sub-genre and playlist, hubs, continuation."""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses

from jaxtyping import Float, Int
import numpy as np

from pcl_jax.data import catalogues
from pcl_jax.data import ragged
from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation import representations
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.retrieval import playlist_continuation
from pcl_jax.evaluation.retrieval import ranking
from pcl_jax.evaluation.retrieval import relevance

_LENGTHS = (50, 20, 10, 5, 2, 1)  # Of lists, where those asked for hold all.
_MOST_DRAWS = 100  # Random lists for each playlist,
_DRAWN = 20_000  # and for all playlists.
# Splits of a playlist's context, by the split of the targets.
_KNOWN = {
  catalogues.TEST: (catalogues.TRAIN, catalogues.VALIDATION),
  catalogues.VALIDATION: (catalogues.TRAIN,),
}


def _not_empty(lists: ragged.Ragged, reason: str) -> ragged.Ragged:
  if not len(lists.values):
    raise task_base.NotAvailable(reason)
  return lists


def _without_large(context: task_base.Context, lists: ragged.Ragged):
  most = context.options.largest_artist
  return lists if most is None else relevance.without_large(lists, most)


def _artists(context: task_base.Context) -> ragged.Ragged:
  lists = _without_large(context, context.catalogue.artists)
  return _not_empty(lists, "no song has an artist")


def _albums(context: task_base.Context) -> ragged.Ragged:
  albums = context.catalogue.album_lists()
  return _not_empty(albums, "no song has an album")


def _artist(context: task_base.Context) -> relevance.Relevance:
  return relevance.Relevance.of(_artists(context))


def _artist_other_album(context: task_base.Context) -> relevance.Relevance:
  return relevance.Relevance.of(_artists(context), hiding=_albums(context))


def _album(context: task_base.Context) -> relevance.Relevance:
  lists = _without_large(context, _albums(context))
  return relevance.Relevance.of(_not_empty(lists, "no song has an album"))


def _sub_genre(context: task_base.Context) -> relevance.Relevance:
  reason = "no song has a sub-genre (a genre code that does not end in 00)"
  lists = _not_empty(relevance.sub_genres(context.catalogue), reason)
  return relevance.Relevance.of(lists)


def _playlists(context: task_base.Context) -> ragged.Ragged:
  reason = "the data set has no playlists"
  return _not_empty(context.catalogue.playlists, reason)


def _playlist(context: task_base.Context) -> relevance.Relevance:
  return relevance.Relevance.of(
    _playlists(context).transposed(len(context.catalogue)),
    at_least=context.options.min_playlists,
  )


def _rank(context: task_base.Context):
  """Ranks the candidates once for all retrieval tasks that were chosen."""
  songs = context.queries
  if len(songs) < 2:
    raise task_base.NotAvailable(
      f"there are fewer than two {context.split_name} songs"
    )
  rules = {}
  for task in _RETRIEVAL:
    if task.name in (context.chosen or TASKS):
      with contextlib.suppress(task_base.NotAvailable):
        rules[task.name] = context.once(task.rule)
  return ranking.measure(context.embeddings, songs, songs, rules)


@dataclasses.dataclass(frozen=True)
class Retrieval(task_base.Task):
  """Measures whether the candidates that are alike rank first.

  Attributes:
    name: name of the task.
    title: heading of its table.
    rule: makes the rule by which songs are alike, or raises `NotAvailable`.
    options: fields of `Options` that the rule depends on.
  """

  name: str
  title: str
  rule: Callable[[task_base.Context], relevance.Relevance]
  options: tuple[str, ...] = ()
  shown = (
    "average_precision",
    "precision_at_5",
    "r_precision",
    "recall_at_10",
    "ndcg_at_10",
    "reciprocal_rank",
  )

  @property
  def chance(self):
    """The mean over all orders of the candidates."""
    return {representations.CHANCE: self._by_chance}

  def run(self, context: task_base.Context) -> task_base.Result:
    """Measures a representation."""
    context.once(self.rule)
    return self._result(context, context.once(_rank).columns[self.name])

  def _by_chance(self, context: task_base.Context) -> task_base.Result:
    context.once(self.rule)
    return self._result(context, context.once(_rank).by_chance[self.name])

  def _result(
    self, context: task_base.Context, found: dict[str, np.ndarray]
  ) -> task_base.Result:
    defined = ~np.isnan(found["average_precision"])
    if not defined.any():
      raise task_base.NotAvailable(
        f"no {context.split_name} song has another one that is alike in this "
        "way"
      )
    kept = {name: values[defined] for name, values in found.items()}
    ids = context.catalogue.song_ids[context.queries]
    options = {one: getattr(context.options, one) for one in self.options}
    return task_base.Result(
      metrics=bootstrap.mean_metrics(kept, seed=context.seed),
      per_item={"song_id": ids[defined]} | kept,
      left_out={"queries without a relevant song": int((~defined).sum())},
      settings={
        "queries": context.split_name,
        "candidates": context.split_name,
        "candidates_number": len(ids),
        "near_by": "cosine",
      }
      | options,
    )


def _skewness(moments: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n"]:
  """Returns the skewness from the means of x, x^2 and x^3; 0 for no spread."""
  first, second, third = np.moveaxis(moments, -1, 0)
  variance = np.maximum(second - first**2, 0.0)
  centred = third - 3 * first * second + 2 * first**3
  spread = variance**1.5
  return np.where(spread > 1e-12, centred / np.maximum(spread, 1e-12), 0.0)


def hubs(
  counts: Int[np.ndarray, " songs"], seed: int
) -> dict[str, task_base.Metric]:
  """Measures how unevenly songs are distributed over the lists of others.

  Args:
    counts: number of lists of the 10 nearest that contain each song, [songs].
    seed: seed of the resamples.

  Returns:
    `occurrence_skewness` (0 where all occur equally often, positive where few
    songs are hubs) and `never_returned` (share of songs in no list).
  """
  x = counts.astype(np.float64)
  columns = np.stack([x, x**2, x**3, counts == 0], axis=1)
  means = bootstrap.resampled_means(columns, seed=seed)
  values = {
    "occurrence_skewness": (
      _skewness(columns[:, :3].mean(axis=0)),
      _skewness(means[:, :3]),
    ),
    "never_returned": (columns[:, 3].mean(), means[:, 3]),
  }
  return {
    name: task_base.Metric(
      float(value), *bootstrap.percentiles(drawn), len(counts)
    )
    for name, (value, drawn) in values.items()
  }


class Hubs(task_base.Task):
  """Measures whether few songs crowd the lists of all others."""

  title = "Hubs among the 10 nearest"

  def run(self, context: task_base.Context) -> task_base.Result:
    """Measures a representation."""
    nearest = context.once(_rank).nearest
    counts = np.bincount(nearest.ravel(), minlength=len(context.queries))
    return task_base.Result(
      metrics=hubs(counts, context.seed),
      per_item={
        "song_id": context.catalogue.song_ids[context.queries],
        "occurrences": counts,
        "never_returned": (counts == 0).astype(np.float64),
      },
      settings={"songs": context.split_name, "list_length": nearest.shape[1]},
    )


def _list_length(candidates: int, asked: int) -> int:
  """Returns a length of lists that leaves most candidates out."""
  if 2 * asked <= candidates:
    return asked
  shorter = [length for length in _LENGTHS if 2 * length <= candidates]
  if not shorter:
    raise task_base.NotAvailable(
      f"{candidates} candidates are too few: each list would hold all of them"
    )
  return shorter[0]


def _on_length(candidates: int, asked: int, k: int) -> tuple[str, ...]:
  """Says where lists are shorter than asked for."""
  if k == asked:
    return ()
  return (
    f"lists of {asked} would hold most of the {candidates} candidates, so "
    f"these are lists of {k} (--neighbours)",
  )


def _score(
  context: task_base.Context,
  continue_all: Callable[
    [playlist_continuation.Problem, np.ndarray, int], Iterator
  ],
  most_draws: int = 1,
) -> task_base.Result:
  """Scores the continuations made for a problem, given songs' popularity.

  With several draws, those for few playlists are made again and averaged.
  """
  lists, split = _playlists(context), context.options.split
  problem = playlist_continuation.split_playlists(
    lists, context.catalogue.split, _KNOWN[split], split
  )
  name, asked = context.split_name, context.options.neighbours
  if not len(problem.playlists):
    raise task_base.NotAvailable(
      f"no playlist holds {name} songs and songs to find them by"
    )
  k = _list_length(len(problem.candidates), asked)
  counts = np.bincount(lists.values, minlength=len(context.catalogue))
  draws = int(np.clip(_DRAWN // len(problem.playlists), 1, most_draws))
  drawn = [
    playlist_continuation.score_playlists(
      problem, continue_all(problem, counts, k), counts, k
    )
    for _ in range(draws)
  ]
  columns = {
    name: np.mean([one[name] for one in drawn], axis=0) for name in drawn[0]
  }
  columns["playlist"] = problem.playlists
  shortened = int(columns.pop("shortened").sum())
  measured = {n: c for n, c in columns.items() if n != "playlist"}
  left_out = len(lists) - len(problem.playlists)
  return task_base.Result(
    metrics=bootstrap.mean_metrics(measured, seed=context.seed),
    per_item=columns,
    left_out={f"playlists without {name} songs or without others": left_out},
    settings={
      "targets": name,
      "context": [catalogues.SPLIT_NAMES[s] for s in _KNOWN[split]],
      "candidates_number": len(problem.candidates),
      "neighbours": k,
      "found_lists_the_published_code_shortens": shortened,
    },
    notes=_on_length(len(problem.candidates), asked, k),
  )


def _popular(context: task_base.Context) -> task_base.Result:
  return _score(context, playlist_continuation.by_popularity)


def _random(context: task_base.Context) -> task_base.Result:
  rng = np.random.default_rng(context.seed)
  return _score(
    context,
    lambda problem, _, k: playlist_continuation.at_random(problem, rng, k),
    most_draws=_MOST_DRAWS,
  )


class PlaylistContinuation(task_base.Task):
  """Measures which songs of a playlist are found by its other songs."""

  title = "Playlist continuation"
  shown = (
    "recall",
    "recall_at_10",
    "average_precision",
    "ndcg",
    "r_precision",
    "ndcg_published",
  )
  baselines = {representations.POPULARITY: _popular}
  chance = {representations.CHANCE: _random}

  def run(self, context: task_base.Context) -> task_base.Result:
    """Measures a representation."""
    return _score(
      context,
      lambda problem, _, k: playlist_continuation.continue_playlists(
        context.embeddings, problem, k
      ),
    )


_LARGEST = ("largest_artist",)
_RETRIEVAL = (
  Retrieval("artist", "Songs of the same artist", _artist, _LARGEST),
  Retrieval(
    "artist_other_album",
    "Songs of the same artist, those of the same album left out",
    _artist_other_album,
    _LARGEST,
  ),
  Retrieval("album", "Songs of the same album", _album, _LARGEST),
  Retrieval("sub_genre", "Songs of the same sub-genre", _sub_genre),
  Retrieval(
    "playlist_songs",
    "Songs that share a playlist",
    _playlist,
    ("min_playlists",),
  ),
)
TASKS: dict[str, task_base.Task] = {
  "playlist_continuation": PlaylistContinuation(),
  **{task.name: task for task in _RETRIEVAL},
  "hubs": Hubs(),
}
