"""ROC-AUC and average precision of tags, with bootstrap intervals."""

from typing import Any

from jaxtyping import Bool, Float
import numpy as np
from scipy import sparse

from pcl_jax.common import errors
from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import labelled_sets

UNTESTED = "tags that all or none of the test songs have"
UNLEARNT = "tags that all or none of the training songs have"
_MACRO = ("roc_auc", "average_precision")


def both_classes(
  labels: Bool[np.ndarray, "songs tags"],
) -> Bool[np.ndarray, " tags"]:
  """Returns for which tags there are songs with it and songs without it."""
  return labels.any(axis=0) & ~labels.all(axis=0)


def _segments(
  scores: Float[np.ndarray, " songs"], labels: Bool[np.ndarray, " songs"]
) -> tuple[np.ndarray, np.ndarray]:
  """Cuts the songs, best first, where a curve can change.

  Songs of equal score are in one segment, whatever their label; runs of scores
  that no song with the tag has are one segment too, as only their sum counts.

  Returns:
    The order of the songs, [songs], and where each segment begins.
  """
  order = np.argsort(-scores, kind="stable")
  ranked, has = scores[order], labels[order]
  begins = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
  holds = np.maximum.reduceat(has, begins)
  kept = np.append(True, holds[1:] | holds[:-1])
  return order, begins[kept]


def _sums(
  order: np.ndarray,
  begins: np.ndarray,
  wanted: np.ndarray,
  weights: np.ndarray,
) -> np.ndarray:
  """Sums the weights of each segment's wanted songs, [segments, draws]."""
  taken = wanted[order]
  ends = np.append(0, np.cumsum(taken))
  starts = np.append(ends[begins], ends[-1])
  columns = order[taken]
  # A product with a sparse matrix: the weights are read once and not sorted.
  matrix = sparse.csr_array(
    (np.ones(len(columns), weights.dtype), columns, starts),
    shape=(len(begins), len(order)),
  )
  return matrix @ weights


