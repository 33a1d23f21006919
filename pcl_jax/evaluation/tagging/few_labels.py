"""How far a few labels go: probes on a hundredth, a tenth, all of them.

The smaller sets of training labels lie within the larger ones, and each seed
draws its own. The features of all training songs give the scale, validation and
test songs stay the same, and so do the tags that enter the means.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

from jaxtyping import Bool, Float
import numpy as np

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import stratify
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import probe_data
from pcl_jax.evaluation.tagging import probes
from pcl_jax.evaluation.tagging import tagging_metrics
from pcl_jax.evaluation.tagging import tagging_results

SHARES = (0.01, 0.1, 1.0)
LEAST_SONGS = 5


def nested(
  labels: Bool[np.ndarray, "songs tags"], shares: Sequence[float], seed: int
) -> list[Bool[np.ndarray, " songs"]]:
  """Draws stratified subsets, each one within the next larger.

  Args:
    labels: of the songs.
    shares: of the songs, ascending, the last one at most 1.
    seed: of the draws.

  Returns:
    Which songs are in the subset of each share.

  Raises:
    InputError: the shares are not ascending within (0, 1].
  """
  ordered = list(shares)
  if (
    not ordered
    or sorted(set(ordered)) != ordered
    or not (0 < ordered[0] and ordered[-1] <= 1)
  ):
    raise errors.InputError(
      f"shares of labels are {ordered}; they must ascend within (0, 1]."
    )
  subsets = []
  within, size = np.arange(len(labels)), 1.0
  for share in reversed(ordered):
    if share < size:
      kept = stratify.choose_share(labels[within], share / size, seed)
      within, size = within[kept], share
    chosen = np.zeros(len(labels), bool)
    chosen[within] = True
    subsets.append(chosen)
  return subsets[::-1]


def _fewer(
  labelled: labelled_sets.LabelledSet, kept: Bool[np.ndarray, " training"]
) -> labelled_sets.LabelledSet:
  """Returns the set with some of its training songs only."""
  split = labelled.split.copy()
  training = np.flatnonzero(split == labelled_sets.TRAIN)
  split[training[~kept]] = catalogues.NO_SPLIT
  return dataclasses.replace(labelled, split=split)


def _name(share: float) -> str:
  return f"{100 * share:g}_percent"


def curve(
  features: Float[np.ndarray, "songs d"],
  labelled: labelled_sets.LabelledSet,
  *,
  shares: Sequence[float] = SHARES,
  seeds: Sequence[int] = (0, 1, 2),
  draws: int = 1000,
  **options: Any,
) -> dict[float, task_base.Result | str]:
  """Probes features with fewer and fewer training labels.

  Args:
    features: of the set's songs, in its order.
    labelled: the task.
    shares: of the training labels, ascending.
    seeds: each draws its subsets and trains its own probe.
    draws: bootstrap resamples of the test songs.
    **options: of `probes.choose`.

  Returns:
    For each share what the probes score, or why there are none.

  Raises:
    InputError: features or labels break a rule.
  """
  probe_data.check_labels(labelled)
  training = labelled.split == labelled_sets.TRAIN
  scale = probe_data.measure_scale(features[training])
  drawn = {
    seed: nested(labelled.labels[training], shares, seed) for seed in seeds
  }
  found: dict[float, task_base.Result | str] = {}
  for place, share in enumerate(shares):
    subsets = {seed: drawn[seed][place] for seed in seeds}
    least = min(int(kept.sum()) for kept in subsets.values())
    if least < LEAST_SONGS:
      found[share] = (
        f"share ({100 * share:g} % of {int(training.sum())} training songs "
        f"are {least}, fewer than {LEAST_SONGS})"
      )
      continue
    found[share] = _measure(
      features, labelled, subsets, draws, options | {"scale": scale}
    )
  return found


def _measure(
  features: np.ndarray,
  labelled: labelled_sets.LabelledSet,
  subsets: dict[int, np.ndarray],
  draws: int,
  options: dict[str, Any],
) -> task_base.Result:
  """Trains a probe on each seed's subset and measures them together."""
  chosen, unlearnt = [], []
  for seed, kept in subsets.items():
    fewer = _fewer(labelled, kept)
    chosen.append(probes.choose(features, fewer, seeds=(seed,), **options))
    labels = fewer.labels[fewer.split == labelled_sets.TRAIN]
    unlearnt.append(int((~tagging_metrics.both_classes(labels)).sum()))
  settings = chosen[0].settings | {
    "seeds": list(subsets),
    "training_songs_by_seed": [int(kept.sum()) for kept in subsets.values()],
    "unlearnable_tags_by_seed": unlearnt,
  }
  for name in chosen[0].settings:
    if name.startswith("chosen_"):
      settings[name] = [one.settings[name] for one in chosen]
  scores = np.concatenate([one.scores for one in chosen])
  return tagging_results.of_scores(scores, labelled, settings, draws=draws)


def as_result(
  found: dict[float, task_base.Result | str],
) -> task_base.Result:
  """Puts a curve's results into one.

  Args:
    found: as `curve` returns it.

  Returns:
    Metrics and columns named `roc_auc_1_percent` and so on.

  Raises:
    NotAvailable: every share is too small.
  """
  metrics, columns, settings, left_out = {}, {}, {}, {}
  for share, one in found.items():
    if isinstance(one, str):
      left_out[one] = 1
      continue
    name = _name(share)
    metrics |= {f"{key}_{name}": value for key, value in one.metrics.items()}
    first, *others = one.per_item
    columns |= {first: one.per_item[first]}
    columns |= {f"{key}_{name}": one.per_item[key] for key in others}
    settings |= {"set": one.settings["set"], f"chosen_{name}": one.settings}
    left_out |= one.left_out
  if not metrics:
    raise task_base.NotAvailable("; ".join(left_out))
  return task_base.Result(metrics, columns, left_out, settings)
