"""What each strategy of the paper is worth on the synthesised sample.

python -m benchmarks.strategies --write=docs/strategies.md
python -m benchmarks.strategies --only=ss,aim+artist --seeds=0 --steps=120
python -m benchmarks.strategies --only=hybrid,hybrid:bfloat16

Trains each strategy with each seed for equally many steps of 64 patches, each
run on a core of its own, and looks up the test songs as pcl_jax.evaluate does,
with the checkpoint of the lowest validation loss. Prints precision at 5 and
average precision with intervals, beside those of baselines, and the differences
that the same queries show. Every run leaves a result.json in --out; what has
one is not run again, and what was interrupted goes on.
"""

import argparse
from collections.abc import Sequence
from concurrent import futures
import contextlib
import json
import multiprocessing
import os
import pathlib
import platform
import queue
import resource
import time
from typing import Any

from flax import nnx
import jax
import ml_collections
import numpy as np

from benchmarks import strategy_table
from configs import common
from configs import sample
from pcl_jax import checkpoint
from pcl_jax import config_check
from pcl_jax import embed
from pcl_jax import errors
from pcl_jax import run as runs
from pcl_jax import train
from pcl_jax.data import catalogue as catalogues
from pcl_jax.data import dataset
from pcl_jax.models import audio
from preprocessing import sample_data

STRATEGIES = (
  "ss",
  *(f"cm+{modes}" for modes in common.CROSS_MODAL),
  *(f"aim+{pairs}" for pairs in common.PAIR_METHODS),
  "hybrid+playlist+a_g_p",
)
UNTRAINED = strategy_table.UNTRAINED
STATISTICS = {"mean mel": embed.mean_mel, "mean+std mel": embed.mean_std_mel}
PLAYLIST_VECTORS = "mode P vectors"
RESULT = "result.json"


def config_of(
  name: str, seed: int, data: dataset.DataSet, steps: int
) -> ml_collections.ConfigDict:
  """Returns the config of a run of about as many steps, in whole epochs.

  Args:
    name: ARGUMENT of configs/sample.py, or ARGUMENT:DTYPE of convolutions.
    seed: of the run.
    data: the sample.
    steps: of a batch of 64 patches.

  Raises:
    InputError: there is no such strategy.
  """
  argument, _, dtype = name.partition(":")
  config = sample.get_config(argument)
  config.seed = seed
  config.data.dir = str(data.directory)
  config.train.compute_dtype = dtype or "float32"
  strategy = config_check.check_values(config)
  epoch = data.training_plan(
    strategy,
    config.data.batch_size,
    double_window=config.data.double_window,
    seed=seed,
    epoch=0,
  )
  config.epochs = max(1, round(steps / len(epoch)))
  return config


def title_of(name: str) -> str:
  """Returns the paper's name of a strategy; a baseline's name as it is."""
  argument, _, dtype = name.partition(":")
  if argument not in sample.ARGUMENTS:
    return name
  strategy = config_check.check_values(sample.get_config(argument))
  return f"{strategy.name}, {dtype}" if dtype else strategy.name


def _settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns what decides a run's result: the config but for folders."""
  flat = config_check.flatten(json.loads(config.to_json()))
  return {
    key: value
    for key, value in flat.items()
    if key not in ("data.dir", "train.compilation_cache")
  }


def read_result(
  folder: pathlib.Path, settings: dict[str, Any]
) -> dict[str, Any] | None:
  """Returns the result of a run that was finished; None where there is none.

  Args:
    folder: of the run.
    settings: that it should have.

  Raises:
    InputError: it has others.
  """
  path = folder / RESULT
  if not path.exists():
    return None
  result = json.loads(path.read_text())
  if result["settings"] != settings:
    then = result["settings"]
    keys = sorted(then.keys() | settings.keys())
    changed = [
      f"{key} was {then.get(key)!r} and is {settings.get(key)!r} now"
      for key in keys
      if then.get(key) != settings.get(key)
    ]
    raise errors.InputError(
      f"{path} is of a run with other settings ({'; '.join(changed)}). Give "
      f"another --out, or remove {folder}."
    )
  return result


