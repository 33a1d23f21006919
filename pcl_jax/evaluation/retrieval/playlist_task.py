"""Playlist continuation as a task, with its baselines."""

from collections.abc import Callable, Iterator
import functools

import numpy as np

from pcl_jax.data import catalogues
from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation import context as contexts
from pcl_jax.evaluation import task_results
from pcl_jax.evaluation.retrieval import playlist_continuation

_SHOWN = (
  "recall",
  "recall_at_10",
  "average_precision",
  "ndcg",
  "r_precision",
  "ndcg_published",
)
# What the context of a playlist is, by the split of the songs sought.
_KNOWN = {
  catalogues.TEST: (catalogues.TRAIN, catalogues.VALIDATION),
  catalogues.VALIDATION: (catalogues.TRAIN,),
}


def _pose(context: contexts.Context) -> playlist_continuation.Problem:
  return playlist_continuation.pose(
    context.catalogue.playlists,
    context.catalogue.split,
    _KNOWN[context.options.split],
    context.options.split,
  )


def _judge(
  context: contexts.Context,
  find: Callable[[playlist_continuation.Problem, np.ndarray], Iterator],
) -> task_results.Outcome | str:
  """Judges what `find` yields for a problem and the songs' popularity."""
  lists, split = context.catalogue.playlists, context.split_name
  if not len(lists.values):
    return "the data set has no playlists"
  problem = _pose(context)
  if not len(problem.playlists):
    return f"no playlist holds {split} songs and songs to find them by"
  counts = playlist_continuation.popularity(lists, len(context.catalogue))
  k = context.options.neighbours
  columns = playlist_continuation.table_of(
    problem, find(problem, counts), counts, k
  )
  shortened = int(columns.pop("shortened").sum())
  measured = {n: c for n, c in columns.items() if n != "playlist"}
  left_out = len(lists) - len(problem.playlists)
  return task_results.Outcome(
    metrics=bootstrap.mean_metrics(measured, seed=context.seed),
    per_item=columns,
    left_out={f"playlists without {split} songs or without others": left_out},
    settings={
      "targets": split,
      "context": [
        catalogues.SPLIT_NAMES[s] for s in _KNOWN[context.options.split]
      ],
      "candidates_number": len(problem.candidates),
      "neighbours": k,
      "found_lists_the_published_code_shortens": shortened,
    },
  )


def _run(
  context: contexts.Context, embeddings: contexts.Embeddings
) -> task_results.Outcome | str:
  def find(problem, counts):
    del counts
    return playlist_continuation.continue_playlists(
      embeddings, problem, context.options.neighbours
    )

  return _judge(context, find)


def _popular(context: contexts.Context) -> task_results.Outcome | str:
  k = context.options.neighbours
  return _judge(
    context, functools.partial(playlist_continuation.by_popularity, k=k)
  )


def _random(context: contexts.Context) -> task_results.Outcome | str:
  def find(problem, counts):
    del counts
    k = context.options.neighbours
    return playlist_continuation.at_random(problem, context.seed, k)

  return _judge(context, find)


TASKS = {
  "playlist_continuation": contexts.Task(
    "Playlist continuation",
    _run,
    baselines={"popularity": _popular, "random": _random},
    shown=_SHOWN,
  )
}
