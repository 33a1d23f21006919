"""What a run says of itself: where it begins, how far it is, how it ended."""

from collections.abc import Callable
import datetime
import pathlib
import threading
import time
from typing import Any

import jax

from pcl_jax.checkpoint import run_progress
from pcl_jax.common import console
from pcl_jax.common import hosts
from pcl_jax.data import plans
from pcl_jax.training import nonfinite
from pcl_jax.training import profiling
from pcl_jax.training import setup

QUIET_S = 30.0  # A log that is no terminal has a line at least as often.


def say_beginning(run: setup.Setup, progress: run_progress.Progress) -> None:
  """Prints what is trained, how many steps that is, and the memory known."""
  batches, config = run.batches, run.config
  devices = batches.sharding.mesh.size
  console.say(
    f"strategy {batches.strategy.name}, {devices} device(s), "
    f"{len(batches.data.store)} songs in {batches.data.directory}"
  )
  key = "steps" if config.steps else "epochs"
  if run.is_done(progress):
    console.say(
      f"all {config[key]} {key} are done: nothing is left to train; a larger "
      f"--config.{key} goes on"
    )
    return
  steps, rows = batches.first_plan.songs.shape
  shapes = profiling.shapes_of_batch(rows, batches.tables)
  batch_mb = _megabytes(shapes) / devices
  length = f"{config.epochs} epochs"
  if config.steps:
    every = config.validate_every_steps
    length = f"rounds of {every}" if every else "all"
  console.say(
    f"{steps} steps an epoch, {batches.total_steps} in {length}, "
    f"{run.steps_left(progress)} of them left; on each device "
    f"{_megabytes(run.state):.3g} MB of weights and optimizer, {batch_mb:.3g} "
    "MB of a batch, and what the networks compute"
  )


def say_validation(run: setup.Setup, plan: plans.Plan) -> None:
  """Prints where devices decide how much is validated."""
  batches, config = run.batches, run.config
  parts = batches.sharding.mesh.size * config.train.microbatches
  items = plan.songs.shape[1] // (1 + batches.strategy.paired)
  if items < config.data.batch_size and parts > 1:
    console.say(
      f"a validation batch has {items} items, not {config.data.batch_size} "
      "(config.data.batch_size): there are fewer, and these devices and "
      f"microbatches split multiples of {parts} patches. Its loss can be "
      "compared with that of runs of the same number alone"
    )


def _megabytes(tree: Any) -> float:
  arrays = (x for x in jax.tree.leaves(tree) if hasattr(x, "dtype"))
  return sum(x.size * x.dtype.itemsize for x in arrays) / 1e6


class Pace:
  """Tells how much time is left, by the steps since the first of a start."""

  def __init__(self, clock: Callable[[], float] = time.monotonic):
    self._clock, self._first_s, self._steps = clock, 0.0, -1

  def record_step(self) -> None:
    """Counts a step; the first one, which is compiled, begins the time."""
    self._steps += 1
    if not self._steps:
      self._first_s = self._clock()

  def left(self, steps: int) -> str:
    """Returns the time that so many steps take; empty where it is unknown."""
    if self._steps < 1:
      return ""
    seconds = (self._clock() - self._first_s) / self._steps * steps
    return f"about {datetime.timedelta(seconds=round(seconds))} left"


class Heartbeat:
  """Says where a run is whenever nothing was said for a while."""

  def __init__(self, describe: Callable[[], str], quiet_s: float = QUIET_S):
    """Starts at once, in the first process."""
    self._describe, self._quiet_s = describe, quiet_s
    self._done = threading.Event()
    self._thread = threading.Thread(target=self._run, daemon=True)
    if hosts.is_first():
      self._thread.start()

  def _run(self) -> None:
    while True:
      wait_s = self._quiet_s - console.quiet_s()
      if self._done.wait(max(wait_s, 0.0)):
        return
      if console.quiet_s() >= self._quiet_s:
        console.say(self._describe())

  def close(self) -> None:
    """Ends it."""
    self._done.set()
    if self._thread.is_alive():
      self._thread.join()


def describe(
  run: setup.Setup, progress: run_progress.Progress, pace: Pace
) -> str:
  """Describes how far a run is."""
  config, left = run.config, run.steps_left(progress)
  steps = config.validate_every_steps or len(run.batches.first_plan)
  if config.steps:
    parts = [f"step {progress.step} of {config.steps}", ""]
  else:
    step = f"step {progress.step_in_epoch} of {steps}"
    parts = [f"epoch {progress.epoch} of {config.epochs}", step]
  if progress.step_in_epoch == steps or config.steps and not left:
    parts[1] = "validating"
  parts.append(pace.left(left))
  return "under way: " + ", ".join(filter(None, parts))


def say_end(
  run: setup.Setup,
  progress: run_progress.Progress,
  stopped_by: str | None,
  checkpoints: tuple[int | None, int | None],
  path: pathlib.Path,
) -> None:
  """Prints how a run ended.

  Args:
    run: the run.
    progress: how far it is.
    stopped_by: the signal that ended it; None for none.
    checkpoints: steps of the best and of the latest.
    path: the workdir.
  """
  best, latest = checkpoints
  if stopped_by is not None:
    saved = (
      "nothing is saved yet" if latest is None else f"step {latest} is saved"
    )
    console.say(
      f"stopped by {stopped_by} after step {progress.step}; {saved}, and the "
      "same command line goes on"
    )
    return
  if not run.is_done(progress):
    unit = "rounds" if run.config.validate_every_steps else "epochs"
    console.say(
      f"stopped early: {progress.epochs_without_better} {unit} without a "
      "better validation loss"
    )
  if progress.skipped_steps:
    console.say(
      f"{progress.skipped_steps} steps were skipped, being not finite; their "
      f"batches are in {path / nonfinite.FOLDER}"
    )
  console.say(
    f"done: {progress.step} steps; best checkpoint: step {best} in {path}"
  )