def _write_result(folder: pathlib.Path, result: dict[str, Any]) -> None:
  partial = folder / f"{RESULT}.partial"
  partial.write_text(json.dumps(result) + "\n")
  partial.replace(folder / RESULT)


def _processor_s() -> float:
  used = resource.getrusage(resource.RUSAGE_SELF)
  return used.ru_utime + used.ru_stime


def _encoder_of(
  name: str, config: ml_collections.ConfigDict, folder: pathlib.Path
) -> tuple[audio.AudioEncoder, dict[str, Any]]:
  """Trains, or takes first weights; returns the encoder and what it took."""
  if name == UNTRAINED:
    encoder = audio.AudioEncoder(
      **config.model_params.audio.to_dict(), rngs=nnx.Rngs(config.seed)
    )
    return encoder, {"steps": 0, "best_step": 0}
  progress = train.train_and_evaluate(config, folder)
  encoder, meta = checkpoint.load_encoder(folder)
  return encoder, {
    "steps": progress["step"],
    "best_step": meta["progress"]["step"],
  }


def run_one(
  name: str,
  config: ml_collections.ConfigDict,
  folder: pathlib.Path,
  cores: set[int],
) -> None:
  """Trains and measures in a process of its own; writes result.json.

  Args:
    name: of the strategy, or `untrained`.
    config: of the run.
    folder: its workdir.
    cores: that it may use.
  """
  os.sched_setaffinity(0, cores)
  begin, resumed = time.perf_counter(), (folder / checkpoint.FOLDER).exists()
  folder.mkdir(parents=True, exist_ok=True)
  with (
    open(folder / "log.txt", "a") as log,
    contextlib.redirect_stdout(log),
    contextlib.redirect_stderr(log),
  ):
    encoder, took = _encoder_of(name, config, folder)
    trained_s = _processor_s()
    data = dataset.DataSet(config.data.dir)
    songs = np.arange(len(data.store), dtype=np.int32)
    rows = embed.embed_songs(encoder, data.store, songs)
    scores = strategy_table.look_up(
      data.catalogue, rows, data.catalogue.rows_of(catalogues.TEST)
    )
  _write_result(
    folder,
    took
    | {
      "settings": _settings(config),
      "scores": scores,
      "training_processor_s": None if resumed else trained_s,
      "processor_s": None if resumed else _processor_s(),
      "wall_s": None if resumed else time.perf_counter() - begin,
      "cores": len(cores),
      "versions": runs.versions(),
    },
  )


def _run_all(jobs: list[tuple], workers: int) -> None:
  """Runs jobs, as many at once as there are workers.

  Raises:
    RunError: a run failed; those under way are finished first.
  """
  spawn = multiprocessing.get_context("spawn")
  cores = sorted(os.sched_getaffinity(0))
  shares: queue.SimpleQueue = queue.SimpleQueue()
  for i in range(workers):
    shares.put(set(cores[i::workers]) or set(cores))

  def work(job: tuple) -> str | None:
    share = shares.get()
    begin = time.perf_counter()
    process = spawn.Process(target=run_one, args=(*job, share))
    process.start()
    process.join()
    shares.put(share)
    folder = job[2]
    if process.exitcode:
      return f"{folder.name} failed, see {folder / 'log.txt'}"
    seconds = time.perf_counter() - begin
    print(f"{folder.name}: {seconds:,.0f} s", flush=True)
    return None

  with futures.ThreadPoolExecutor(workers) as pool:
    failed = [text for text in pool.map(work, jobs) if text]
  if failed:
    raise errors.RunError(
      f"{'; '.join(failed)}. The same command goes on with what is missing."
    )


