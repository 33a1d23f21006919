"""Public tagging sets as evaluation tasks: their clips, embedded and probed."""

from collections.abc import Sequence
import dataclasses
import functools
import re
from typing import Any, NamedTuple

import numpy as np
import tqdm

from pcl_jax import embed
from pcl_jax.common import errors
from pcl_jax.data import song_store
from pcl_jax.evaluation import context as contexts
from pcl_jax.evaluation import representations
from pcl_jax.evaluation import task_results
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
  opened: tagging_set.TaggingSet, context: contexts.Context
) -> _Embedded:
  embedder = embed.make_embedder(context.encoder)
  bar = functools.partial(
    tqdm.tqdm, desc=opened.name, total=len(opened), unit="clip"
  )
  if context.options.tagging_mean == contexts.EMBEDDINGS:
    return _Embedded(*tagging_set.embed_clips(opened, embedder, progress=bar))
  return _Embedded(*tagging_set.embed_patches(opened, embedder, progress=bar))


def _key(opened: tagging_set.TaggingSet, what: str) -> str:
  return f"{opened.directory}: {what}"


def _probe(
  opened: tagging_set.TaggingSet,
  kind: str,
  embedded: _Embedded,
  mean_of: str = contexts.EMBEDDINGS,
) -> task_results.Outcome | str:
  """Probes the clips of a set, and says what of it is measured."""
  how = {}
  if embedded.owners is not None:
    how = {"owners": embedded.owners, "mean_of": mean_of}
  try:
    measured = probes.probe(embedded.rows, embedded.labelled, kind=kind, **how)
  except errors.InputError as error:  # The other tasks can be measured.
    return str(error)
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


def _measure(
  opened: tagging_set.TaggingSet,
  kind: str,
  context: contexts.Context,
  embeddings: contexts.Embeddings | None = None,
) -> task_results.Outcome | str:
  """Runs the task on a context's encoder; once, whoever asks for it."""
  del embeddings  # Of the data set's songs.
  if context.encoder is None:
    return _WITHOUT
  embedded = context.once(
    _key(opened, "embeddings"), lambda: _embed(opened, context)
  )
  return context.once(
    _key(opened, kind),
    lambda: _probe(opened, kind, embedded, context.options.tagging_mean),
  )


def _measure_mel(
  opened: tagging_set.TaggingSet,
  kind: str,
  columns: slice,
  context: contexts.Context,
) -> task_results.Outcome | str:
  """Runs the task on statistics of the mel over time: a baseline."""
  found, rows = context.once(
    _key(opened, "statistics"), lambda: tagging_set.mel_statistics(opened)
  )
  return context.once(
    _key(opened, f"{kind} {columns}"),
    lambda: _probe(opened, kind, _Embedded(found, rows[:, columns])),
  )


def _mean_of(
  found: Sequence[Any], **arguments: Any
) -> task_results.Outcome | str:
  """Returns the mean over the outcomes of several splits of the same tags."""
  outcomes = [one(**arguments) for one in found]
  reasons = [one for one in outcomes if isinstance(one, str)]
  if reasons:
    return reasons[0]
  metrics = {}
  for name in outcomes[0].metrics:
    some = [one.metrics[name] for one in outcomes]
    metrics[name] = task_results.Metric(
      float(np.mean([one.value for one in some])),
      float(np.mean([one.low for one in some])),
      float(np.mean([one.high for one in some])),
      min(one.items for one in some),
    )
  columns = list(outcomes[0].per_item)
  tables = [one.per_item for one in outcomes]
  per_item = {columns[0]: tables[0][columns[0]]}
  for column in columns[1:]:
    per_item[column] = np.mean([table[column] for table in tables], axis=0)
  spread = {
    name: float(np.std([one.metrics[name].value for one in outcomes], ddof=1))
    for name in metrics
  }
  settings = {
    "interval": INTERVAL,
    # Compared between runs are the splits themselves.
    "found_by_split": [one.settings for one in outcomes],
    "found_std_over_splits": spread,
  }
  return task_results.Outcome(metrics, per_item, settings=settings)


def _task(title: str, run: Any, baselines: dict[str, Any]) -> contexts.Task:
  return contexts.Task(title, run, baselines=baselines, shown=SHOWN)


def _of_set(opened: tagging_set.TaggingSet, kind: str) -> contexts.Task:
  bands = song_store.MEL_BANDS
  mel = {
    representations.MEAN_MEL: slice(0, bands),
    representations.MEAN_STD_MEL: slice(0, 2 * bands),
  }
  return _task(
    f"{opened.name}, {kind} probe",
    functools.partial(_measure, opened, kind),
    {
      name: functools.partial(_measure_mel, opened, kind, columns)
      for name, columns in mel.items()
    },
  )


def _of_splits(name: str, kind: str, tasks: list[contexts.Task]):
  def run(context, embeddings):
    found = [task.run for task in tasks]
    return _mean_of(found, context=context, embeddings=embeddings)

  def baseline(row, context):
    return _mean_of([task.baselines[row] for task in tasks], context=context)

  rows = tasks[0].baselines
  return _task(
    f"{name}, {kind} probe",
    run,
    {row: functools.partial(baseline, row) for row in rows},
  )


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
) -> dict[str, contexts.Task]:
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
  tasks = {}
  for kind in kinds:
    single = {one.name: _of_set(one, kind) for one in sets}
    tasks |= {f"{file_name(k)}-{kind}": task for k, task in single.items()}
    for name, some in _groups(sets).items():
      parts = [single[one.name] for one in some]
      tasks[f"{file_name(name)}-{kind}"] = _of_splits(name, kind, parts)
  return tasks
