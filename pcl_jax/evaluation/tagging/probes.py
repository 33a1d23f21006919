"""Probes: what a small network can read from frozen features.

A linear layer, or the paper's MLP, is trained on the features of training
songs for several seeds, learning rates and weight decays at once. Each stops
by its own validation loss; rate and decay are chosen by a validation metric,
and the chosen probes are measured on the test songs.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int
import numpy as np

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import probe_file
from pcl_jax.evaluation.tagging import probe_training
from pcl_jax.evaluation.tagging import tagging_metrics

MEANS = ("probabilities", "logits")


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
  if value not in known:
    raise errors.InputError(
      f"{name} is {value!r}; it must be one of {', '.join(known)}."
    )


def song_scores(
  logits: Float[np.ndarray, "rows tags"],
  songs: Int[np.ndarray, " rows"],
  *,
  single_label: bool,
  mean_of: str | None,
) -> Float[np.ndarray, "songs tags"]:
  """Averages scores of patches into scores of songs.

  Args:
    logits: logits of patches, or of songs.
    songs: number of each row's song; the result has one row per song, in the
      order of the numbers.
    single_label: whether a softmax makes the probabilities, not sigmoids.
    mean_of: `probabilities` or `logits`, over the patches of a song; None if
      there is one row per song.

  Returns:
    Scores that are comparable between songs, logarithms or probabilities.
  """
  scores = logits.astype(np.float64)
  if mean_of == "probabilities":
    squash = jax.nn.softmax if single_label else jax.nn.sigmoid
    scores = np.asarray(squash(logits), np.float64)
  numbers, rows = np.unique(songs, return_inverse=True)
  total = np.zeros((len(numbers), logits.shape[1]))
  np.add.at(total, rows, scores)
  total /= np.bincount(rows)[:, None]
  if single_label and mean_of != "probabilities":
    # Logits are comparable within a song; log-probabilities also between songs.
    total -= np.logaddexp.reduce(total, axis=1, keepdims=True)
  return total


def validation_metric(
  scores: Float[np.ndarray, "songs tags"],
  labels: Bool[np.ndarray, "songs tags"],
  single_label: bool,
) -> float:
  """Returns accuracy or macro average precision; nan where it is undefined.

  Args:
    scores: scores of validation songs.
    labels: their tags.
    single_label: whether each song has one tag, so that accuracy is defined.
  """
  if single_label:
    return float((scores.argmax(axis=1) == labels.argmax(axis=1)).mean())
  if not np.isfinite(scores).all():
    return float("nan")  # Its rate was too high.
  _, precision = tagging_metrics.by_tag(scores, labels)
  return float(tagging_metrics.mean_where_defined(precision))


def _check_features(
  features: np.ndarray,
  labelled: labelled_sets.LabelledSet,
  song_index: np.ndarray,
) -> None:
  """Refuses features that do not belong to a set's songs."""
  songs = len(labelled.ids)
  if len(features) != len(song_index):
    raise errors.InputError(
      f"there are {len(features)} rows of features and {len(song_index)} songs "
      f"or patches in {labelled.name}: give one row for each, in the set's "
      "order."
    )
  without = songs - len(np.unique(song_index))
  if (
    without
    or song_index.min(initial=0) < 0
    or song_index.max(initial=0) >= songs
  ):
    raise errors.InputError(
      f"{without} songs of {labelled.name} have no patch, or patches name "
      f"songs outside of 0..{songs - 1}. Leave these songs out of the set."
    )
  broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
  if len(broken):
    raise errors.InputError(
      f"{len(broken)} rows of features of {labelled.name} are not finite "
      f"numbers (the first is that of {labelled.ids[song_index[broken[0]]]}). "
      "The encoder or the audio is damaged: embed these songs again."
    )


@dataclasses.dataclass(frozen=True)
class _Prepared:
  """Standardised features, and how rows make songs."""

  labelled: labelled_sets.LabelledSet
  examples: probe_training.Examples
  song_index: np.ndarray
  scale: probe_file.Scale
  mean_of: str | None

  def rows(self, part: int) -> np.ndarray:
    return np.flatnonzero(self.labelled.split[self.song_index] == part)

  def scores(self, params: probe_training.Params, part: int) -> np.ndarray:
    """Returns the scores of the songs of a part, [songs, tags]."""
    rows = self.rows(part)
    return song_scores(
      probe_training.score(params, self.examples.features, rows),
      self.song_index[rows],
      single_label=self.labelled.single_label,
      mean_of=self.mean_of,
    )


def _prepare(
  features: np.ndarray,
  labelled: labelled_sets.LabelledSet,
  song_index: np.ndarray | None,
  scale: probe_file.Scale | None,
  mean_of: str,
) -> _Prepared:
  """Checks features and labels, and lays them on the device."""
  labelled.check()
  rows_of_songs = song_index is None
  if rows_of_songs:
    song_index = np.arange(len(labelled.ids))
  _check_features(features, labelled, song_index)
  train = labelled.split[song_index] == labelled_sets.TRAIN
  scale = scale or probe_file.Scale.measure(features[train])
  examples = probe_training.Examples(
    jnp.asarray(scale.apply(features)),
    jnp.asarray(song_index, jnp.int32),
    jnp.asarray(labelled.labels, jnp.float32),
    labelled.single_label,
  )
  over = None if rows_of_songs else mean_of
  return _Prepared(labelled, examples, song_index, scale, over)


