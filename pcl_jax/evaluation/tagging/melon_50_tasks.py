"""The tasks on Melon-50: probes, few labels, fine-tuning."""

from collections.abc import Callable
import functools

from jaxtyping import Int
import numpy as np

from pcl_jax.common import errors
from pcl_jax.evaluation import context as contexts
from pcl_jax.evaluation import task_results
from pcl_jax.evaluation.tagging import few_labels
from pcl_jax.evaluation.tagging import fine_tune
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import melon_50
from pcl_jax.evaluation.tagging import probes

Made = tuple[labelled_sets.LabelledSet, Int[np.ndarray, " rows"]]
Measure = Callable[
  [contexts.Context, contexts.Embeddings, Made], task_results.Outcome | str
]


def _make(context: contexts.Context) -> Made:
  labelled, rows = melon_50.melon_50(
    context.catalogue, published_split=context.options.published_split
  )
  if overlap := melon_50.overlap(labelled):
    tested = int((labelled.split == labelled_sets.TEST).sum())
    print(
      f"{labelled.name}: {overlap} of {tested} test songs are training or "
      "validation songs as well, as in the published script; without "
      "--published_split none is"
    )
  return labelled, rows


def _with_set(
  measure: Measure, context: contexts.Context, embeddings: contexts.Embeddings
) -> task_results.Outcome | str:
  """Measures on Melon-50, or says why that cannot be.

  Args:
    measure: of the context, the embeddings and the set with its rows.
    context: of the evaluation.
    embeddings: of all songs.
  """
  try:
    made = context.once("melon_50", lambda: _make(context))
    found = measure(context, embeddings, made)
  except (errors.InputError, errors.RunError) as error:
    return str(error)  # The other tasks can be measured.
  if isinstance(found, task_results.Outcome):
    found.settings["tags"] = len(made[0].tags)
    found.settings["songs_in_test_and_another_part"] = melon_50.overlap(made[0])
  return found


def _probe(
  kind: str,
  _: contexts.Context,
  embeddings: contexts.Embeddings,
  made: Made,
) -> task_results.Outcome:
  labelled, rows = made
  return probes.probe(embeddings[rows], labelled, kind=kind)


def _few_labels(
  _: contexts.Context, embeddings: contexts.Embeddings, made: Made
) -> task_results.Outcome | str:
  labelled, rows = made
  return few_labels.as_outcome(few_labels.curve(embeddings[rows], labelled))


def _fine_tune(
  context: contexts.Context, _: contexts.Embeddings, made: Made
) -> task_results.Outcome | str:
  if context.encoder is None:
    return "there is no encoder to fine-tune"
  labelled, rows = made
  return fine_tune.fine_tune(
    context.encoder, context.data.store, rows, labelled
  )


def _task(title: str, measure: Measure, *, slow: bool = False) -> contexts.Task:
  run = functools.partial(_with_set, measure)
  return contexts.Task(title, run, slow=slow)


TASKS = {
  "melon_50": _task("Melon-50, MLP probe", functools.partial(_probe, "mlp")),
  "melon_50_linear": _task(
    "Melon-50, linear probe", functools.partial(_probe, "linear")
  ),
  "melon_50_few_labels": _task(
    "Melon-50, linear probe with few labels", _few_labels
  ),
  "melon_50_fine_tune": _task(
    "Melon-50, whole encoder fine-tuned", _fine_tune, slow=True
  ),
}
