"""Measures what a trained encoder is worth, with baselines and intervals.

python -m pcl_jax.evaluate --workdir=runs/sample
python -m pcl_jax.evaluate --workdir=runs/sample --tasks=artist,hubs --baselines
python -m pcl_jax.evaluate --workdir=runs/sample --tagging=data/tagging/gtzan
python -m pcl_jax.evaluate --embeddings=other.parquet --data=data/sample
python -m pcl_jax.evaluate --compare runs/a runs/b other.parquet

Runs the tasks on the features of the run's best encoder, and writes
results.json and, for each task, the values of all its items
(evaluation/TASK.parquet) into the run's folder. It prints a summary, and with
--verbose the tables of all tasks; pcl_jax.report makes a page of them. The
look-up is the precision at 5 of test songs among all other songs, for the
encoder, for the same network before training and for the mean of the
mel-spectrogram over time; with --baselines these and more run through all
tasks. --compare tests runs that were evaluated against each other, item by
item.

With --embeddings, all this is measured on vectors that any program made: a
Parquet file with the columns id and vector, and a row for each song of --data.
What is found is written into a folder beside it (other.evaluated), and
--compare takes such files as it takes runs. With --folds, the queries of all
folds that preprocessing.data_folds made are measured together.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

from absl import logging

from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import jax_setup
from pcl_jax.data import catalogues
from pcl_jax.evaluation import compare
from pcl_jax.evaluation import evaluator
from pcl_jax.evaluation import folds
from pcl_jax.evaluation import registry
from pcl_jax.evaluation import report
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import probes
from pcl_jax.evaluation.tagging import tagging_tasks

_TASKS = f"{registry.ALL} (default), {registry.NONE}, or any of"
_HELP = {
  "workdir": "folder of the run, or a bundle",
  "embeddings": "a Parquet file of vectors, in place of a run; needs --data",
  "folds": "evaluate the runs of all folds, WORKDIR/0, WORKDIR/1 and so on, or "
  "--embeddings on all folds of --data, and pool their queries",
  "name": "what these vectors are called in tables (default: the file's name)",
  "compare": "folders of evaluated runs, and evaluated files of vectors; each "
  "is tested against the first",
  "checkpoint": "the best one by validation loss, or the latest (%(default)s); "
  "a bundle has one encoder",
  "data": "data set (default: the one the run trained on)",
  "tasks": f"{_TASKS} {', '.join(registry.TASKS)}, separated by commas",
  "tagging": "public tagging sets that preprocessing.tagging_sets has prepared",
  "baselines": "run the tasks also on the untrained encoder, on statistics of "
  "the mel and on mode P's vectors where these are defined; playlist "
  "continuation also by popularity and at random",
  "split": "split of the songs that retrieval and playlist continuation look "
  "for (default %(default)s)",
  "min_playlists": "number of playlists that two similar songs share (default "
  "%(default)s)",
  "largest_artist": "ignore artists and albums with more songs, such as "
  "`various artists`",
  "neighbours": "length of a playlist's continuation (default %(default)s)",
  "published_split": "split Melon-50 with the mistake of the published script, "
  "by which most test songs are training songs too: only for comparison with "
  "numbers measured so",
  "verbose": "print the tables of all tasks, not a summary",
  "tagging_mean": "what is averaged over a clip's patches, with --tagging: "
  "their embeddings before the probe (default), or what the probe says of each",
}


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = command_line.parser("pcl_jax.evaluate", __doc__)

  def add(name: str, to=parser, **how) -> None:
    to.add_argument(f"--{name}", help=_HELP[name], **how)

  path = {"type": command_line.path}
  what = parser.add_mutually_exclusive_group(required=True)
  add("workdir", what, **path)
  add("embeddings", what, **path, metavar="TABLE")
  add("compare", what, **path, nargs="+", metavar="RUN")
  add("name")
  add("folds", action="store_true")
  add("checkpoint", choices=("best", "latest"), default="best")
  add("data")
  add("tasks", default=registry.ALL)
  add("tagging", metavar="DIR[,DIR]", default="")
  add("baselines", action="store_true")
  add("split", choices=("test", "validation"), default="test")
  add("min_playlists", type=int, default=1)
  add("largest_artist", type=int)
  add("neighbours", type=int, default=100)
  add("published_split", action="store_true")
  means = (task_base.EMBEDDINGS, *probes.MEANS)
  add("tagging_mean", choices=means, default=means[0])
  add("verbose", action="store_true")
  flags = parser.parse_args(argv)
  if flags.embeddings and not flags.data:
    parser.error(
      "--embeddings needs --data, the data set whose songs these are"
    )
  if flags.folds and (flags.compare or (flags.workdir and flags.data)):
    parser.error("--folds goes with --workdir, or with --embeddings and --data")
  if flags.folds and flags.split != "test":
    parser.error(
      "--folds puts test songs together, each of which is in one fold; "
      "validation songs may be in several, so leave out --split"
    )
  _refuse_unused(parser, flags)
  if flags.name is not None and not flags.embeddings:
    parser.error("--name is the name of --embeddings; a run has its own")
  flags.tagging = [one for one in flags.tagging.split(",") if one.strip()]
  flags.split = catalogues.SPLIT_NAMES.index(flags.split)
  return flags


def _refuse_unused(
  parser: argparse.ArgumentParser, flags: argparse.Namespace
) -> None:
  """Refuses flags that would do nothing beside others."""
  used, unused = "--embeddings", ["checkpoint"] if flags.embeddings else []
  if flags.compare:
    used = "--compare, which reads results that are there"
    unused = [
      name
      for name in vars(flags)
      if name not in ("compare", "tasks", "tagging", "name", "folds")
    ]
  for name in unused:
    if getattr(flags, name) != parser.get_default(name):
      parser.error(f"--{name} does nothing with {used}: leave it out")


def _compare(flags: argparse.Namespace) -> None:
  names = None  # All that the runs have.
  if flags.tasks != registry.ALL:
    names = registry.choose(flags.tasks)
    names += tuple(tagging_tasks.tasks_of(flags.tagging))
  found = compare.compare(flags.compare, names)
  print(compare.format_tests(flags.compare, *found))


def _evaluate(
  flags: argparse.Namespace, how: dict[str, Any]
) -> tuple[pathlib.Path, report.Evaluation]:
  """Evaluates a run or a table; returns the folder of its results, too."""
  if flags.embeddings:
    folder = report.folder_of(flags.embeddings)
    places = folds.find(file_names.path(flags.data)) if flags.folds else []
    found = [
      evaluator.evaluate_table(flags.embeddings, place, name=flags.name, **how)
      for place in places or [flags.data]
    ]
    if not flags.folds:
      return folder, found[0]
    for place, one in zip(places, found, strict=True):
      report.write(folder / place.name, one)
    return folder, folds.pool(found)
  how["which"] = flags.checkpoint
  if not flags.folds:
    return flags.workdir, evaluator.evaluate(flags.workdir, flags.data, **how)
  found, workdirs = [], folds.find(flags.workdir)
  folds.check_runs(workdirs, flags.checkpoint)
  for workdir in workdirs:
    report.check_writable(workdir)
  for workdir in workdirs:
    found.append(evaluator.evaluate(workdir, None, **how))
    report.write(workdir, found[-1])
  return flags.workdir, folds.pool(found)


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line, prints the table, writes the results."""
  flags = _parse(argv)
  if flags.compare:
    _compare(flags)
    return
  jax_setup.start()
  report.check_writable(flags.workdir or flags.embeddings)
  decided = [field.name for field in dataclasses.fields(task_base.Options)]
  how = {name: getattr(flags, name) for name in ("tasks", "tagging")}
  how["baselines"] = flags.baselines
  how["options"] = task_base.Options(
    **{name: getattr(flags, name) for name in decided}
  )
  folder, found = _evaluate(flags, how)
  paths = report.write(folder, found)
  if flags.verbose:
    print(report.format_evaluation(found))
    print(f"\nitems of each task: {folder / report.FOLDER}")
  else:
    print(report.format_summary(found))
  print(f"written to {paths[0]}")


if __name__ == "__main__":
  logging.set_verbosity(logging.ERROR)  # Orbax warns that it only reads.
  errors.run_command(main)
