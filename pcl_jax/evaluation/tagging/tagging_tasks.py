"""Tagging as evaluation tasks: Melon-50 and public sets."""

import abc
from collections.abc import Mapping, Sequence
import dataclasses
import functools
import re
from typing import Any

from jaxtyping import Int
import numpy as np
import tqdm

from pcl_jax.audio import song_patches
from pcl_jax.common import errors
from pcl_jax.common import extras
from pcl_jax.data import dataset
from pcl_jax.evaluation import representations
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import few_labels
from pcl_jax.evaluation.tagging import fine_tune
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import melon_50
from pcl_jax.evaluation.tagging import prepared_sets
from pcl_jax.evaluation.tagging import probe_training
from pcl_jax.evaluation.tagging import probes
from pcl_jax.library import music_files
from pcl_jax.models import compiled_encoder

SHOWN = ("accuracy", "roc_auc", "average_precision")
INTERVAL = "mean of the splits' intervals"
_SPLIT = re.compile(r"-split([0-9])-")


def _make(
  context: task_base.Context,
) -> tuple[labelled_sets.LabelledSet, Int[np.ndarray, " rows"]]:
  labelled, rows = melon_50.melon_50(
    context.catalogue, published_split=context.options.published_split
  )
  if overlap := melon_50.overlap(labelled):
    tested = int((labelled.split == labelled_sets.TEST).sum())
    print(
      f"{labelled.name}: {overlap} of {tested} test songs are also training "
      "or validation songs, as in the published script; without "
      "--published_split no song is in two parts"
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
    result, _ = probes.train_probe(
      context.embeddings[rows], labelled, kind=self.kind
    )
    return result


class FewLabels(Melon50Task):
  """A linear probe with fewer and fewer training labels."""

  title = "Melon-50, linear probe with few labels"

  def measure(self, context, labelled, rows):
    """Trains and scores probes."""
    return few_labels.measure(context.embeddings[rows], labelled)


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


MELON_50: dict[str, task_base.Task] = {
  "melon_50": Probe("mlp", "Melon-50, MLP probe"),
  "melon_50_linear": Probe("linear", "Melon-50, linear probe"),
  "melon_50_few_labels": FewLabels(),
  "melon_50_fine_tune": FineTune(),
}


def without_melon_50(
  tasks: Mapping[str, task_base.Task], data: dataset.DataSet
) -> tuple[dict[str, task_base.Task], list[str]]:
  """Leaves out Melon-50 where the songs are not Melon's; returns why, too.

  Raises:
    InputError: it is not left out, and the package that divides it is missing.
  """
  if not (data.directory / music_files.IDS).exists():
    if MELON_50.keys() & tasks.keys():
      extras.check("Melon-50 (--tasks=... without it does not)", "iterstrat")
    return dict(tasks), []
  kept = {k: task for k, task in tasks.items() if k not in MELON_50}
  why = (
    "Melon-50 is left out: its tags are Melon's sub-genres, and "
    f"{data.directory} is made of a folder of audio files."
  )
  return kept, [why] * (len(kept) < len(tasks))


def _mean_of(results: Sequence[task_base.Result]) -> task_base.Result:
  """Returns the mean over the results of several splits of the same tags."""
  metrics = {}
  for name in results[0].metrics:
    some = [one.metrics[name] for one in results]
    means = np.mean([(one.value, one.low, one.high) for one in some], axis=0)
    metrics[name] = task_base.Metric(
      *means.tolist(), min(one.items for one in some)
    )
  first, *columns = results[0].per_item
  per_item = {first: results[0].per_item[first]}
  for column in columns:
    per_item[column] = np.mean(
      [one.per_item[column] for one in results], axis=0
    )
  spread = {
    name: float(np.std([one.metrics[name].value for one in results], ddof=1))
    for name in metrics
  }
  settings = {
    "interval": INTERVAL,
    # `found` since runs are compared split by split.
    "found_by_split": [one.settings for one in results],
    "found_std_over_splits": spread,
  }
  return task_base.Result(metrics, per_item, settings=settings)


class TaggingTask(task_base.Task):
  """A probe of the clips of a public set."""

  shown = SHOWN

  def __init__(self, shared: "_Shared", kind: str):
    self.shared, self.kind = shared, kind
    self.title = f"{shared.opened.name}, {kind} probe"
    bands = song_patches.BANDS
    self.baselines = {
      representations.MEAN_MEL: functools.partial(self._mel, bands),
      representations.MEAN_STD_MEL: functools.partial(self._mel, 2 * bands),
    }

  def run(self, context: task_base.Context) -> task_base.Result:
    """Embeds and probes the clips."""
    if context.encoder is None:
      raise task_base.NotAvailable(
        "its vectors are those of the data set's songs, but a public set has "
        "other clips"
      )
    embedded = context.once(self.shared.embed)
    return self._probe(embedded, context.options.tagging_mean)

  def _mel(
    self, statistics: int, context: task_base.Context
  ) -> task_base.Result:
    """Probes the first statistics of the mel over time: a baseline."""
    embedded = context.once(self.shared.measure_mel)
    features = embedded.features[:, :statistics]
    return self._probe(embedded._replace(features=features))

  def _probe(
    self, embedded: prepared_sets.Embedded, mean_of: str = task_base.EMBEDDINGS
  ) -> task_base.Result:
    """Probes clips; the settings say what is averaged over their patches."""
    how: dict[str, Any] = {}
    if embedded.song_index is not None:
      how = {"song_index": embedded.song_index, "mean_of": mean_of}
    try:
      result, _ = probes.train_probe(
        embedded.features, embedded.labelled, kind=self.kind, **how
      )
    except errors.InputError as error:  # The other tasks can be measured.
      raise task_base.NotAvailable(str(error)) from error
    opened = self.shared.opened
    result.settings.update(
      aggregation=f"mean of patch {mean_of}",
      part=opened.part,
      partial=opened.partial,
    )
    return dataclasses.replace(
      result, left_out=opened.left_out | result.left_out
    )


class _Shared:
  """What the probes of a set share, for one representation."""

  def __init__(self, opened: prepared_sets.TaggingSet):
    self.opened = opened

  def embed(self, context: task_base.Context) -> prepared_sets.Embedded:
    bar = functools.partial(
      tqdm.tqdm, desc=self.opened.name, total=len(self.opened), unit="clip"
    )
    return prepared_sets.embed_clips(
      self.opened,
      compiled_encoder.make_embedder(context.encoder),
      per_patch=context.options.tagging_mean != task_base.EMBEDDINGS,
      progress=bar,
    )

  def measure_mel(self, context: task_base.Context) -> prepared_sets.Embedded:
    del context
    return prepared_sets.mel_statistics(self.opened)


class MeanOfSplits(task_base.Task):
  """The mean over several splits of the same tracks and tags."""

  shown = SHOWN

  def __init__(self, name: str, parts: Sequence[TaggingTask]):
    self.title = f"{name}, {parts[0].kind} probe"
    self.parts = parts
    self.baselines = {
      row: functools.partial(self._baseline, row) for row in parts[0].baselines
    }

  def run(self, context: task_base.Context) -> task_base.Result:
    """Measures each split, where that has not been done, and averages."""
    return _mean_of([context.once(one.run) for one in self.parts])

  def _baseline(self, row: str, context: task_base.Context) -> task_base.Result:
    return _mean_of([context.once(one.baselines[row]) for one in self.parts])


def file_name(name: str) -> str:
  """Returns a set's name as the name of a task, fit for a file."""
  return re.sub(r"[^a-z0-9._-]+", "_", name.lower()).strip("_")


def _groups(
  sets: Sequence[prepared_sets.TaggingSet],
) -> dict[str, list[prepared_sets.TaggingSet]]:
  """Returns the sets that are splits of one, by what they have in common."""
  groups: dict[str, list] = {}
  for opened in sets:
    if _SPLIT.search(opened.name) and not opened.partial:
      common = _SPLIT.sub("-splits{}-", opened.name)
      groups.setdefault(common, []).append(opened)
  return {
    common.format("".join(_SPLIT.search(one.name)[1] for one in some)): some
    for common, some in groups.items()
    if len(some) > 1 and len({one.tags for one in some}) == 1
  }


def tasks_of(
  directories: Sequence[str],
  kinds: Sequence[str] = probe_training.KINDS,
) -> dict[str, task_base.Task]:
  """Returns the tasks of prepared tagging sets.

  Args:
    directories: folders that preprocessing.tagging_sets has made.
    kinds: which probes to train.

  Returns:
    For every set and kind of probe a task, and, where several whole sets are
    splits of the same tracks and tags, their mean.

  Raises:
    InputError: a folder is no prepared set, or two are of the same set.
  """
  sets = [prepared_sets.TaggingSet(directory) for directory in directories]
  by_name: dict[str, prepared_sets.TaggingSet] = {}
  for opened in sets:
    same = by_name.setdefault(opened.name, opened)
    if same is not opened:
      raise errors.InputError(
        f"{same.directory} and {opened.directory} are both {opened.name}: give "
        "one of them as --tagging."
      )
  shared = {one.name: _Shared(one) for one in sets}
  tasks: dict[str, task_base.Task] = {}
  for kind in kinds:
    single = {name: TaggingTask(one, kind) for name, one in shared.items()}
    tasks |= {f"{file_name(k)}-{kind}": task for k, task in single.items()}
    for name, some in _groups(sets).items():
      parts = [single[one.name] for one in some]
      tasks[f"{file_name(name)}-{kind}"] = MeanOfSplits(name, parts)
  return tasks
