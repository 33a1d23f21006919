"""Runs tasks on an encoder, or on vectors, and on what it is compared with."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import os
import pathlib
import time
from typing import Any

from absl import logging

from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data.splits import learned_songs
from pcl_jax.data.splits import song_groups
from pcl_jax.embedding import encoder_loading
from pcl_jax.evaluation import registry
from pcl_jax.evaluation import report
from pcl_jax.evaluation import representations
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation import vector_tables
from pcl_jax.evaluation.audit import leakage
from pcl_jax.evaluation.audit import provenance
from pcl_jax.evaluation.retrieval import precision_at_k
from pcl_jax.evaluation.tagging import tagging_tasks

FORMAT_VERSION = 2
_FLATTERS = (
  "The queries of all tasks but the look-up, whose queries are test songs, are "
  "validation songs, which chose the checkpoint and from which mode P and mode "
  "G learned: these numbers flatter."
)
_Runs = Mapping[str, Callable[[task_base.Context], task_base.Result]]


class _Measured:
  """All that was measured, by task and by row of the table."""

  def __init__(self, tasks: Sequence[str]):
    self.rows = {name: {} for name in tasks}
    self.items = {name: {} for name in tasks}
    self.precision: dict[str, dict] = {}
    self.seconds: dict[str, dict[str, float]] = {}

  def add(self, row: str, context: task_base.Context, runs: _Runs) -> None:
    """Runs tasks, given as functions by name, for a row."""
    for name, run in runs.items():
      began = time.monotonic()
      logging.info("task %s", name)
      try:
        found = context.once(run)
        self.rows[name][row] = report.as_dict(found)
        self.items[name][row] = found.per_item
      except task_base.NotAvailable as reason:
        self.rows[name][row] = {"not_given": str(reason)}
      seconds = self.seconds.setdefault(row, {})
      seconds[name] = round(time.monotonic() - began, 2)


def _measure_representations(
  rows: Sequence[representations.Representation],
  tasks: Mapping[str, task_base.Task],
  context: task_base.Context,
  measured: _Measured,
  *,
  baselines: bool,
) -> None:
  """Measures the first row, chance, and the rows after it."""
  runs = {name: task.run for name, task in tasks.items()}
  for row in rows:
    with_tasks = baselines or row is rows[0]
    if not (with_tasks or row.in_precision):
      continue
    vectors = representations.checked(
      row.name, row.embed(), context.catalogue.song_ids
    )
    if row.in_precision:
      measured.precision[row.name] = precision_at_k.precisions(
        context.catalogue, vectors
      )
    if with_tasks:
      mine = dataclasses.replace(
        context, embeddings=vectors, encoder=row.encoder
      )
      measured.add(row.name, mine, runs)
    if row is rows[0]:
      measured.precision[representations.CHANCE] = precision_at_k.by_chance(
        context.catalogue
      )
      for name, task in tasks.items():
        for by_chance, run in task.chance.items():
          measured.add(by_chance, mine, {name: run})


def _measure_baselines(
  tasks: Mapping[str, task_base.Task],
  context: task_base.Context,
  measured: _Measured,
) -> list[str]:
  """Measures rows that no encoder makes; returns why mode P has none."""
  for name, task in tasks.items():
    for row, run in task.baselines.items():
      measured.add(row, context, {name: run})
  try:
    vectors = representations.mode_p(context.data, context.options.split)
  except task_base.NotAvailable as reason:
    return [f"{representations.MODE_P}: {reason}"]
  context = dataclasses.replace(context, embeddings=vectors)
  runs = {name: task.run for name, task in tasks.items()}
  measured.add(representations.MODE_P, context, runs)
  return []


def _leave_out_learned(
  data: dataset.DataSet, learned: learned_songs.LearnedSongs | None, asked: int
) -> list[str]:
  """Makes songs that the run learned from no queries; returns what to note."""
  notes = [] if asked == catalogues.TEST else [_FLATTERS]
  there = data.catalogue.split
  split = learned.split_of(data) if learned else there
  if (there != split).any():
    data.catalogue = dataclasses.replace(data.catalogue, split=split)
    count = int(((there == asked) & (split != asked)).sum())
    notes.append(
      f"{count} of {int((there == asked).sum())} "
      f"{catalogues.SPLIT_NAMES[asked]} songs of {data.directory} are none "
      "here, since this run learned from them before the data set was split "
      "again."
    )
  return notes


def _check_any(measured: _Measured, data: dataset.DataSet) -> None:
  if not any(measured.items.values()) and not any(measured.precision.values()):
    raise errors.InputError(
      f"{data.directory} has no test song that shares an artist or a sub-genre "
      "with another song: there is nothing to look up. Split it again with a "
      "larger --test_share."
    )


@dataclasses.dataclass(frozen=True)
class _Subject:
  """What is evaluated: rows of the table, and what is known of the first."""

  data: dataset.DataSet
  rows: Sequence[representations.Representation]
  learned: learned_songs.LearnedSongs | None
  seed: int
  about: dict[str, Any]  # What results.json says of it.
  # Made after the songs that it learned from are no queries.
  checks: Callable[[], list[leakage.Check]]
  certificate: Callable[[], dict[str, Any]]


def _measure(
  subject: _Subject,
  tasks: str,
  tagging: Sequence[str],
  *,
  baselines: bool,
  options: task_base.Options | None,
) -> report.Evaluation:
  """Runs tasks and audits."""
  chosen = {name: registry.TASKS[name] for name in registry.choose(tasks)}
  chosen |= tagging_tasks.tasks_of(tagging)
  data, options = subject.data, options or task_base.Options()
  chosen, notes = tagging_tasks.without_melon_50(chosen, data)
  notes += _leave_out_learned(data, subject.learned, options.split)
  context = task_base.Context(
    data, seed=subject.seed, options=options, chosen=tuple(chosen)
  )
  measured = _Measured(tuple(chosen))
  _measure_representations(
    subject.rows, chosen, context, measured, baselines=baselines
  )
  if baselines:
    notes += _measure_baselines(chosen, context, measured)
  _check_any(measured, data)
  results = subject.about | {
    "format_version": FORMAT_VERSION,
    "data": str(data.directory),
    "fingerprint": data.fingerprint(),
    "songs": len(data.store),
    "split_by": song_groups.read_split_by(data.directory),
    "trained": subject.rows[0].name,
    "options": dataclasses.asdict(context.options),
    "precision_at_5": measured.precision,
    "tasks": measured.rows,
    "seconds": measured.seconds,
    "checks": [dataclasses.asdict(one) for one in subject.checks()],
    "certificate": subject.certificate(),
    "notes": notes,
  }
  return report.Evaluation(results, measured.items, chosen)


def evaluate(
  workdir: pathlib.Path,
  data_dir: str | None = None,
  *,
  tasks: str = registry.ALL,
  tagging: Sequence[str] = (),
  baselines: bool = False,
  options: task_base.Options | None = None,
  which: str = "best",
) -> report.Evaluation:
  """Runs tasks on a run's encoder, and on the baselines.

  Args:
    workdir: folder of the run, or of a bundle.
    data_dir: data set to evaluate on; None for the one the run trained on.
    tasks: names in the registry, separated by commas, `all` or `none`.
    tagging: folders of prepared public tagging sets.
    baselines: whether the tasks run on the baselines too.
    options: options of the tasks.
    which: the `best` checkpoint by validation loss, or the `latest`.

  Raises:
    InputError: a task is unknown, there is no checkpoint or no data set, or
      nothing in the data set can be measured.
  """
  encoder, meta = encoder_loading.load_network(workdir, which)
  data = task_base.open_data(workdir, meta, data_dir)
  learned = learned_songs.read(workdir)
  subject = _Subject(
    data=data,
    rows=representations.representations(encoder, meta, data),
    learned=learned,
    seed=meta["config"]["seed"],
    about={
      "checkpoint": encoder_loading.recorded(workdir, which),
      "step": meta["progress"]["step"],
    },
    checks=lambda: leakage.check(meta, data, learned),
    certificate=lambda: provenance.make(encoder, meta, data),
  )
  return _measure(subject, tasks, tagging, baselines=baselines, options=options)


def evaluate_table(
  path: pathlib.Path,
  data_dir: str | os.PathLike[str],
  *,
  name: str | None = None,
  tasks: str = registry.ALL,
  tagging: Sequence[str] = (),
  baselines: bool = False,
  options: task_base.Options | None = None,
) -> report.Evaluation:
  """Runs tasks on vectors that any program made, and on the baselines.

  Args:
    path: Parquet file with the columns id and vector, as `vector_tables` reads.
    data_dir: the data set whose songs these are.
    name: what the vectors are called in tables; None for the file's name.
    tasks: names in the registry, separated by commas, `all` or `none`.
    tagging: folders of prepared public tagging sets, for the baselines: the
      table has no vectors of their clips.
    baselines: whether the tasks run on the baselines too.
    options: options of the tasks.

  Raises:
    InputError: a task is unknown, the table or the data set cannot be used, or
      nothing in the data set can be measured.
  """
  data = dataset.DataSet(data_dir)
  vectors = vector_tables.read(path, data)
  name = file_names.shown(path.stem if name is None else name)
  subject = _Subject(
    data=data,
    rows=representations.of_vectors(name, vectors.rows, data),
    learned=vectors.learned,
    seed=0,
    about={"embeddings": str(path)},
    checks=lambda: leakage.check_vectors(name, data, vectors.learned),
    certificate=lambda: provenance.of_table(path, data),
  )
  found = _measure(
    subject, tasks, tagging, baselines=baselines, options=options
  )
  found.results["notes"] += vectors.notes
  return found