def _weighted(
  scores: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Computes both metrics of one tag for each column of weights."""
  order, begins = _segments(scores, labels)
  with_tag = _sums(order, begins, labels, weights).astype(np.float64)
  without = _sums(order, begins, ~labels, weights).astype(np.float64)
  found, false = with_tag.cumsum(axis=0), without.cumsum(axis=0)
  positives, negatives = found[-1], false[-1]
  # The area below the ROC curve is a trapezium over each segment.
  above = (without * (found - with_tag / 2)).sum(axis=0)
  share = np.divide(
    found, found + false, out=np.zeros_like(found), where=found > 0
  )
  both = (positives > 0) & (negatives > 0)
  area = np.full(len(both), np.nan)
  precision = area.copy()
  np.divide(above, positives * negatives, out=area, where=both)
  np.divide(
    (with_tag * share).sum(axis=0), positives, out=precision, where=both
  )
  return area, precision


def _over_tags(
  scores: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Computes both metrics, [tags, draws] each."""
  pairs = [
    _weighted(scores[:, tag], labels[:, tag], weights)
    for tag in range(scores.shape[1])
  ]
  area, precision = zip(*pairs, strict=True)
  return np.array(area), np.array(precision)


def by_tag(
  scores: Float[np.ndarray, "songs tags"],
  labels: Bool[np.ndarray, "songs tags"],
) -> tuple[Float[np.ndarray, " tags"], Float[np.ndarray, " tags"]]:
  """Computes ROC-AUC and average precision of each tag.

  Equal scores are treated as scikit-learn does: half right for the area, one
  threshold for the precision.

  Args:
    scores: higher for songs that are likelier to have the tag, finite.
    labels: which song has which tag.

  Returns:
    ROC-AUC and average precision, [tags] each; nan where all songs or none have
    the tag.
  """
  area, precision = _over_tags(
    scores, labels, np.ones((len(scores), 1), np.float32)
  )
  return area[:, 0], precision[:, 0]


def macro_draws(
  scores: Float[np.ndarray, "seeds songs tags"],
  labels: Bool[np.ndarray, "songs tags"],
  *,
  draws: int = 1000,
) -> Float[np.ndarray, "metrics draws"]:
  """Computes both macro means for bootstrap resamples of the songs.

  Args:
    scores: scores of one probe per seed; their metrics are averaged.
    labels: which song has which tag; only tags with both classes.
    draws: number of resamples.

  Returns:
    Macro ROC-AUC and macro average precision of each resample, [2, draws]:
    means over the tags that have both classes in it; nan where no tag has.
  """
  found = []
  for counts in bootstrap.resample_counts(len(labels), draws, at_once=100):
    weights = counts.T.astype(np.float32)
    by_seed = [_over_tags(one, labels, weights) for one in scores]
    found.append(mean_where_defined(np.mean(by_seed, axis=0), axis=1))
  return np.concatenate(found, axis=1)


def mean_where_defined(
  values: Float[np.ndarray, "*shape"], axis: int | None = None
) -> np.ndarray:
  """Returns the mean of what is not nan; nan, without a warning, of nothing."""
  there = ~np.isnan(values)
  total = np.where(there, values, 0.0).sum(axis=axis)
  count = there.sum(axis=axis)
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def interval(draws: Float[np.ndarray, " draws"]) -> tuple[float, float]:
  """Returns the 95 % percentile interval of bootstrapped values."""
  draws = draws[~np.isnan(draws)]
  if not len(draws):
    return float("nan"), float("nan")
  low, high = np.quantile(draws, [0.025, 0.975])
  return float(low), float(high)


def _spread(by_seed: Float[np.ndarray, " seeds"]) -> float | None:
  """Returns the standard deviation over seeds; None for a single one."""
  return float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None


def _accuracy(
  scores: np.ndarray, labels: np.ndarray, draws: int
) -> tuple[task_base.Metric, float | None, np.ndarray]:
  """Returns the accuracy, its spread over seeds, and that of each tag."""
  right = scores.argmax(axis=-1) == labels.argmax(axis=-1)[None]
  songs = right.mean(axis=0)
  (metric,) = bootstrap.mean_metrics({"songs": songs}, draws=draws).values()
  by_tag = mean_where_defined(np.where(labels, songs[:, None], np.nan), axis=0)
  return metric, _spread(right.mean(axis=1)), by_tag


def measure(
  scores: Float[np.ndarray, "seeds songs tags"],
  labelled: labelled_sets.LabelledSet,
  settings: dict[str, Any],
  *,
  draws: int = 1000,
) -> task_base.Result:
  """Computes the metrics of a tagging task, with intervals, and its table.

  Args:
    scores: scores of the test songs, in the set's order, per training seed;
      comparable between songs (for a softmax its logarithm).
    labelled: the task.
    settings: what decided the scores; the spread over seeds is added.
    draws: bootstrap resamples of the test songs.

  Returns:
    Macro ROC-AUC and macro average precision, after accuracy where each song
    has one tag; means over the seeds. Tags of which training or test songs
    have one class only are left out of macro means.

  Raises:
    InputError: no metric is defined.
  """
  labels = labelled.labels_of(labelled_sets.TEST)
  training = labelled.labels_of(labelled_sets.TRAIN)
  tested, learnt = both_classes(labels), both_classes(training)
  kept = tested & learnt
  metrics, spread, last_column = {}, {}, {}
  if labelled.single_label:
    found = _accuracy(scores, labels, draws)
    metrics["accuracy"], spread["accuracy"], last_column["accuracy"] = found
  elif not kept.any():
    raise errors.InputError(
      f"{labelled.name} has no tag that some but not all test songs have, and "
      f"some but not all training songs ({len(labels)} test songs, "
      f"{len(training)} training songs, {len(labelled.tags)} tags): no metric "
      "is defined. Give a set with more songs or another split."
    )
  by_seed = np.array([by_tag(one, labels) for one in scores])
  by_seed[:, :, ~kept] = np.nan
  if kept.any():
    drawn = macro_draws(scores[:, :, kept], labels[:, kept], draws=draws)
    means = by_seed[:, :, kept].mean(axis=2)
    for i, name in enumerate(_MACRO):
      metrics[name] = task_base.Metric(
        float(means[:, i].mean()), *interval(drawn[i]), int(kept.sum())
      )
      spread[name] = _spread(means[:, i])
  columns = {"tag": np.array(labelled.tags), "positives": labels.sum(axis=0)}
  columns |= dict(zip(_MACRO, by_seed.mean(axis=0), strict=True)) | last_column
  left_out = {UNTESTED: int((~tested).sum()), UNLEARNT: int((~learnt).sum())}
  return task_base.Result(
    metrics,
    columns,
    {reason: count for reason, count in left_out.items() if count},
    settings | {"chosen_std_over_seeds": spread, "bootstrap_draws": draws},
  )
