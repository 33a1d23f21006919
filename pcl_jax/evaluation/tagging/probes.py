"""Probes: what can be read off frozen features by a small network.

A linear layer, or the paper's MLP, is trained on the features of training
songs for several seeds, learning rates and weight decays at once. Each stops
by its own validation loss; rate and decay are chosen by a validation metric,
and the chosen are measured on the test songs.
"""

from collections.abc import Sequence
import dataclasses
import os
from typing import Any

import jax
from jaxtyping import Float, Int
import numpy as np

from pcl_jax.common import errors
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import probe_data
from pcl_jax.evaluation.tagging import probe_file
from pcl_jax.evaluation.tagging import probe_training
from pcl_jax.evaluation.tagging import tagging_metrics
from pcl_jax.evaluation.tagging import tagging_results

MEANS = ("probabilities", "logits")
_CHOSEN_BY = ("roc_auc", "average_precision", "accuracy")


def song_scores(
  logits: Float[np.ndarray, "rows tags"],
  songs: Int[np.ndarray, " rows"],
  *,
  one_each: bool,
  mean_of: str | None,
) -> Float[np.ndarray, "songs tags"]:
  """Brings scores of patches together into scores of songs.

  Args:
    logits: of patches, or of songs.
    songs: that each row is of; a song's rows give one row of the result, in
      the order of the songs' numbers.
    one_each: a softmax makes the probabilities, not sigmoids.
    mean_of: `probabilities` or `logits`, over the patches of a song; None:
      one row a song.

  Returns:
    Scores that may be compared between songs, logarithms or probabilities.
  """
  scores = logits.astype(np.float64)
  if mean_of == "probabilities":
    squash = jax.nn.softmax if one_each else jax.nn.sigmoid
    scores = np.asarray(squash(logits), np.float64)
  numbers, rows = np.unique(songs, return_inverse=True)
  total = np.zeros((len(numbers), logits.shape[1]))
  np.add.at(total, rows, scores)
  total /= np.bincount(rows)[:, None]
  if one_each and mean_of != "probabilities":
    # Logits are comparable within a song; of a softmax also between songs.
    total -= np.logaddexp.reduce(total, axis=1, keepdims=True)
  return total


def validation_metric(
  name: str,
  scores: Float[np.ndarray, "songs tags"],
  labels: np.ndarray,
) -> float:
  """Returns accuracy, or a macro mean; nan where none is defined.

  Args:
    name: `accuracy`, `roc_auc` or `average_precision`.
    scores: of validation songs.
    labels: their tags, bool [songs, tags].
  """
  if name == "accuracy":
    return float((scores.argmax(axis=1) == labels.argmax(axis=1)).mean())
  if not np.isfinite(scores).all():
    return float("nan")  # Its rate was too high.
  area, precision = tagging_metrics.by_tag(scores, labels)
  values = area if name == "roc_auc" else precision
  return float(tagging_metrics.mean_where_defined(values))


def check_chosen_by(
  chosen_by: str | None, labelled: labelled_sets.LabelledSet
) -> str:
  """Returns the metric to choose by; refuses one that this set has not."""
  if chosen_by is None:
    return "accuracy" if labelled.one_each else "average_precision"
  if chosen_by not in _CHOSEN_BY[: 3 if labelled.one_each else 2]:
    raise errors.InputError(
      f"chosen_by is {chosen_by!r}; it is one of {', '.join(_CHOSEN_BY)}, the "
      "last one where each song has exactly one tag."
    )
  return chosen_by


class _Scorer:
  """Scores the songs of a part with any member."""

  def __init__(
    self,
    examples: probe_training.Examples,
    labelled: labelled_sets.LabelledSet,
    part: int,
    mean_of: str | None,
  ):
    self._examples, self._mean_of = examples, mean_of
    owners = np.asarray(examples.owners)
    self._rows = np.flatnonzero(labelled.split[owners] == part)
    self._songs = owners[self._rows]
    self.labels = labelled.labels[labelled.split == part]

  def __call__(self, params: probe_training.Params) -> np.ndarray:
    found = probe_training.score(
      params, self._examples.features, self._rows.astype(np.int32)
    )
    return song_scores(
      found,
      self._songs,
      one_each=self._examples.one_each,
      mean_of=self._mean_of,
    )


def _measure_members(
  fitted: dict[str, Any],
  search: probe_training.Search,
  scorer: _Scorer,
  chosen_by: str,
) -> Float[np.ndarray, "seeds grid"]:
  """Returns the validation metric of each member.

  Raises:
    InputError: it is defined for none.
  """
  found = np.array(
    [
      [
        validation_metric(
          chosen_by,
          scorer(probe_training.member(fitted, seed, point)),
          scorer.labels,
        )
        for point in range(len(search.grid))
      ]
      for seed in range(len(search.seeds))
    ]
  )
  if np.isnan(found).all():
    raise errors.InputError(
      f"{chosen_by} is undefined on the {len(scorer.labels)} validation songs: "
      "there is no tag that some of them have and others have not, or no probe "
      "gave finite scores. Give more songs, another split or lower rates."
    )
  return found


@dataclasses.dataclass(frozen=True)
class Chosen:
  """Probes of the rate and decay that validation chose, one a seed.

  Attributes:
    params: of each.
    scores: of the test songs, [seeds, songs, tags].
    best: number of the seed that is best on validation.
    scale: of the features.
    settings: what the numbers follow from; names that begin with `chosen` are
      results.
  """

  params: list[probe_training.Params]
  scores: Float[np.ndarray, "seeds songs tags"]
  best: int
  scale: probe_data.Scale
  settings: dict[str, Any]


