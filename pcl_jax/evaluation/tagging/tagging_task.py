"""Public tagging sets as evaluation tasks: their clips, embedded and probed."""

from collections.abc import Sequence
import dataclasses
import functools
import re
from typing import NamedTuple

import numpy as np
import tqdm

from pcl_jax.common import errors
from pcl_jax.data import song_store
from pcl_jax.embedding import song_encoder
from pcl_jax.evaluation import representations
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import probe_training
from pcl_jax.evaluation.tagging import probes
from pcl_jax.evaluation.tagging import tagging_set

SHOWN = ("accuracy", "roc_auc", "average_precision")
INTERVAL = "mean of the splits' intervals"
_SPLIT = re.compile(r"-split([0-9])-")
_WITHOUT = (
  "its vectors are of the data set's songs, and a public set has other clips"
)


class _Embedded(NamedTuple):
  """Clips and their features.

  Attributes:
    labelled: the clips.
    rows: features of each clip, or of each patch.
    owners: which clip each patch is of; None where rows are of clips.
  """

  labelled: labelled_sets.LabelledSet
  rows: np.ndarray
  owners: np.ndarray | None = None


def _embed(
  opened: tagging_set.TaggingSet, context: task_base.Context
) -> _Embedded:
  embedder = song_encoder.make_embedder(context.encoder)
  bar = functools.partial(
    tqdm.tqdm, desc=opened.name, total=len(opened), unit="clip"
  )
  if context.options.tagging_mean == task_base.EMBEDDINGS:
    return _Embedded(*tagging_set.embed_clips(opened, embedder, progress=bar))
  return _Embedded(*tagging_set.embed_patches(opened, embedder, progress=bar))


def _mean_of(results: Sequence[task_base.Result]) -> task_base.Result:
  """Returns the mean over the results of several splits of the same tags."""
  metrics = {}
  for name in results[0].metrics:
    some = [one.metrics[name] for one in results]
    metrics[name] = task_base.Metric(
      float(np.mean([one.value for one in some])),
      float(np.mean([one.low for one in some])),
      float(np.mean([one.high for one in some])),
      min(one.items for one in some),
    )
  columns = list(results[0].per_item)
  tables = [one.per_item for one in results]
  per_item = {columns[0]: tables[0][columns[0]]}
  for column in columns[1:]:
    per_item[column] = np.mean([table[column] for table in tables], axis=0)
  spread = {
    name: float(np.std([one.metrics[name].value for one in results], ddof=1))
    for name in metrics
  }
  settings = {
    "interval": INTERVAL,
    # Compared between runs are the splits themselves.
    "found_by_split": [one.settings for one in results],
    "found_std_over_splits": spread,
  }
  return task_base.Result(metrics, per_item, settings=settings)


class _Shared:
  """What the probes of a set share, for one representation."""

  def __init__(self, opened: tagging_set.TaggingSet):
    self.opened = opened

  def embedded(self, context: task_base.Context) -> _Embedded:
    """Embeds the clips by a context's encoder."""
    return _embed(self.opened, context)

  def statistics(self, context: task_base.Context):
    """Returns the clips and statistics of their mel over time."""
    del context
    return tagging_set.mel_statistics(self.opened)


class TaggingTask(task_base.Task):
  """A probe of the clips of a public set."""

  shown = SHOWN

  def __init__(self, shared: _Shared, kind: str):
    self.shared, self.kind = shared, kind
    self.title = f"{shared.opened.name}, {kind} probe"
    bands = song_store.MEL_BANDS
    self.baselines = {
      representations.MEAN_MEL: functools.partial(self._mel, slice(0, bands)),
      representations.MEAN_STD_MEL: functools.partial(
        self._mel, slice(0, 2 * bands)
      ),
    }

  def run(self, context: task_base.Context) -> task_base.Result:
    """Embeds and probes the clips."""
    if context.encoder is None:
      raise task_base.NotAvailable(_WITHOUT)
    embedded = context.once(self.shared.embedded)
    return self._probe(embedded, context.options.tagging_mean)

  def _mel(
    self, columns: slice, context: task_base.Context
  ) -> task_base.Result:
    """Runs the task on statistics of the mel over time: a baseline."""
    found, rows = context.once(self.shared.statistics)
    return self._probe(_Embedded(found, rows[:, columns]))

  def _probe(
    self, embedded: _Embedded, mean_of: str = task_base.EMBEDDINGS
  ) -> task_base.Result:
    """Probes the clips, and says what of them is measured."""
    how = {}
    if embedded.owners is not None:
      how = {"owners": embedded.owners, "mean_of": mean_of}
    try:
      measured = probes.probe(
        embedded.rows, embedded.labelled, kind=self.kind, **how
      )
    except errors.InputError as error:  # The other tasks can be measured.
      raise task_base.NotAvailable(str(error)) from error
    opened = self.shared.opened
    return dataclasses.replace(
      measured,
      left_out=opened.left_out | measured.left_out,
      settings=measured.settings
      | {
        "aggregation": f"mean of patch {mean_of}",
        "part": opened.part,
        "partial": opened.partial,
      },
    )


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
  sets: Sequence[tagging_set.TaggingSet],
) -> dict[str, list[tagging_set.TaggingSet]]:
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
    kinds: of probes.

  Returns:
    For every set and kind of probe a task, and, where several whole sets are
    splits of the same tracks and tags, their mean.

  Raises:
    InputError: a folder is no prepared set, or two are of the same set.
  """
  sets = [tagging_set.TaggingSet(directory) for directory in directories]
  by_name: dict[str, tagging_set.TaggingSet] = {}
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
