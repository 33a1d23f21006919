"""Probes trained on few labels: on a hundredth, a tenth, and all of them.

The smaller sets of training labels lie within the larger ones, and each seed
draws its own. The features of all training songs give the scale; validation
and test songs stay the same, and so do the tags that enter the means.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

from jaxtyping import Bool, Float
import numpy as np

from pcl_jax.data import catalogues
from pcl_jax.data.splits import stratify
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import probe_file
from pcl_jax.evaluation.tagging import probes
from pcl_jax.evaluation.tagging import tagging_metrics

SHARES = (0.01, 0.1, 1.0)
LEAST_SONGS = 5


def nested(
  labels: Bool[np.ndarray, "songs tags"], shares: Sequence[float], seed: int
) -> list[Bool[np.ndarray, " songs"]]:
  """Draws stratified subsets, each one within the next larger.

  Args:
    labels: labels of the songs.
    shares: shares of the songs, ascending within (0, 1].
    seed: seed of the draws.

  Returns:
    Which songs are in the subset of each share.
  """
  subsets = []
  within, size = np.arange(len(labels)), 1.0
  for share in reversed(shares):
    if share < size:
      kept = stratify.choose_share(labels[within], share / size, seed)
      within, size = within[kept], share
    chosen = np.zeros(len(labels), bool)
    chosen[within] = True
    subsets.append(chosen)
  return subsets[::-1]


def keep_training(
  labelled: labelled_sets.LabelledSet, kept: Bool[np.ndarray, " training"]
) -> labelled_sets.LabelledSet:
  """Returns the set with only some of its training songs."""
  split = labelled.split.copy()
  training = np.flatnonzero(split == labelled_sets.TRAIN)
  split[training[~kept]] = catalogues.NO_SPLIT
  return dataclasses.replace(labelled, split=split)


def measure(
  features: Float[np.ndarray, "songs d"],
  labelled: labelled_sets.LabelledSet,
  *,
  shares: Sequence[float] = SHARES,
  seeds: Sequence[int] = (0, 1, 2),
  draws: int = 1000,
  **options: Any,
) -> task_base.Result:
  """Probes features with fewer and fewer training labels.

  Args:
    features: features of the set's songs, in its order.
    labelled: the task.
    shares: shares of the training labels, ascending.
    seeds: each seed draws its subsets and trains its own probe.
    draws: bootstrap resamples of the test songs.
    **options: arguments of `probes.fit`.

  Returns:
    Metrics and columns named `roc_auc_1_percent` and so on.

  Raises:
    InputError: features or labels break a rule.
    NotAvailable: every share is too small.
  """
  labelled.check()
  options["scale"] = probe_file.Scale.measure(
    features[labelled.split == labelled_sets.TRAIN]
  )
  labels = labelled.labels_of(labelled_sets.TRAIN)
  drawn = [nested(labels, shares, seed) for seed in seeds]
  combined = task_base.Result({}, {})
  for share, subsets in zip(shares, zip(*drawn, strict=True), strict=True):
    least = min(int(kept.sum()) for kept in subsets)
    if least < LEAST_SONGS:
      combined.left_out[
        f"share ({100 * share:g} % of {len(labels)} training songs are "
        f"{least}, fewer than {LEAST_SONGS})"
      ] = 1
      continue
    kept = dict(zip(seeds, subsets, strict=True))
    one = _measure_share(features, labelled, kept, draws, options)
    _add(combined, one, f"{100 * share:g}_percent")
  if not combined.metrics:
    raise task_base.NotAvailable("; ".join(combined.left_out))
  return combined


def _add(combined: task_base.Result, one: task_base.Result, name: str) -> None:
  """Adds the result of a share under its name."""
  for key, metric in one.metrics.items():
    combined.metrics[f"{key}_{name}"] = metric
  tag, *columns = one.per_item
  combined.per_item[tag] = one.per_item[tag]
  for key in columns:
    combined.per_item[f"{key}_{name}"] = one.per_item[key]
  combined.settings["set"] = one.settings["set"]
  combined.settings[f"chosen_{name}"] = one.settings
  combined.left_out.update(one.left_out)


def _measure_share(
  features: np.ndarray,
  labelled: labelled_sets.LabelledSet,
  subsets: dict[int, np.ndarray],
  draws: int,
  options: dict[str, Any],
) -> task_base.Result:
  """Trains a probe on each seed's subset and measures them together."""
  fitted, unlearnt = [], []
  for seed, kept in subsets.items():
    fewer = keep_training(labelled, kept)
    fitted.append(probes.fit(features, fewer, seeds=(seed,), **options))
    labels = fewer.labels_of(labelled_sets.TRAIN)
    unlearnt.append(int((~tagging_metrics.both_classes(labels)).sum()))
  settings = fitted[0].settings | {
    "seeds": list(subsets),
    "training_songs_by_seed": [int(kept.sum()) for kept in subsets.values()],
    "unlearnable_tags_by_seed": unlearnt,
  }
  for name in fitted[0].settings:
    if name.startswith("chosen_"):
      settings[name] = [one.settings[name] for one in fitted]
  scores = np.concatenate([one.scores for one in fitted])
  return tagging_metrics.measure(scores, labelled, settings, draws=draws)