def _weights(
  members: probe_training.Member, seed: int, point: int
) -> probe_training.Params:
  return jax.tree.map(lambda x: x[seed, point], members.best)


def _validation_metrics(
  prepared: _Prepared, members: probe_training.Member
) -> Float[np.ndarray, "seeds grid"]:
  """Returns the validation metric of each member.

  Raises:
    InputError: it is undefined for all.
  """
  part, labelled = labelled_sets.VALIDATION, prepared.labelled
  labels = labelled.labels_of(part)
  found = np.empty(members.best_loss.shape)
  for place in np.ndindex(found.shape):
    scores = prepared.scores(_weights(members, *place), part)
    found[place] = validation_metric(scores, labels, labelled.single_label)
  if np.isnan(found).all():
    raise errors.InputError(
      f"{labelled.chosen_by} is undefined on the {len(labels)} validation "
      "songs: there is no tag that only some of them have, or no probe gave "
      "finite scores. Give more songs, another split or lower rates."
    )
  return found


@dataclasses.dataclass(frozen=True)
class Fitted:
  """Probes of the rate and decay that validation chose, one per seed.

  Attributes:
    params: weights of each.
    scores: scores of the test songs, [seeds, songs, tags].
    best: number of the seed that is best on validation.
    scale: scale of the features.
    settings: what the numbers follow from; names that begin with `chosen` are
      results.
  """

  params: list[probe_training.Params]
  scores: Float[np.ndarray, "seeds songs tags"]
  best: int
  scale: probe_file.Scale
  settings: dict[str, Any]


def fit(
  features: Float[np.ndarray, "rows d"],
  labelled: labelled_sets.LabelledSet,
  *,
  song_index: Int[np.ndarray, " rows"] | None = None,
  mean_of: str = "probabilities",
  scale: probe_file.Scale | None = None,
  **search: Any,
) -> Fitted:
  """Trains probes; chooses rate and decay by a mean validation metric.

  Args:
    features: features of the set's songs, in its order, or of their patches.
    labelled: the task.
    song_index: the song of the set that each row belongs to, if rows are
      patches; None for one row per song.
    mean_of: with `song_index`, what is averaged over a song's patches:
      `probabilities` or `logits`.
    scale: scale of the features; None for that of the training songs.
    **search: fields of `probe_training.Search`.

  Raises:
    InputError: features or labels break a rule, or no metric is defined.
  """
  tried = probe_training.Search(**search)
  _check_choice("mean_of", mean_of, MEANS)
  _check_choice("the probe's kind", tried.kind, probe_training.KINDS)
  prepared = _prepare(features, labelled, song_index, scale, mean_of)
  members = probe_training.fit(
    prepared.examples,
    prepared.rows(labelled_sets.TRAIN),
    prepared.rows(labelled_sets.VALIDATION),
    tried,
  )
  found = _validation_metrics(prepared, members)
  # A member that diverged counts as the worst.
  point = int(np.nan_to_num(found).mean(axis=0).argmax())
  params = [_weights(members, seed, point) for seed in range(len(tried.seeds))]
  settings = _describe(prepared, tried) | {
    "chosen_rate": tried.grid[point][0],
    "chosen_decay": tried.grid[point][1],
    f"chosen_has_validation_{labelled.chosen_by}": float(
      np.nanmean(found[:, point])
    ),
    "chosen_rounds": np.asarray(members.rounds)[:, point].tolist(),
  }
  return Fitted(
    params,
    np.array([prepared.scores(one, labelled_sets.TEST) for one in params]),
    int(np.nan_to_num(found[:, point]).argmax()),
    prepared.scale,
    settings,
  )


def _describe(
  prepared: _Prepared, tried: probe_training.Search
) -> dict[str, Any]:
  """Returns what a probe's numbers follow from."""
  labelled, over = prepared.labelled, prepared.mean_of
  return {
    "set": labelled.name,
    "probe": tried.kind,
    "aggregation": f"mean of patch {over}" if over else "mean of embeddings",
    "songs": {
      name: int((labelled.split == part).sum())
      for part, name in enumerate(catalogues.SPLIT_NAMES)
    },
    "songs_without_tag": int((~labelled.labels.any(axis=1)).sum()),
    "seeds": [int(seed) for seed in tried.seeds],
    "rates": [float(rate) for rate in tried.rates],
    "decays": [float(decay) for decay in tried.decays],
    "stopped_by": "validation loss",
    "selected_by": f"validation {labelled.chosen_by}",
  }


def train_probe(
  features: Float[np.ndarray, "rows d"],
  labelled: labelled_sets.LabelledSet,
  *,
  draws: int = 1000,
  **options: Any,
) -> tuple[task_base.Result, probe_file.TrainedProbe]:
  """Trains probes, chooses rate and decay, measures the chosen ones.

  Args:
    features: features of the set's songs, in its order, or of their patches.
    labelled: the task.
    draws: bootstrap resamples of the test songs.
    **options: arguments of `fit`, such as kind, seeds, rates or song_index.

  Returns:
    What the chosen probes score on the test songs, and the probe of the seed
    that is best on validation.

  Raises:
    InputError: features or labels break a rule, or no metric is defined.
  """
  fitted = fit(features, labelled, **options)
  result = tagging_metrics.measure(
    fitted.scores, labelled, fitted.settings, draws=draws
  )
  return result, probe_file.TrainedProbe(
    labelled.tags,
    fitted.params[fitted.best],
    fitted.scale,
    labelled.single_label,
    result.settings,
  )