def _fixed_scores(data: dataset.DataSet) -> dict[str, list[dict]]:
  """Looks up by what has no seed: the mel's statistics, mode P's vectors."""
  songs = np.arange(len(data.store), dtype=np.int32)
  test = data.catalogue.rows_of(catalogues.TEST)
  scores = {
    name: [
      strategy_table.look_up(data.catalogue, statistic(data.store, songs), test)
    ]
    for name, statistic in STATISTICS.items()
  }
  path = data.directory / dataset.PLAYLIST_VECTORS
  if path.exists():
    # Test songs take no part in the factorisation and have no vector.
    known = np.flatnonzero(data.catalogue.split != catalogues.TEST)
    vectors = np.load(path, allow_pickle=False).astype(np.float32)
    scores[PLAYLIST_VECTORS] = [
      strategy_table.look_up(
        data.catalogue, vectors, known.astype(np.int32), known.astype(np.int32)
      )
    ]
  return scores


def _machine() -> str:
  return (
    f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, "
    f"{os.cpu_count()} in the machine; "
    + ", ".join(f"{name} {one}" for name, one in runs.versions().items())
  )


def _times(results: list[dict[str, Any]]) -> str:
  whole = [r["processor_s"] for r in results if r["processor_s"] is not None]
  if not whole:
    return "every run was interrupted: no time of a whole one."
  return (
    f"{len(whole)} runs took {sum(whole) / 60:.0f} minutes of one core "
    f"together, {min(whole):.0f} to {max(whole):.0f} s each."
  )


def measure(flags: argparse.Namespace) -> str:
  """Runs what is missing; returns the tables."""
  data = dataset.DataSet(flags.data)
  first = config_of(STRATEGIES[0], 0, data, flags.steps)
  jobs, planned = [], []
  for seed in flags.seeds:
    for name in (UNTRAINED, *flags.only):
      if name == UNTRAINED:
        config = first.copy_and_resolve_references()
        config.seed = seed
      else:
        config = config_of(name, seed, data, flags.steps)
      folder = flags.out / f"{name.replace(':', '_')}-{seed}"
      planned.append((name, folder, _settings(config)))
      if read_result(folder, _settings(config)) is None:
        jobs.append((name, config, folder))
  print(f"{len(planned) - len(jobs)} runs are there, {len(jobs)} to do")
  _run_all(jobs, flags.workers)
  results: dict[str, list[dict]] = {}
  for name, folder, settings in planned:
    results.setdefault(name, []).append(read_result(folder, settings))
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
    f"{_machine()}. {_times(trained)}"
  )
  return strategy_table.in_markdown(
    head, scores, steps, _fixed_scores(data), upper=PLAYLIST_VECTORS
  )


def _names(text: str) -> list[str]:
  names = [name for name in text.split(",") if name]
  known = (*STRATEGIES, *sample.ARGUMENTS)
  for name in names:
    argument, _, dtype = name.partition(":")
    if argument not in known or dtype not in ("", "float32", "bfloat16"):
      raise argparse.ArgumentTypeError(
        f"{name!r} is no strategy; there are {', '.join(sample.ARGUMENTS)}, "
        "each also with :bfloat16 after it"
      )
  return names


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line, trains what is missing, prints the tables."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--out", type=pathlib.Path, default=pathlib.Path("runs/strategies")
  )
  parser.add_argument("--data", default="data/sample", help="made where absent")
  parser.add_argument(
    "--only",
    type=_names,
    default=list(STRATEGIES),
    help="arguments of configs/sample.py, with commas between",
  )
  parser.add_argument(
    "--seeds",
    type=lambda text: [int(seed) for seed in text.split(",")],
    default=[0, 1, 2],
  )
  parser.add_argument(
    "--steps", type=int, default=360, help="of 64 patches, in whole epochs"
  )
  parser.add_argument(
    "--workers",
    type=int,
    default=len(os.sched_getaffinity(0)),
    help="runs at once, which share the cores",
  )
  parser.add_argument(
    "--write", type=pathlib.Path, help="file whose table is to be replaced"
  )
  flags = parser.parse_args(argv)
  config = sample.get_config()
  sample_data.make_where_absent(
    flags.data,
    songs=config.data.sample_songs,
    seconds=config.data.sample_seconds,
  )
  tables = measure(flags)
  print(f"\n{tables}")
  if flags.write:
    strategy_table.write_between_markers(flags.write, tables)
    print(f"written to {flags.write}; backend {jax.default_backend()}")


if __name__ == "__main__":
  errors.run_command(main)
