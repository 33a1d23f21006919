"""What test scores of a tagging task amount to."""

from typing import Any

from jaxtyping import Float
import numpy as np

from pcl_jax.common import errors
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import tagging_metrics

UNTESTED = "tags that all or none of the test songs have"
UNLEARNT = "tags that all or none of the training songs have"


def _correct(
  scores: np.ndarray, labels: np.ndarray
) -> Float[np.ndarray, "seeds songs"]:
  """Tells which songs' highest score is at their own tag."""
  own = labels.argmax(axis=-1)
  return (scores.argmax(axis=-1) == own[None]).astype(np.float64)


def _accuracy(correct: np.ndarray, draws: int, seed: int) -> task_base.Metric:
  songs = correct.mean(axis=0)
  means = [
    songs @ weights / len(songs)
    for weights in tagging_metrics.draw_weights(len(songs), draws, seed)
  ]
  low, high = tagging_metrics.interval(np.concatenate(means))
  return task_base.Metric(float(songs.mean()), low, high, len(songs))


def _spread(by_seed: Float[np.ndarray, " seeds"]) -> float | None:
  """Returns the standard deviation over seeds; None of a single one."""
  return float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None


def _macro(
  values: Float[np.ndarray, "seeds tags"], drawn: Float[np.ndarray, " draws"]
) -> tuple[task_base.Metric, float | None]:
  """Returns a macro mean with its interval, and its spread over seeds."""
  means = values.mean(axis=1)
  low, high = tagging_metrics.interval(drawn)
  metric = task_base.Metric(float(means.mean()), low, high, values.shape[1])
  return metric, _spread(means)


def _per_tag(
  areas: np.ndarray,
  precisions: np.ndarray,
  labelled: labelled_sets.LabelledSet,
  labels: np.ndarray,
  correct: np.ndarray | None,
) -> dict[str, np.ndarray]:
  """Returns the table of the tags; means over the seeds."""
  table = {
    "tag": np.array(labelled.tags),
    "positives": labels.sum(axis=0),
    "roc_auc": areas.mean(axis=0),
    "average_precision": precisions.mean(axis=0),
  }
  if correct is not None:
    songs = labels.sum(axis=0)
    right = correct.mean(axis=0) @ labels
    table["accuracy"] = np.where(
      songs > 0, right / np.maximum(songs, 1), np.nan
    )
  return table


def of_scores(
  scores: Float[np.ndarray, "seeds songs tags"],
  labelled: labelled_sets.LabelledSet,
  settings: dict[str, Any],
  *,
  draws: int = 1000,
  bootstrap_seed: int = 0,
) -> task_base.Result:
  """Computes the metrics of a tagging task, with intervals, and its table.

  Args:
    scores: of the test songs, in the set's order, for each seed of training;
      comparable between songs (of a softmax its logarithm).
    labelled: the task.
    settings: what decided the scores; the spread over seeds is added.
    draws: bootstrap resamples of the test songs.
    bootstrap_seed: of the resamples.

  Returns:
    Macro ROC-AUC and macro average precision, after accuracy where a song has
    one tag each; means over the seeds. Tags of which training or test songs
    have one class only are left out of macro means.

  Raises:
    InputError: no metric is defined.
  """
  labels = labelled.labels[labelled.split == labelled_sets.TEST]
  training = labelled.labels[labelled.split == labelled_sets.TRAIN]
  tested = tagging_metrics.both_classes(labels)
  learnt = tagging_metrics.both_classes(training)
  kept = tested & learnt
  metrics, spread = {}, {}
  correct = None
  if labelled.one_each:
    correct = _correct(scores, labels)
    metrics["accuracy"] = _accuracy(correct, draws, bootstrap_seed)
    spread["accuracy"] = _spread(correct.mean(axis=1))
  elif not kept.any():
    raise errors.InputError(
      f"{labelled.name} has no tag that some test songs have and others have "
      f"not, and training songs likewise ({len(labels)} test songs, "
      f"{len(training)} training songs, {len(labelled.tags)} tags): no metric "
      "is defined. Give a set with more songs or another split."
    )
  by_seed = [tagging_metrics.by_tag(one, labels) for one in scores]
  areas, precisions = (np.array(one) for one in zip(*by_seed, strict=True))
  areas[:, ~kept] = precisions[:, ~kept] = np.nan
  if kept.any():
    found = {"roc_auc": areas, "average_precision": precisions}
    resampled = tagging_metrics.macro_draws(
      scores[:, :, kept], labels[:, kept], draws=draws, seed=bootstrap_seed
    )
    for (name, values), drawn in zip(found.items(), resampled, strict=True):
      metrics[name], spread[name] = _macro(values[:, kept], drawn)
  left_out = {UNTESTED: int((~tested).sum()), UNLEARNT: int((~learnt).sum())}
  return task_base.Result(
    metrics=metrics,
    per_item=_per_tag(areas, precisions, labelled, labels, correct),
    left_out={reason: count for reason, count in left_out.items() if count},
    settings=settings
    | {
      "chosen_std_over_seeds": spread,
      "bootstrap_draws": draws,
    },
  )
