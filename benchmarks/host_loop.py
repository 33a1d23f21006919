"""How busy the training loop keeps a device that is only a clock.

python -m benchmarks.host_loop
python -m benchmarks.host_loop --step_ms=10 --threads=2 --steps=400 --rounds=5
python -m benchmarks.host_loop --order=resident

Trains by `loop.train_and_evaluate` from a song store in memory, with all that a
run does in addition to its step: plan, loader, hand-over to JAX, metrics, log.
The step itself is a program that does nothing, and its terms can be fetched as
many milliseconds after the end of the step before as the step would take. So
what is measured is the host alone. On a machine with a GPU the batches are
copied to it; `JAX_PLATFORMS=cpu` leaves that out.

For each length of a step and number of threads, in turn, prints the share of
time that the device is busy, patches/s, and processor time a step of the main
thread and of the whole process: the median of the rounds [least, most].
"""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import itertools
import os
import pathlib
import statistics
import tempfile
import time
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from benchmarks import catalogue as catalogue_benchmark
from benchmarks import loader as loader_benchmark
from benchmarks.parts import machine
from configs import common
from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import song_store
from pcl_jax.training import loop
from pcl_jax.training import setup
from pcl_jax.training import train_step

_FRAMES = 1876
_TERMS = ("audio+cf", "audio+genre_w2v", "cf+genre_w2v", "total")
_FIRST_STEPS = 20  # They compile, and fill what is read ahead.
_build = setup.build


class _Due:
  """A number that a device has computed at a moment to come."""

  def __init__(self, at_s: float):
    self._at_s = at_s

  def __array__(self, dtype: Any = None, copy: bool | None = None):
    time.sleep(max(self._at_s - time.perf_counter(), 0))
    return np.float32(1)


class Clock:
  """Stands for the steps of a run; each takes the same time."""

  def __init__(self, step_s: float):
    self._step_s, self._end_s = step_s, 0.0
    # Of each step: clock, time of this thread and of the process, in seconds.
    self._marks: list[tuple[float, float, float]] = []
    # A state is handed on as a step does it, without a copy.
    self._dispatch = jax.jit(
      lambda state, batch, key: state | {"step": state["step"] + 1},
      donate_argnums=0,
    )

  def train(self, state: Any, batch: Any, key: Any) -> tuple[Any, dict]:
    """Takes the place of `Setup.train_step`."""
    state = self._dispatch(state, batch, key)
    now = time.perf_counter()
    self._marks.append((now, time.thread_time(), time.process_time()))
    self._end_s = max(self._end_s, now) + self._step_s
    terms = dict.fromkeys(_TERMS, _Due(self._end_s))
    return state, terms | {train_step.SKIPPED: np.float32(0)}

  def evaluate(self, *_: Any) -> tuple[dict[str, jax.Array], jax.Array]:
    """Takes the place of `Setup.eval_step`."""
    terms = dict.fromkeys(_TERMS, jnp.float32(1))
    return terms | {train_step.SKIPPED: jnp.float32(0)}, jnp.ones((2, 2, 2))

  def figures(self, patches: int) -> dict[str, float]:
    """Returns what was measured, of steps of so many patches."""
    marks = np.array(self._marks[_FIRST_STEPS:])
    wall_s, main_s, process_s = (marks[-1] - marks[0]) / (len(marks) - 1)
    return {
      "busy": self._step_s / wall_s,
      "patches/s": patches / wall_s,
      "main thread ms": main_s * 1e3,
      "process ms": process_s * 1e3,
    }


def make_data(folder: pathlib.Path, songs: int) -> None:
  """Makes a data set of random features, vectors and lists."""
  made = catalogue_benchmark.make_catalogue(songs, songs // 4, None)
  made.save(folder)
  store = folder / song_store.FILE_NAME
  loader_benchmark.make_store(store, songs, _FRAMES)
  rng = np.random.default_rng(0)
  for name, shape in (
    (dataset.PLAYLIST_VECTORS, (songs, 301)),
    (dataset.GENRE_VECTORS, (len(made.genre_codes) + 1, 128)),
  ):
    np.save(folder / name, rng.standard_normal(shape).astype(np.float32))


def config_of(
  folder: pathlib.Path, flags: argparse.Namespace
) -> ml_collections.ConfigDict:
  """Returns the config of a run: strategy CM with all three modes."""
  config = common.of_strategy("cm", "resnet", "a_g_p")
  config.model_params.audio.width = 4  # As many arrays as the paper's.
  config.data.dir = os.fspath(folder)
  config.data.batch_size = flags.rows
  config.data.order = flags.order
  config.steps = flags.steps
  training = catalogues.load(folder).rows_of(catalogues.TRAIN)
  config.data.patches_per_song = -(-flags.steps * flags.rows // len(training))
  config.save_every_steps = 10**6
  config.trackers = ()
  return config


def measure(
  config: ml_collections.ConfigDict, step_ms: float, threads: int
) -> dict[str, float]:
  """Trains once; returns what the device, a clock, has seen of it."""
  clock = Clock(step_ms / 1e3)

  def build(*arguments: Any) -> setup.Setup:
    run = _build(*arguments)
    return dataclasses.replace(
      run, train_step=clock.train, eval_step=clock.evaluate
    )

  config.data.threads = threads
  with (
    tempfile.TemporaryDirectory() as workdir,
    mock.patch.object(setup, "build", build),
  ):
    loop.train_and_evaluate(config, workdir, jax.devices()[:1])
  return clock.figures(config.data.batch_size)


def _print_rows(found: dict[tuple[float, int], list[dict[str, float]]]) -> None:
  def cell(values: list[float], spec: str) -> str:
    low, high = (format(one, spec) for one in (min(values), max(values)))
    return f"{format(statistics.median(values), spec)} [{low}, {high}]"

  specs: dict[str, Callable] = {
    "busy": ".1%",
    "patches/s": ",.0f",
    "main thread ms": ".2f",
    "process ms": ".2f",
  }
  for (step_ms, threads), rounds in found.items():
    cells = [
      f"{name} {cell([one[name] for one in rounds], spec)}"
      for name, spec in specs.items()
      if step_ms or name != "busy"
    ]
    print(f"step {step_ms:g} ms, {threads} threads: {', '.join(cells)}")


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and measures."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  numbers = lambda kind: lambda text: [kind(n) for n in text.split(",")]  # noqa: E731
  parser.add_argument("--step_ms", type=numbers(float), default=[10, 60, 0])
  parser.add_argument("--threads", type=numbers(int), default=[1, 2, 4])
  parser.add_argument("--rows", type=int, default=768, help="patches a step")
  parser.add_argument("--steps", type=int, default=300, help="of a run")
  parser.add_argument("--songs", type=int, default=4000)
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--order", default="shuffled")
  parser.add_argument("--folder", help="of the data set; kept")
  flags = parser.parse_args(argv)
  found: dict[tuple[float, int], list[dict[str, float]]] = {}
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(flags.folder or temporary)
    if not (folder / dataset.GENRE_VECTORS).exists():
      folder.mkdir(parents=True, exist_ok=True)
      make_data(folder, flags.songs)
    config = config_of(folder, flags)
    for _ in range(flags.rounds):
      for key in itertools.product(flags.step_ms, flags.threads):
        found.setdefault(key, []).append(measure(config, *key))
  print(
    f"{machine.describe()}; {flags.rows} patches a step, {flags.steps} steps, "
    f"order {flags.order}, {flags.rounds} rounds: median [least, most]"
  )
  _print_rows(found)


if __name__ == "__main__":
  errors.run_command(main)
