"""Runs of the benchmarks of strategies, each in a process of its own.

A finished run leaves a result.json in its folder.
"""

import argparse
from collections.abc import Callable, Sequence
from concurrent import futures
import contextlib
import json
import math
import multiprocessing
import os
import pathlib
import queue
import resource
import time
from typing import Any

from flax import nnx
import ml_collections
import numpy as np

from benchmarks.strategies import strategy_table
from configs import common
from configs import sample
from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import restore
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import versions
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.embedding import song_encoder
from pcl_jax.models import audio_encoder
from pcl_jax.training import config_check
from pcl_jax.training import loop

RESULT = "result.json"
FINGERPRINT = "data.fingerprint"  # Of the settings of a result.
OPTIONS = ("bfloat16", common.AUGMENTED)  # Convolutions, or patches.


def config_of(
  name: str, seed: int, data: dataset.DataSet, steps: int
) -> ml_collections.ConfigDict:
  """Returns the config of a run, which is validated at its end.

  Args:
    name: ARGUMENT of configs/sample.py, or ARGUMENT:OPTION, one of `OPTIONS`.
    seed: of the run.
    data: the sample.
    steps: of a batch of 32 patches.

  Raises:
    InputError: there is no such strategy.
  """
  argument, _, option = name.partition(":")
  config = sample.get_config(argument)
  config.seed = seed
  config.data.dir = str(data.directory)
  config.data.sample_songs = len(data.store)
  if option == common.AUGMENTED:
    common.augmented(config)
  elif option:
    config.train.compute_dtype = option
  warmup_steps = config.opt_params.warmup_steps * steps // config.steps
  config.opt_params.warmup_steps = warmup_steps
  config.steps = config.validate_every_steps = steps
  return config


def settings_of(
  name: str, config: ml_collections.ConfigDict, fingerprint: str
) -> dict[str, Any]:
  """Returns what decides a result: of the config, all but the folders.

  Args:
    name: of the strategy, or `untrained`, which first weights alone decide.
    config: of the run.
    fingerprint: of the data.
  """
  flat = config_check.flatten(json.loads(config.to_json()))
  of_first = ("seed", "model_params.audio.", "data.sample_songs")
  settings = {
    key: value
    for key, value in flat.items()
    if key not in ("data.dir", "train.compilation_cache")
    and (name != strategy_table.UNTRAINED or key.startswith(of_first))
  }
  return settings | {FINGERPRINT: fingerprint}


