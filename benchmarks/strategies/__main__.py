"""What each strategy of the paper is worth on the synthesised sample.

python -m benchmarks.strategies --write=docs/strategies.md
python -m benchmarks.strategies --only=ss,aim+artist --seeds=0 --steps=120
python -m benchmarks.strategies --only=hybrid,hybrid:bfloat16
python -m benchmarks.strategies --only=ss,ss:augmented

Trains each strategy with each seed as configs/sample.py says, a run on a core
of its own, and looks up the test songs as pcl_jax.evaluate does, with the
weights of the last step. Prints precision at 5 and average precision with
intervals, beside those of baselines, and the differences that the same queries
show. Every run leaves a result.json in --out; what has one is not run again,
and what was interrupted goes on.
"""

import argparse
from collections.abc import Sequence
import os
import pathlib
from typing import Any

import numpy as np

from benchmarks.parts import machine
from benchmarks.strategies import strategy_runs
from benchmarks.strategies import strategy_table
from configs import common
from configs import sample
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.evaluation import mel_baselines
from pcl_jax.evaluation import representations
from pcl_jax.evaluation import task_base
from pcl_jax.training import config_check
from preprocessing import sample_data

_PAPER_PAIRS = ("playlist", "artist", "genre")
STRATEGIES = (
  "ss",
  *(f"cm+{modes}" for modes in common.CROSS_MODAL),
  *(f"aim+{pairs}" for pairs in _PAPER_PAIRS),
  "hybrid+playlist+a_g_p",
)
UNTRAINED = strategy_table.UNTRAINED
STATISTICS = {
  representations.MEAN_MEL: mel_baselines.mean_mel,
  representations.MEAN_STD_MEL: mel_baselines.mean_std_mel,
}


def title_of(name: str) -> str:
  """Returns the paper's name of a strategy; a baseline's name as it is."""
  argument, _, option = name.partition(":")
  if argument not in sample.ARGUMENTS:
    return name
  strategy = config_check.check_values(sample.get_config(argument))
  return f"{strategy.name}, {option}" if option else strategy.name


def fixed_scores(data: dataset.DataSet) -> dict[str, list[dict]]:
  """Looks up by what has no seed: the mel's statistics, mode P's vectors."""
  songs = np.arange(len(data.store), dtype=np.int32)
  test = data.catalogue.rows_of(catalogues.TEST)
  scores = {
    name: [
      strategy_table.look_up(data.catalogue, statistic(data.store, songs), test)
    ]
    for name, statistic in STATISTICS.items()
  }
  # Test songs take no part in the factorisation: the others are looked up.
  try:
    playlist_vectors = representations.mode_p(data, catalogues.VALIDATION)
  except task_base.NotAvailable:
    return scores
  known = np.flatnonzero(data.catalogue.split != catalogues.TEST)
  known = known.astype(np.int32)
  scores[representations.MODE_P] = [
    strategy_table.look_up(data.catalogue, playlist_vectors, known, known)
  ]
  return scores


def _times(results: list[dict[str, Any]]) -> str:
  whole = [r["processor_s"] for r in results if r["processor_s"] is not None]
  if not whole:
    return "Every run was interrupted: no time of a whole one."
  return (
    f"Processor time of {len(whole)} whole run(s): {min(whole):.0f} to "
    f"{max(whole):.0f} s each, {sum(whole) / 60:.0f} minutes of one core "
    "together."
  )


def measure(flags: argparse.Namespace) -> str:
  """Runs what is missing; returns the tables."""
  data = dataset.DataSet(flags.data)
  planned = []
  for seed in flags.seeds:
    for name in (UNTRAINED, *flags.only):
      trained = STRATEGIES[0] if name == UNTRAINED else name
      config = strategy_runs.config_of(trained, seed, data, flags.steps)
      folder = flags.out / f"{name.replace(':', '_')}-{seed}"
      planned.append((name, config, folder))
  jobs = strategy_runs.unfinished(planned)
  print(f"{len(planned) - len(jobs)} runs are there, {len(jobs)} to do")
  strategy_runs.run_all(jobs, flags.workers)
  results: dict[str, list[dict]] = {}
  fingerprint = data.fingerprint()
  for name, config, folder in planned:
    settings = strategy_runs.settings_of(name, config, fingerprint)
    results.setdefault(name, []).append(
      strategy_runs.read_result(folder, settings)
    )
  scores = {
    title_of(name): [one["scores"] for one in found]
    for name, found in results.items()
  }
  steps = {
    title_of(name): found[0]["steps"]
    for name, found in results.items()
    if name != UNTRAINED
  }
  trained = [
    one for name, found in results.items() if name != UNTRAINED for one in found
  ]
  head = (
    f"Seeds {', '.join(map(str, flags.seeds))}; {len(data.store)} songs. "
    f"{machine.describe()}. {_times(trained)}"
  )
  return strategy_table.in_markdown(
    head, scores, steps, fixed_scores(data), upper=representations.MODE_P
  )


def names_of(text: str) -> list[str]:
  """Reads names of strategies, with commas between; each whole, and once.

  Raises:
    ArgumentTypeError: one is no strategy, or has another type after it.
  """
  names = []
  for given in filter(None, text.split(",")):
    argument, _, option = given.partition(":")
    options = strategy_runs.OPTIONS
    if argument not in sample.ARGUMENTS or option not in ("", *options):
      raise argparse.ArgumentTypeError(
        f"{given!r} is no strategy; there are {', '.join(sample.ARGUMENTS)}, "
        f"each also with {' or '.join(f':{one}' for one in options)} after it"
      )
    # A family alone is its first variant.
    whole = next(
      (one for one in sample.ARGUMENTS if one.startswith(f"{argument}+")),
      argument,
    )
    names.append(f"{whole}:{option}" if option else whole)
  if not names:
    raise argparse.ArgumentTypeError("names no strategy")
  return list(dict.fromkeys(names))


def _count(text: str) -> int:
  number = int(text)
  if number < 1:
    raise argparse.ArgumentTypeError(f"{number} is less than 1")
  return number


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.strategies",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--out", type=file_names.path, default=pathlib.Path("runs/strategies")
  )
  parser.add_argument(
    "--data",
    default=sample.get_config().data.dir,
    help="the sample (%(default)s), made where absent",
  )
  parser.add_argument(
    "--only",
    type=names_of,
    default=list(STRATEGIES),
    help="arguments of configs/sample.py, with commas between",
  )
  parser.add_argument(
    "--seeds",
    type=strategy_runs.seeds,
    default=[0, 1, 2],
  )
  parser.add_argument(
    "--steps",
    type=_count,
    default=sample.get_config().steps,
    help="of 32 patches (%(default)s)",
  )
  parser.add_argument(
    "--workers",
    type=_count,
    default=len(os.sched_getaffinity(0)),
    help="runs at once, which share the cores",
  )
  parser.add_argument(
    "--write", type=pathlib.Path, help="file whose table is to be replaced"
  )
  return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line, trains what is missing, prints the tables."""
  flags = _parse(argv)
  if flags.write:  # Before hours of training.
    strategy_table.check_place(flags.write)
  made = sample.get_config().data
  sample_data.make_where_absent(
    flags.data, songs=made.sample_songs, seconds=made.sample_seconds
  )
  tables = measure(flags)
  print(f"\n{tables}")
  if flags.write:
    strategy_table.write_between_markers(flags.write, tables)
    print(f"written to {flags.write}")


if __name__ == "__main__":
  errors.run_command(main)
