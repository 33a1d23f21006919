"""Playlist continuation as a task, with its baselines."""

from collections.abc import Callable, Iterator

from pcl_jax.data import catalogues
from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.retrieval import playlist_continuation

# Splits of a playlist's context, by the split of the targets.
_KNOWN = {
  catalogues.TEST: (catalogues.TRAIN, catalogues.VALIDATION),
  catalogues.VALIDATION: (catalogues.TRAIN,),
}


def _split(context: task_base.Context) -> playlist_continuation.Problem:
  lists = context.catalogue.playlists
  if not len(lists.values):
    raise task_base.NotAvailable("the data set has no playlists")
  target = context.options.split
  problem = playlist_continuation.split_playlists(
    lists, context.catalogue.split, _KNOWN[target], target
  )
  if not len(problem.playlists):
    raise task_base.NotAvailable(
      f"no playlist holds {context.split_name} songs and songs to find them by"
    )
  return problem


def _score(
  context: task_base.Context,
  continuations: Callable[[playlist_continuation.Problem, int], Iterator],
) -> task_base.Result:
  """Scores the continuations of a problem, each of a given length."""
  problem, k = _split(context), context.options.neighbours
  lists, split = context.catalogue.playlists, context.options.split
  counts = playlist_continuation.popularity(lists, len(context.catalogue))
  columns = playlist_continuation.score_playlists(
    problem, continuations(problem, k), counts, k
  )
  shortened = int(columns.pop("shortened").sum())
  measured = {n: c for n, c in columns.items() if n != "playlist"}
  name = context.split_name
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
  )


def _popular(context: task_base.Context) -> task_base.Result:
  lists = context.catalogue.playlists
  counts = playlist_continuation.popularity(lists, len(context.catalogue))
  return _score(
    context,
    lambda problem, k: playlist_continuation.by_popularity(problem, counts, k),
  )


def _random(context: task_base.Context) -> task_base.Result:
  return _score(
    context,
    lambda problem, k: playlist_continuation.at_random(
      problem, context.seed, k
    ),
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
  baselines = {"popularity": _popular, "random": _random}

  def run(self, context: task_base.Context) -> task_base.Result:
    """Measures a representation."""
    return _score(
      context,
      lambda problem, k: playlist_continuation.continue_playlists(
        context.embeddings, problem, k
      ),
    )


TASKS = {"playlist_continuation": PlaylistContinuation()}
