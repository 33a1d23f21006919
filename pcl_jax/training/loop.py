"""The training loop, the same for every strategy."""

from collections.abc import Collection, Iterator, Sequence
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import sys
import time
from typing import Any

import jax
import ml_collections
import numpy as np
import tqdm

from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import manager
from pcl_jax.checkpoint import run_progress
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import hosts
from pcl_jax.common import jax_setup
from pcl_jax.common import prefetch
from pcl_jax.common import storage
from pcl_jax.common import versions
from pcl_jax.data import plans
from pcl_jax.data.splits import learned_songs
from pcl_jax.training import config_check
from pcl_jax.training import initial_weights
from pcl_jax.training import metric_writers
from pcl_jax.training import nonfinite
from pcl_jax.training import preemption
from pcl_jax.training import profiling
from pcl_jax.training import resuming
from pcl_jax.training import run_messages
from pcl_jax.training import setup
from pcl_jax.training import trackers
from pcl_jax.training import train_step

CACHE = ".compiled"  # Next to the workdir, for all runs there.
_VALIDATION_KEY = 0  # Validation is mixed with the same draws in every run.
# On the device; fetching a whole state would hold training up.
_all_finite = jax.jit(train_step.all_finite)


@dataclasses.dataclass
class _Session:
  """One start of a run: the run itself and what writes it down."""

  run: setup.Setup
  progress: run_progress.Progress
  checkpoints: manager.Checkpoints
  writer: metric_writers.MetricWriter
  trace: profiling.Trace
  watch: nonfinite.Watch
  stop: preemption.Interruption
  meter: metric_writers.Meter = dataclasses.field(
    default_factory=metric_writers.Meter
  )
  pace: run_messages.Pace = dataclasses.field(default_factory=run_messages.Pace)

  def record(
    self,
    plan: plans.Plan,
    terms: dict[str, jax.Array],
    answer: jax.Array | None,
    row: dict[str, Any] | None,
  ) -> None:
    """Records what the last counted step returned; waits for it."""
    losses = metric_writers.fetch(terms)
    skipped = losses.pop(train_step.SKIPPED)
    self.stop.record(answer)
    self.watch.record(plan, losses, bool(skipped))
    if row is not None:
      left = self.pace.left(self.run.steps_left(self.progress))
      self.writer.write_step(row, losses, left)

  def describe(self) -> str:
    """Returns how far the run is, in words."""
    return run_messages.describe(self.run, self.progress, self.pace)

  def failures(self) -> dict[str, int]:
    """Returns what rows of the log say where saves of this start failed."""
    failures = self.checkpoints.failures
    return {"checkpoint_failures": failures} if failures else {}

  def save(
    self, state: train_step.State, losses: dict[str, float] | None = None
  ) -> None:
    """Saves a state, with its validation losses if there are any.

    Raises:
      RunError: its weights are not finite.
    """
    if not _all_finite((state["params"], state["batch_stats"])):
      raise errors.RunError(
        f"after step {self.progress.step} the weights are not finite. The "
        "checkpoints before it are kept: lower --config.opt_params.lr (with "
        "--allow_change), and the same --workdir goes on from them."
      )
    meta = self.run.meta | {"progress": dataclasses.asdict(self.progress)}
    self.checkpoints.save(state, meta, losses)

  def save_within_epoch(self, state: train_step.State) -> None:
    """Saves a state, unless it may be why steps are being skipped."""
    if not self.progress.skipped_in_a_row:
      self.save(state)
      return
    console.say(
      f"step {self.progress.step} is not saved, since it was skipped; a "
      "restart goes on from the checkpoint before it"
    )


