"""Measures what a trained encoder is worth, with baselines and intervals.

python -m pcl_jax.evaluate --workdir=runs/sample
python -m pcl_jax.evaluate --workdir=runs/sample --tasks=artist,hubs --baselines
python -m pcl_jax.evaluate --workdir=runs/sample --tagging=data/tagging/gtzan
python -m pcl_jax.evaluate --compare runs/a runs/b

Runs the tasks on the features of the run's best encoder, prints the table, and
writes results.json and, for each task, the values of all its items
(evaluation/TASK.parquet) into the run's folder. The table also has the
precision at 5 of test songs that are looked up among all other songs, for the
encoder, for the same network before training and for the mean of the
mel-spectrogram over time; with --baselines these and more run through all
tasks. --compare tests runs that were evaluated against each other, item by
item.
"""

import argparse
from collections.abc import Sequence
import pathlib

from absl import logging

from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.evaluation import compare
from pcl_jax.evaluation import evaluator
from pcl_jax.evaluation import registry
from pcl_jax.evaluation import report
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import probes
from pcl_jax.evaluation.tagging import tagging_tasks


def _add_what(parser: argparse.ArgumentParser) -> None:
  """Adds the flags that say what is evaluated."""
  add = parser.add_argument
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument("--workdir", help="folder of the run")
  what.add_argument(
    "--compare",
    nargs="+",
    metavar="RUN",
    help="folders of evaluated runs; each is tested against the first",
  )
  add(
    "--checkpoint",
    choices=("best", "latest"),
    default="best",
    help="the best one by validation loss, or the latest (%(default)s)",
  )
  add("--data", help="data set (default: the one the run trained on)")
  add(
    "--tasks",
    default=registry.ALL,
    help=f"{registry.ALL} (default), {registry.NONE}, or any of "
    f"{', '.join(registry.TASKS)}, separated by commas",
  )
  add(
    "--tagging",
    metavar="DIR[,DIR]",
    default="",
    help="public tagging sets that preprocessing.tagging_sets has prepared",
  )
  add(
    "--baselines",
    action="store_true",
    help="run the tasks also on the untrained encoder, on statistics of the "
    "mel and on mode P's vectors where these are defined; playlist "
    "continuation also by popularity and at random",
  )


def _add_how(parser: argparse.ArgumentParser) -> None:
  """Adds the flags that become `task_base.Options`."""
  add = parser.add_argument
  add(
    "--split",
    choices=("test", "validation"),
    default="test",
    help="split of the songs that retrieval and playlist continuation look "
    "for (default %(default)s)",
  )
  add(
    "--min_playlists",
    type=int,
    default=1,
    help="number of playlists that two similar songs share (default 1)",
  )
  add(
    "--largest_artist",
    type=int,
    help="ignore artists and albums with more songs, such as `various artists`",
  )
  add(
    "--neighbours",
    type=int,
    default=100,
    help="length of a playlist's continuation (default 100)",
  )
  add(
    "--published_split",
    action="store_true",
    help="split Melon-50 with the mistake of the published script, by which "
    "most test songs are training songs too: only for comparison with numbers "
    "measured so",
  )
  add(
    "--tagging_mean",
    choices=(task_base.EMBEDDINGS, *probes.MEANS),
    default=task_base.EMBEDDINGS,
    help="what is averaged over a clip's patches, with --tagging: their "
    "embeddings before the probe (default), or what the probe says of each",
  )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = command_line.parser("pcl_jax.evaluate", __doc__)
  _add_what(parser)
  _add_how(parser)
  flags = parser.parse_args(argv)
  flags.tagging = [one for one in flags.tagging.split(",") if one.strip()]
  return flags


def _compare(flags: argparse.Namespace) -> None:
  workdirs = [pathlib.Path(one) for one in flags.compare]
  names = None  # All that the runs have.
  if flags.tasks != registry.ALL:
    names = registry.choose(flags.tasks)
    names += tuple(tagging_tasks.tasks_of(flags.tagging))
  print(compare.format_tests(workdirs, *compare.compare(workdirs, names)))


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line, prints the table, writes the results."""
  flags = _parse(argv)
  if flags.compare:
    _compare(flags)
    return
  workdir = pathlib.Path(flags.workdir)
  found = evaluator.evaluate(
    workdir,
    flags.data,
    tasks=flags.tasks,
    tagging=flags.tagging,
    baselines=flags.baselines,
    options=task_base.Options(
      split=catalogues.SPLIT_NAMES.index(flags.split),
      min_playlists=flags.min_playlists,
      largest_artist=flags.largest_artist,
      neighbours=flags.neighbours,
      published_split=flags.published_split,
      tagging_mean=flags.tagging_mean,
    ),
    which=flags.checkpoint,
  )
  paths = report.write(workdir, found)
  print(report.format_evaluation(found))
  print(f"\nitems of each task: {workdir / report.FOLDER}")
  print(f"written to {paths[0]}")


if __name__ == "__main__":
  logging.set_verbosity(logging.ERROR)  # Orbax warns that it only reads.
  errors.run_command(main)