def choose(
  features: Float[np.ndarray, "rows d"],
  labelled: labelled_sets.LabelledSet,
  *,
  owners: Int[np.ndarray, " rows"] | None = None,
  mean_of: str = "probabilities",
  chosen_by: str | None = None,
  scale: probe_data.Scale | None = None,
  **search: Any,
) -> Chosen:
  """Trains probes and chooses rate and decay.

  Args:
    features: of the set's songs, in its order; with `owners`, of patches.
    labelled: the task.
    owners: which song of the set each row is of; None: one row a song.
    mean_of: `probabilities` or `logits` of a song's patches, with `owners`.
    chosen_by: validation metric that chooses rate and decay, the mean over
      seeds: `average_precision` (default), `roc_auc`, or where each song has
      one tag `accuracy` (default there).
    scale: of the features; None: of those of training songs.
    **search: fields of `probe_training.Search`.

  Raises:
    InputError: features or labels break a rule, or no metric is defined.
  """
  chosen_by = check_chosen_by(chosen_by, labelled)
  if mean_of not in MEANS:
    raise errors.InputError(
      f"mean_of is {mean_of!r}; it is one of {', '.join(MEANS)}."
    )
  tried = probe_training.Search(**search)
  if tried.kind not in probe_training.KINDS:
    raise errors.InputError(
      f"the probe's kind is {tried.kind!r}; it is one of "
      f"{', '.join(probe_training.KINDS)}."
    )
  over = None if owners is None else mean_of
  examples, scale = probe_data.prepare(features, labelled, owners, scale)
  fitted = probe_training.fit(examples, tried)
  validation = _Scorer(examples, labelled, labelled_sets.VALIDATION, over)
  found = _measure_members(fitted, tried, validation, chosen_by)
  # A member that went astray counts as the worst.
  point = int(np.nan_to_num(found, nan=0.0).mean(axis=0).argmax())
  params = [
    probe_training.member(fitted, seed, point)
    for seed in range(len(tried.seeds))
  ]
  test = _Scorer(examples, labelled, labelled_sets.TEST, over)
  settings = _describe(labelled, tried, chosen_by, over) | {
    "chosen_rate": tried.grid[point][0],
    "chosen_decay": tried.grid[point][1],
    f"chosen_has_validation_{chosen_by}": float(np.nanmean(found[:, point])),
    "chosen_rounds": np.asarray(fitted["rounds"])[:, point].tolist(),
  }
  return Chosen(
    params,
    np.array([test(one) for one in params]),
    int(np.nan_to_num(found[:, point], nan=0.0).argmax()),
    scale,
    settings,
  )


def _describe(
  labelled: labelled_sets.LabelledSet,
  tried: probe_training.Search,
  chosen_by: str,
  over: str | None,
) -> dict[str, Any]:
  """Returns what a probe's numbers follow from."""
  counts = np.bincount(labelled.split[labelled.split >= 0], minlength=3)
  bare = int((~labelled.labels.any(axis=1)).sum())
  return {
    "set": labelled.name,
    "probe": tried.kind,
    "aggregation": f"mean of patch {over}" if over else "mean of embeddings",
    "songs": dict(
      zip(("train", "validation", "test"), counts.tolist(), strict=True)
    ),
    "songs_without_tag": bare,
    "seeds": [int(seed) for seed in tried.seeds],
    "rates": [float(rate) for rate in tried.rates],
    "decays": [float(decay) for decay in tried.decays],
    "stopped_by": "validation loss",
    "selected_by": f"validation {chosen_by}",
  }


def train_probe(
  features: Float[np.ndarray, "rows d"],
  labelled: labelled_sets.LabelledSet,
  *,
  draws: int = 1000,
  **options: Any,
) -> tuple[task_base.Result, probe_file.TrainedProbe]:
  """Trains probes, chooses rate and decay, measures the chosen.

  Args:
    features: of the set's songs, in its order; with `owners`, of patches.
    labelled: the task.
    draws: bootstrap resamples of the test songs.
    **options: of `choose`.

  Returns:
    What the chosen probes score on the test songs, and the probe of the seed
    that is best on validation.

  Raises:
    InputError: features or labels break a rule, or no metric is defined.
  """
  chosen = choose(features, labelled, **options)
  result = tagging_results.of_scores(
    chosen.scores, labelled, chosen.settings, draws=draws
  )
  return result, probe_file.TrainedProbe(
    labelled.tags,
    chosen.params[chosen.best],
    chosen.scale,
    labelled.one_each,
    result.settings,
  )


def probe(
  features: Float[np.ndarray, "rows d"],
  labelled: labelled_sets.LabelledSet,
  *,
  kind: str = "linear",
  seeds: Sequence[int] = (0, 1, 2),
  out: str | os.PathLike[str] | None = None,
  **options: Any,
) -> task_base.Result:
  """Measures features by a probe trained on them.

  Args:
    features: of the set's songs, in its order; with `owners`, of patches.
    labelled: the task.
    kind: `linear`, or `mlp` for the paper's 160 hidden units.
    seeds: of initial weights and order; the result is their mean.
    out: file for the probe that is best on validation; None for none.
    **options: of `train_probe` and `choose`, such as rates, decays, owners.

  Raises:
    InputError: features or labels break a rule, or no metric is defined.
  """
  result, trained = train_probe(
    features, labelled, kind=kind, seeds=seeds, **options
  )
  if out is not None:
    trained.save(out)
  return result