@contextlib.contextmanager
def _advising_on_memory() -> Iterator[None]:
  """Raises RunError with advice where a device runs out of memory."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    raise errors.RunError(
      "a device has run out of memory. Three settings help: a larger "
      "--config.train.microbatches (parts of the batch, one after the other), "
      "--config.train.remat=True, and a smaller "
      "--config.data.batch_size. The checkpoints are kept. "
      f"({str(error).splitlines()[0][:200]})"
    ) from error


def validate(
  run: setup.Setup,
  state: train_step.State,
  plan: plans.Plan,
  watch: nonfinite.Watch,
) -> dict[str, float]:
  """Returns each term of the loss, averaged over the validation batches.

  Also how much of their space the first projections use. Batches with features
  that cannot be any are left out.

  Raises:
    RunError: no batch is left, or too many songs are damaged.
  """
  key = jax.random.key(_VALIDATION_KEY)
  sums: dict[str, jax.Array] = {}
  skipped, samples, left = [], [], train_step.COLLAPSE_ROWS
  for i, batch in enumerate(run.batches.load(plan)):
    terms, sample = run.eval_step(state, batch, jax.random.fold_in(key, i))
    skipped.append(terms.pop(train_step.SKIPPED))
    sums = {k: sums[k] + v if sums else v for k, v in terms.items()}
    if left > 0:
      samples.append(sample)
      left -= 2 * sample.shape[1]
  skipped = jax.device_get(skipped)
  good = len(plan) - watch.record_validation(plan, np.flatnonzero(skipped))
  losses = metric_writers.fetch(sums)
  means = {name: value / good for name, value in losses.items()}
  # Of good batches alone, as long as any of the first ones is.
  samples = [x for x, bad in zip(samples, skipped, strict=False) if not bad]
  if not samples:
    return means
  collapse = train_step.collapse_terms(
    samples, paired=run.batches.strategy.paired
  )
  return means | metric_writers.fetch(collapse)


def _plan_validation(run: setup.Setup) -> tuple[setup.Setup, plans.Plan]:
  """Returns the plan, and the run with the size of its batches in the meta."""
  plan = run.batches.plan_validation()
  run_messages.say_validation(run, plan)
  size = {resuming.VALIDATION_BATCH: plan.songs.shape[1]}
  return dataclasses.replace(run, meta=run.meta | size), plan


def _load_epoch(
  session: _Session, plan: plans.Plan
) -> Iterator[dict[str, jax.Array]]:
  """Yields what is left of an epoch's batches, with a progress bar.

  Ends early where a signal comes while a batch is waited for.
  """
  run, progress, stop = session.run, session.progress, session.stop
  bar = tqdm.tqdm(
    total=len(plan),
    initial=progress.step_in_epoch,
    desc=f"epoch {progress.epoch}",
    unit="step",
    leave=False,
    disable=not (sys.stderr.isatty() and hosts.is_first()),
  )
  batches = run.batches.load(
    plan, progress.step_in_epoch, is_stopped=lambda: stop.is_due
  )
  with bar, contextlib.closing(batches):
    for batch in batches:
      yield batch
      bar.update()


def _train_epoch(
  session: _Session, state: train_step.State, plan: plans.Plan
) -> train_step.State:
  """Trains what is left of an epoch, or until a signal; returns the state."""
  run, progress, stop = session.run, session.progress, session.stop
  config, meter, before = run.config, session.meter, None
  meter.go_on()
  with contextlib.closing(_load_epoch(session, plan)) as batches:
    while progress.step_in_epoch < len(plan) and not stop.is_due:
      asked = time.perf_counter()
      batch = next(batches, None)
      if batch is None:
        break
      meter.add(plan.songs.shape[1], time.perf_counter() - asked)
      # All that a step takes is on the devices by now, or this is an error.
      with jax.transfer_guard("disallow"):
        state, terms = run.train_step(state, batch, run.key)
        answer = stop.ask()
      # One step may be under way while the next is prepared, not more: what
      # is queued holds its batch in memory.
      if before is not None:
        session.record(plan, *before)
      progress.step += 1
      progress.step_in_epoch += 1
      session.trace.record_step(terms)
      session.pace.record_step()
      is_logged = progress.step % config.log_every_steps == 0
      before = terms, answer, _row(session, plan) if is_logged else None
      meter.leave_out_compilation()
      at_end = progress.step_in_epoch == len(plan)  # Saved once validated.
      if progress.step % config.save_every_steps == 0 and not at_end:
        # A run that goes on from here does not log it again.
        session.record(plan, *before)
        before = None
        session.save_within_epoch(state)
    # Before the readers are waited for, whose disk may be dead.
    if before is not None:
      session.record(plan, *before)
      meter.pause()  # Validation is no part of its figures.
      if progress.step_in_epoch < len(plan):
        session.save_within_epoch(state)
  return state


def _row(session: _Session, plan: plans.Plan) -> dict[str, Any]:
  """Returns what a row of the log says in addition to the losses."""
  run, progress = session.run, session.progress
  speeds = session.meter.read()
  steps_per_s = speeds["songs_per_s"] / plan.songs.shape[1]
  devices = run.batches.sharding.mesh.devices.ravel().tolist()
  row = {"epoch": progress.epoch, "step": progress.step} | speeds
  row |= profiling.figures(run.operations, steps_per_s, devices)
  if run.schedule is not None:
    updates = progress.step - 1 - progress.skipped_steps
    row["learning_rate"] = float(run.schedule(updates))
  for name, lists in run.batches.shared.items():
    songs = plan.songs[progress.step_in_epoch - 1]
    row[f"{name}_share"] = round(lists.share(songs), 5)
  return row | session.failures()


def _write_beginning(
  run: setup.Setup, path: pathlib.Path, earlier: learned_songs.LearnedSongs
) -> None:
  """Writes down the config, and the songs that are learned from."""
  text = run.config.to_json(indent=2) + "\n"
  storage.write_text(path / "config.json", text)
  learned_songs.record(path, run.batches.data, earlier)


def _validate_and_record(
  session: _Session, state: train_step.State, plan: plans.Plan
) -> dict[str, float]:
  """Validates at the end of an epoch; returns the losses, which are finite."""
  losses = validate(session.run, state, plan, session.watch)
  progress = session.progress
  epoch = progress.epoch
  if not math.isfinite(losses["total"]):
    raise errors.RunError(
      f"the validation loss of epoch {epoch} is not finite "
      f"({metric_writers.format_terms(losses)}). The checkpoints before it are "
      "kept: lower --config.opt_params.lr or raise "
      "--config.loss_params.contrastive_temperature (with --allow_change), and "
      "the same --workdir goes on from them."
    )
  progress.record_validation(losses["total"])
  better = "" if progress.epochs_without_better else " (best so far)"
  row = {"epoch": epoch} | losses | session.failures()
  session.writer.write("validation", progress.step, row)
  terms = {k: v for k, v in losses.items() if not k.startswith("collapse_")}
  shown = metric_writers.format_terms(terms)
  console.say(f"epoch {epoch} validation: {shown}{better}")
  return losses


def _train(
  session: _Session,
  state: train_step.State,
  ahead: prefetch.Planner[plans.Plan],
  validation_plan: plans.Plan,
) -> None:
  """Trains epoch after epoch, until the last, the best or a signal."""
  config, progress = session.run.config, session.progress
  while (
    not session.run.is_done(progress)
    and progress.epochs_without_better < config.early_stop_patience
    and not session.stop.is_due
  ):
    whole = ahead.get(progress.epoch)
    plan = session.run.cut(whole, progress)
    state = _train_epoch(session, state, plan)
    if progress.step_in_epoch < len(plan):
      return
    losses = _validate_and_record(session, state, validation_plan)
    if len(plan) == len(whole):  # Else more steps go on with the rest of it.
      progress.end_epoch()
    session.save(state, losses)


def train_and_evaluate(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike[str],
  devices: Sequence[jax.Device] | None = None,
  *,
  profile: bool = False,
  allow_change: Collection[str] = (),
) -> dict[str, Any]:
  """Trains by a config, validating after each epoch; goes on where it stopped.

  SIGTERM or SIGINT ends it after the step under way, which is saved; a second
  one ends the process at once.

  Args:
    config: a config as the files in configs/ give it.
    workdir: folder of the run; holds config.json, checkpoints, metrics.jsonl
      and TensorBoard events.
    devices: the devices to train on; None for all.
    profile: writes a trace of some steps into WORKDIR/profile.
    allow_change: keys that may differ from those of the checkpoint that
      training goes on from (`resuming.check_changes`).

  Returns:
    The run's progress: steps, epochs, best validation loss. `stopped_by` is the
    signal that stopped it before its end, in words, or None.

  Raises:
    InputError: config, data set or workdir break a rule, another trainer
      uses the workdir, or JAX would compute in other types.
    OSError: a file of the workdir cannot be written.
    RunError: loss or weights are no longer finite.
  """
  path = file_names.path(workdir)
  checkpoint_files.refuse_bundle(path)
  jax_setup.check_types()
  flat = config_check.flatten(json.loads(config.to_json()))
  hosts.check_same(flat | versions.installed())
  cache = config.train.compilation_cache or path.parent / CACHE
  profiling.enable_compilation_cache(file_names.path(cache))
  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(preemption.Interruption())
    run = setup.build(config, devices)
    run, validation_plan = _plan_validation(run)
    ahead = prefetch.Planner(run.batches.plan_epoch)
    stack.callback(ahead.close)
    ahead.get(0)  # To be refused here, before anything is written.
    run, learned_before = initial_weights.begin(run, path)
    stack.enter_context(hosts.hold_workdir(path))
    checkpoints = manager.Checkpoints(path)
    stack.callback(checkpoints.close)
    hosts.check_same(run.meta["data"])
    run, state, progress = resuming.restore(run, checkpoints, allow_change)
    hosts.check_same({"first step": progress.step})
    if hosts.is_first():  # Not before: it may have been refused.
      _write_beginning(run, path, learned_before)
    run_messages.say_beginning(run, progress)
    stop.prepare(run.batches.sharding, several=jax.process_count() > 1)
    followers = trackers.open_all(config, path, progress.step)
    writer = metric_writers.MetricWriter(path, progress.step, followers)
    stack.callback(writer.close)
    trace = profiling.Trace(path / "profile" if profile else None)
    stack.callback(trace.close)
    watch = nonfinite.Watch(run, path, writer, progress)
    session = _Session(run, progress, checkpoints, writer, trace, watch, stop)
    if not sys.stdout.isatty():
      stack.callback(run_messages.Heartbeat(session.describe).close)
    with _advising_on_memory():
      _train(session, state, ahead, validation_plan)
    checkpoints.finish()
    kept = checkpoints.files.best(), checkpoints.files.latest()
  is_stopped = stop.is_due and not run.is_done(progress)
  stopped_by = stop.reason if is_stopped else None
  run_messages.say_end(run, progress, stopped_by, kept, path)
  return dataclasses.asdict(progress) | {"stopped_by": stopped_by}