def read_result(
  folder: pathlib.Path, settings: dict[str, Any]
) -> dict[str, Any] | None:
  """Returns the result of a run that was finished; None where there is none.

  Results of earlier versions do not say what data they are of.

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
  then = result["settings"]
  if FINGERPRINT not in then:
    settings = {k: v for k, v in settings.items() if k != FINGERPRINT}
  if then != settings:
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


def unfinished(jobs: Sequence[tuple]) -> list[tuple]:
  """Returns the jobs that have no result yet.

  Results that do not say what data they are of are taken, and one line says how
  many there are.

  Args:
    jobs: name, config and folder of each.

  Raises:
    InputError: a result is of other settings or data.
  """
  left, unknown, known = [], [], {}
  for name, config, folder in jobs:
    place, result = config.data.dir, None
    if (folder / RESULT).exists():
      if place not in known:
        known[place] = dataset.DataSet(place).fingerprint()
      result = read_result(folder, settings_of(name, config, known[place]))
    if result is None:
      left.append((name, config, folder))
    elif FINGERPRINT not in result["settings"]:
      unknown.append(folder)
  if unknown:
    console.warn(
      f"{len(unknown)} finished runs (the first is {unknown[0]}) do not say "
      "what data they are of, so whether it was this could not be checked: "
      "give another --out if it was not"
    )
  return left


def seeds(text: str) -> list[int]:
  """Reads seeds of a command line, with commas between.

  Raises:
    ArgumentTypeError: one is less than 0.
  """
  found = list(dict.fromkeys(int(seed) for seed in text.split(",")))
  if min(found) < 0:
    raise argparse.ArgumentTypeError(f"{min(found)} is less than 0")
  return found


def _write_result(folder: pathlib.Path, result: dict[str, Any]) -> None:
  partial = folder / f"{RESULT}.partial"
  partial.write_text(json.dumps(result) + "\n")
  partial.replace(folder / RESULT)


def _processor_s() -> float:
  used = resource.getrusage(resource.RUSAGE_SELF)
  return used.ru_utime + used.ru_stime


def encoder_of(
  name: str, config: ml_collections.ConfigDict, folder: pathlib.Path
) -> tuple[audio_encoder.AudioEncoder, dict[str, Any]]:
  """Trains, or takes first weights; returns the last encoder and its steps.

  Args:
    name: of what is trained, or `untrained`.
    config: of the run.
    folder: its workdir.
  """
  if name == strategy_table.UNTRAINED:
    encoder = audio_encoder.AudioEncoder(
      **config.model_params.audio.to_dict(), rngs=nnx.Rngs(config.seed)
    )
    return encoder, {"steps": 0}
  progress = loop.train_and_evaluate(config, folder)
  encoder, _ = restore.load_encoder(folder, "latest")
  return encoder, {"steps": progress["step"]}


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
  begin = time.perf_counter()
  resumed = (folder / checkpoint_files.FOLDER).exists()
  folder.mkdir(parents=True, exist_ok=True)
  with (
    open(folder / "log.txt", "a") as log,
    contextlib.redirect_stdout(log),
    contextlib.redirect_stderr(log),
  ):
    encoder, took = encoder_of(name, config, folder)
    trained_s = _processor_s()
    data = dataset.DataSet(config.data.dir)
    songs = np.arange(len(data.store), dtype=np.int32)
    rows = song_encoder.embed_songs(encoder, data.store, songs)
    scores = strategy_table.look_up(
      data.catalogue, rows, data.catalogue.rows_of(catalogues.TEST)
    )
  _write_result(
    folder,
    took
    | {
      "settings": settings_of(name, config, data.fingerprint()),
      "scores": scores,
      "training_processor_s": None if resumed else trained_s,
      "processor_s": None if resumed else _processor_s(),
      "wall_s": None if resumed else time.perf_counter() - begin,
      "cores": len(cores),
      "versions": versions.installed(),
    },
  )


def run_all(
  jobs: Sequence[tuple],
  workers: int,
  run: Callable[..., None] = run_one,
  until: float = math.inf,
) -> int:
  """Runs jobs, as many at once as there are workers, each in a process.

  Args:
    jobs: name, config and folder of each.
    workers: that share the cores.
    run: takes these three and the cores that it may use.
    until: value of `time.monotonic` after which no job is begun.

  Returns:
    How many jobs were not begun.

  Raises:
    RunError: a run failed; those under way are finished first.
  """
  spawn = multiprocessing.get_context("spawn")
  cores = sorted(os.sched_getaffinity(0))
  shares: queue.SimpleQueue = queue.SimpleQueue()
  for i in range(workers):
    shares.put(set(cores[i::workers]) or set(cores))
  left = []

  def work(job: tuple) -> str | None:
    share, folder = shares.get(), job[2]
    begin = time.monotonic()
    try:
      if begin > until:
        left.append(folder)
        return None
      process = spawn.Process(target=run, args=(*job, share))
      process.start()
      process.join()
    finally:
      shares.put(share)
    name = f"{folder.parent.name}/{folder.name}"
    if process.exitcode:
      return f"{name} failed, see {folder / 'log.txt'}"
    print(f"{name}: {time.monotonic() - begin:,.0f} s", flush=True)
    return None

  with futures.ThreadPoolExecutor(workers) as pool:
    failed = [text for text in pool.map(work, jobs) if text]
  if failed:
    raise errors.RunError(
      f"{'; '.join(failed)}. The same command goes on with what is missing."
    )
  return len(left)
