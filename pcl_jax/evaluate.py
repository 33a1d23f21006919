"""What is a trained encoder worth? Tasks, baselines and certainty.

python -m pcl_jax.evaluate --workdir=runs/sample
python -m pcl_jax.evaluate --workdir=runs/sample --tasks=artist,hubs --baselines
python -m pcl_jax.evaluate --workdir=runs/sample --tagging=data/tagging/gtzan
python -m pcl_jax.evaluate --compare runs/a runs/b

Runs the tasks on the features of the run's best encoder, prints the table, and
writes results.json and, for each task, the values of all its items
(evaluation/TASK.parquet) into the run's folder. Beside it stand the precision
at 5 of looking test songs up among all others, for the encoder, the same
network before training and the mean of the mel-spectrogram over time; with
--baselines these and more go through all tasks. --compare tests runs that were
evaluated against each other, item by item.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
import time
from types import MappingProxyType
from typing import Any

from absl import logging

from pcl_jax.checkpoint import manager
from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.evaluation import compare as comparison
from pcl_jax.evaluation import context as contexts
from pcl_jax.evaluation import evaluate_flags
from pcl_jax.evaluation import registry
from pcl_jax.evaluation import report
from pcl_jax.evaluation import representations as baseline_rows
from pcl_jax.evaluation import task_results
from pcl_jax.evaluation.audit import leakage
from pcl_jax.evaluation.audit import provenance
from pcl_jax.evaluation.retrieval import precision_at_k
from pcl_jax.evaluation.tagging import tagging_task

FORMAT_VERSION = 2


def _run_tasks(
  tasks: dict[str, contexts.Task],
  context: contexts.Context,
  embeddings: contexts.Embeddings,
) -> tuple[dict[str, task_results.Outcome | str], dict[str, float]]:
  """Runs tasks on one representation; outcomes and seconds."""
  found, seconds = {}, {}
  for name, task in tasks.items():
    began = time.monotonic()
    logging.info("task %s", name)
    found[name] = task.run(context, embeddings)
    seconds[name] = round(time.monotonic() - began, 2)
  return found, seconds


class _Collector:
  """Gathers what was measured, by task and by representation."""

  def __init__(self, chosen: tuple[str, ...]):
    self.rows: dict[str, dict[str, Any]] = {name: {} for name in chosen}
    self.tables: dict[str, dict[str, Any]] = {name: {} for name in chosen}
    self.lookup: dict[str, Any] = {}
    self.seconds: dict[str, dict[str, float]] = {}

  def add(self, row: str, found: dict[str, task_results.Outcome | str]) -> None:
    for task, one in found.items():
      self.rows[task][row] = report.outcome_as_dict(one)
      if isinstance(one, task_results.Outcome):
        self.tables[task][row] = one.per_item

  def measured(self) -> bool:
    tasks = any(any(rows) for rows in self.tables.values())
    return tasks or any(self.lookup.values())


def _run_representations(
  representations: list[baseline_rows.Representation],
  tasks: dict[str, contexts.Task],
  context: contexts.Context,
  collector: _Collector,
  *,
  baselines: bool,
) -> None:
  """Adds the rows of the run's encoder and of what it is held against."""
  catalogue = context.catalogue
  for one in representations:
    with_tasks = baselines or not one.only_with_baselines
    if not (with_tasks or one.in_lookup):
      continue
    rows = baseline_rows.checked(one.name, one.embed(), catalogue.song_ids)
    if one.in_lookup:
      collector.lookup[one.name] = precision_at_k.precisions(catalogue, rows)
    if with_tasks:
      mine = dataclasses.replace(context, encoder=one.encoder, memory={})
      found, seconds = _run_tasks(tasks, mine, rows)
      collector.add(one.name, found)
      collector.seconds[one.name] = seconds


def _run_baselines(
  tasks: dict[str, contexts.Task],
  context: contexts.Context,
  collector: _Collector,
) -> str | None:
  """Adds rows that no encoder makes; returns why mode P has none."""
  for task_name, task in tasks.items():
    for name, run in task.baselines.items():
      collector.add(name, {task_name: run(context)})
  vectors = baseline_rows.mode_p(context.data, context.options.split)
  if isinstance(vectors, str):
    return vectors
  fresh = dataclasses.replace(context, encoder=None, memory={})
  found, _ = _run_tasks(tasks, fresh, vectors.embed())
  collector.add(vectors.name, found)
  return None


