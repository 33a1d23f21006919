"""The retrieval tasks: artist, album, sub-genre, playlists, and hubs."""

from collections.abc import Callable
import functools

from jaxtyping import Float, Int
import numpy as np

from pcl_jax.data import catalogues
from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation import context as contexts
from pcl_jax.evaluation import task_results
from pcl_jax.evaluation.retrieval import ranking
from pcl_jax.evaluation.retrieval import relevance

SHOWN = (
  "average_precision",
  "precision_at_5",
  "r_precision",
  "recall_at_10",
  "ndcg_at_10",
  "reciprocal_rank",
)
_DRAWS = 2000


def _artists(context: contexts.Context, lists: catalogues.Ragged):
  most = context.options.largest_artist
  return lists if most is None else relevance.without_large(lists, most)


def _artist(context: contexts.Context) -> relevance.Relevance | str:
  lists = _artists(context, context.catalogue.artists)
  if not len(lists.values):
    return "no song has an artist"
  return relevance.Relevance.of(lists)


def _artist_other_album(context: contexts.Context):
  lists = _artists(context, context.catalogue.artists)
  albums = relevance.albums(context.catalogue)
  if not len(lists.values) or not len(albums.values):
    return "no song has an artist and an album"
  return relevance.Relevance.of(lists, hiding=albums)


def _album(context: contexts.Context) -> relevance.Relevance | str:
  lists = _artists(context, relevance.albums(context.catalogue))
  if not len(lists.values):
    return "no song has an album"
  return relevance.Relevance.of(lists)


def _sub_genre(context: contexts.Context) -> relevance.Relevance | str:
  lists = relevance.sub_genres(context.catalogue)
  if not len(lists.values):
    return "no song has a sub-genre (a genre code that does not end in 00)"
  return relevance.Relevance.of(lists)


def _playlists(context: contexts.Context) -> relevance.Relevance | str:
  lists = context.catalogue.playlists
  if not len(lists.values):
    return "the data set has no playlists"
  return relevance.Relevance.of(
    lists.transposed(len(context.catalogue)),
    at_least=context.options.min_playlists,
  )


_RULES: dict[str, Callable] = {
  "artist": _artist,
  "artist_other_album": _artist_other_album,
  "album": _album,
  "sub_genre": _sub_genre,
  "playlist_songs": _playlists,
}


def _ranked(context: contexts.Context, embeddings: contexts.Embeddings):
  """Ranks once for all retrieval tasks that were chosen."""
  names = [n for n in _RULES if n in context.chosen or not context.chosen]
  rules = {name: _RULES[name](context) for name in names}
  given = {k: rule for k, rule in rules.items() if not isinstance(rule, str)}
  songs = context.sought
  columns, nearest = ranking.measure(embeddings, songs, songs, given)
  return rules, columns, nearest


def _too_few(context: contexts.Context) -> str | None:
  if len(context.sought) < 2:
    return f"there are fewer than two {context.split_name} songs"
  return None


def _run(
  name: str, context: contexts.Context, embeddings: contexts.Embeddings
) -> task_results.Outcome | str:
  if reason := _too_few(context):
    return reason
  rules, columns, _ = context.once(
    "retrieval", functools.partial(_ranked, context, embeddings)
  )
  if isinstance(rules[name], str):
    return rules[name]
  found = columns[name]
  defined = ~np.isnan(found["average_precision"])
  if not defined.any():
    return (
      f"no {context.split_name} song has another one that is alike in this way"
    )
  kept = {one: values[defined] for one, values in found.items()}
  ids = context.catalogue.song_ids[context.sought]
  settings = {
    "queries": context.split_name,
    "candidates": context.split_name,
    "candidates_number": len(ids),
    "near_by": "cosine",
  }
  if name == "playlist_songs":
    settings["min_playlists"] = context.options.min_playlists
  elif name != "sub_genre":
    settings["largest_artist"] = context.options.largest_artist
  return task_results.Outcome(
    metrics=bootstrap.mean_metrics(kept, draws=_DRAWS, seed=context.seed),
    per_item={"song_id": ids[defined]} | kept,
    left_out={"queries without a relevant song": int((~defined).sum())},
    settings=settings,
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
) -> dict[str, task_results.Metric]:
  """Measures how unevenly songs stand in the lists of others.

  Args:
    counts: lists of the 10 nearest that each song stands in, [songs].
    seed: of the resamples.

  Returns:
    `occurrence_skewness` (0 where all occur alike, above where few songs are
    hubs) and `never_returned` (share of songs that stand in no list).
  """
  x = counts.astype(np.float64)
  columns = np.stack([x, x**2, x**3, counts == 0], axis=1)
  means = bootstrap.resampled_means(columns, draws=_DRAWS, seed=seed)
  values = {
    "occurrence_skewness": (
      _skewness(columns[:, :3].mean(axis=0)),
      _skewness(means[:, :3]),
    ),
    "never_returned": (columns[:, 3].mean(), means[:, 3]),
  }
  metrics = {}
  for name, (value, drawn) in values.items():
    low, high = np.quantile(drawn, [0.025, 0.975])
    metrics[name] = task_results.Metric(
      float(value), float(low), float(high), len(counts)
    )
  return metrics


def _run_hubs(
  context: contexts.Context, embeddings: contexts.Embeddings
) -> task_results.Outcome | str:
  if reason := _too_few(context):
    return reason
  _, _, nearest = context.once(
    "retrieval", functools.partial(_ranked, context, embeddings)
  )
  counts = ranking.occurrences(nearest, len(context.sought))
  return task_results.Outcome(
    metrics=hubs(counts, context.seed),
    per_item={
      "song_id": context.catalogue.song_ids[context.sought],
      "occurrences": counts,
      "never_returned": (counts == 0).astype(np.float64),
    },
    settings={"songs": context.split_name, "list_length": nearest.shape[1]},
  )


def _task(name: str, title: str) -> contexts.Task:
  return contexts.Task(title, functools.partial(_run, name), shown=SHOWN)


TASKS = {
  "artist": _task("artist", "Songs of the same artist"),
  "artist_other_album": _task(
    "artist_other_album",
    "Songs of the same artist, those of the same album left out",
  ),
  "album": _task("album", "Songs of the same album"),
  "sub_genre": _task("sub_genre", "Songs of the same sub-genre"),
  "playlist_songs": _task("playlist_songs", "Songs that share a playlist"),
  "hubs": contexts.Task("Hubs among the 10 nearest", _run_hubs),
}
