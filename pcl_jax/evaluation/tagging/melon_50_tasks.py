"""The tasks on Melon-50: probes, few labels, fine-tuning."""

import abc

from jaxtyping import Int
import numpy as np

from pcl_jax.common import errors
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import few_labels
from pcl_jax.evaluation.tagging import fine_tune
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import melon_50
from pcl_jax.evaluation.tagging import probes


def _make(
  context: task_base.Context,
) -> tuple[labelled_sets.LabelledSet, Int[np.ndarray, " rows"]]:
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


class Melon50Task(task_base.Task):
  """A task on Melon-50, whose set all of them share."""

  def run(self, context: task_base.Context) -> task_base.Result:
    """Measures a representation."""
    try:
      labelled, rows = context.once(_make)
      found = self.measure(context, labelled, rows)
    except (errors.InputError, errors.RunError) as error:
      raise task_base.NotAvailable(str(error)) from error
    found.settings["tags"] = len(labelled.tags)
    found.settings["songs_in_test_and_another_part"] = melon_50.overlap(
      labelled
    )
    return found

  @abc.abstractmethod
  def measure(
    self,
    context: task_base.Context,
    labelled: labelled_sets.LabelledSet,
    rows: Int[np.ndarray, " rows"],
  ) -> task_base.Result:
    """Measures the songs of the set, which are some rows of the catalogue."""


class Probe(Melon50Task):
  """A probe of frozen embeddings."""

  def __init__(self, kind: str, title: str):
    self.kind, self.title = kind, title

  def measure(self, context, labelled, rows):
    """Trains and scores a probe."""
    return probes.probe(context.embeddings[rows], labelled, kind=self.kind)


class FewLabels(Melon50Task):
  """A linear probe with fewer and fewer training labels."""

  title = "Melon-50, linear probe with few labels"

  def measure(self, context, labelled, rows):
    """Trains and scores probes."""
    found = few_labels.curve(context.embeddings[rows], labelled)
    return few_labels.as_result(found)


class FineTune(Melon50Task):
  """The whole encoder, trained further."""

  title = "Melon-50, whole encoder fine-tuned"
  slow = True

  def measure(self, context, labelled, rows):
    """Fine-tunes and scores a copy of the encoder."""
    if context.encoder is None:
      raise task_base.NotAvailable("there is no encoder to fine-tune")
    return fine_tune.fine_tune(
      context.encoder, context.data.store, rows, labelled
    )


TASKS: dict[str, task_base.Task] = {
  "melon_50": Probe("mlp", "Melon-50, MLP probe"),
  "melon_50_linear": Probe("linear", "Melon-50, linear probe"),
  "melon_50_few_labels": FewLabels(),
  "melon_50_fine_tune": FineTune(),
}