def evaluate(
  workdir: pathlib.Path,
  data_dir: str | None,
  *,
  tasks: tuple[str, ...] = (),
  extra: Mapping[str, contexts.Task] = MappingProxyType({}),
  baselines: bool = False,
  options: contexts.Options | None = None,
  which: str = "best",
) -> report.Evaluation:
  """Runs tasks on a run's encoder, and on the baselines.

  Args:
    workdir: of the run.
    data_dir: data set to evaluate on; None for the one it trained on.
    tasks: names in the registry.
    extra: further tasks, by name (`tagging_task.tasks_of`).
    baselines: whether the tasks run on the baselines too.
    options: of the tasks.
    which: the `best` checkpoint by validation loss, or the `latest`.

  Raises:
    InputError: there is no checkpoint or no data set, or nothing in the data
      set can be measured.
  """
  encoder, meta = manager.load_encoder(workdir, which)
  data = dataset.DataSet(data_dir or meta["config"]["data"]["dir"])
  context = contexts.Context(
    data,
    seed=meta["config"]["seed"],
    options=options or contexts.Options(),
    meta=meta,
    chosen=(*tasks, *extra),
  )
  chosen = {name: registry.TASKS[name] for name in tasks} | dict(extra)
  collector = _Collector(context.chosen)
  rows = baseline_rows.representations(encoder, meta, data)
  _run_representations(rows, chosen, context, collector, baselines=baselines)
  without = _run_baselines(chosen, context, collector) if baselines else None
  if not collector.measured():
    raise errors.InputError(
      f"{data.directory} has no test song that shares an artist or a sub-genre "
      "with another song: there is nothing to look up. Split it again with a "
      "larger --test_share."
    )
  results = {
    "format_version": FORMAT_VERSION,
    "checkpoint": which,
    "step": meta["progress"]["step"],
    "data": str(data.directory),
    "fingerprint": data.fingerprint(),
    "songs": len(data.store),
    "trained": rows[0].name,
    "options": dataclasses.asdict(context.options),
    "precision_at_5": collector.lookup,
    "tasks": collector.rows,
    "seconds": collector.seconds,
    "checks": [dataclasses.asdict(one) for one in leakage.check(meta, data)],
    "certificate": provenance.make(encoder, meta, data),
    "notes": _notes(context.options.split, without),
  }
  return report.Evaluation(results, collector.tables)


def _notes(split: int, without_mode_p: str | None) -> list[str]:
  """Returns what the reader of the table has to know."""
  notes = []
  if split != catalogues.TEST:
    notes.append(
      "Sought are validation songs, which chose the checkpoint and from which "
      "mode P and mode G learned: these numbers flatter."
    )
  if without_mode_p:
    notes.append(f"{baseline_rows.MODE_P}: {without_mode_p}")
  return notes


def in_words(
  results: dict[str, Any],
  extra: Mapping[str, contexts.Task] = MappingProxyType({}),
) -> str:
  """Returns the table that people read.

  Args:
    results: of `evaluate`.
    extra: the further tasks it was given.
  """
  tasks = registry.TASKS | dict(extra)
  parts = [report.lookup_in_words(results)]
  parts += [
    report.task_in_words(name, tasks[name], rows)
    for name, rows in results["tasks"].items()
  ]
  parts += ["\n".join(results["notes"] + leakage.in_words(results["checks"]))]
  return "\n\n".join(part for part in parts if part)


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line, prints the table, writes the results."""
  flags = evaluate_flags.parse(argv, __doc__)
  chosen = registry.choose(flags.tasks)
  options = evaluate_flags.options_of(flags)
  folders = [one for one in (flags.tagging or "").split(",") if one.strip()]
  extra = tagging_task.tasks_of(folders) if folders else {}
  if flags.compare:
    workdirs = [pathlib.Path(one) for one in flags.compare]
    every = flags.tasks == registry.ALL  # Of what the runs have.
    named = None if every else (*chosen, *extra)
    tested = comparison.compare(workdirs, named)
    print(comparison.in_words(workdirs, *tested))
    return
  workdir = pathlib.Path(flags.workdir)
  found = evaluate(
    workdir,
    flags.data,
    tasks=chosen,
    extra=extra,
    baselines=flags.baselines,
    options=options,
    which=flags.checkpoint,
  )
  paths = report.write(workdir, found)
  print(in_words(found.results, extra))
  print(f"\nitems of each task: {workdir / report.FOLDER}")
  print(f"written to {paths[0]}")


if __name__ == "__main__":
  logging.set_verbosity(logging.ERROR)  # Orbax warns of reading only.
  errors.run_command(main)
