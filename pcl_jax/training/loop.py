"""The training loop, the same for every strategy."""

from collections.abc import Collection, Iterator, Sequence
import contextlib
import functools
import json
import math
import os
import pathlib
import sys
import time
from typing import Any

import jax
import ml_collections
import tqdm

from pcl_jax.checkpoint import manager
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import hosts
from pcl_jax.common import prefetch
from pcl_jax.common import versions
from pcl_jax.data import loader
from pcl_jax.data import plans
from pcl_jax.training import config_changes
from pcl_jax.training import config_check
from pcl_jax.training import metric_writers
from pcl_jax.training import nonfinite
from pcl_jax.training import preemption
from pcl_jax.training import profiling
from pcl_jax.training import session as sessions
from pcl_jax.training import setup
from pcl_jax.training import train_log
from pcl_jax.training import train_step
from pcl_jax.training.progress import Progress

CACHE = ".compiled"  # Beside the workdir, of all runs there.
_VALIDATION_KEY = 0  # Validation is mixed with the same draws in every run.


@contextlib.contextmanager
def _advising_on_memory() -> Iterator[None]:
  """Words what a device says that has run out of memory.

  Raises:
    RunError: it has.
  """
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


def load(
  run: setup.Run, plan: plans.Plan, first_step: int = 0
) -> Iterator[dict[str, jax.Array]]:
  """Yields the batches of a plan, already on the devices."""
  return loader.load(
    run.data.store,
    run.tables,
    plan,
    run.sharding,
    sharing=run.sharing,
    threads=run.threads,
    stall_s=run.stall_s,
    first_step=first_step,
  )


def validate(
  run: setup.Run, state: dict[str, Any], plan: plans.Plan
) -> dict[str, float]:
  """Returns each term of the loss, averaged over the validation batches."""
  key = jax.random.key(_VALIDATION_KEY)
  sums: dict[str, jax.Array] = {}
  for i, batch in enumerate(load(run, plan)):
    terms = run.eval_step(state, batch, jax.random.fold_in(key, i))
    sums = {k: sums[k] + v if sums else v for k, v in terms.items()}
  return {
    name: value / len(plan) for name, value in train_log.fetch(sums).items()
  }


def plan_epoch(run: setup.Run, epoch: int) -> plans.Plan:
  """Plans the batches of an epoch, from 0."""
  return run.data.training_plan(
    run.strategy,
    run.batch_size,
    double_window=run.double_window,
    seed=run.seed,
    epoch=epoch,
  )


def plan_validation(run: setup.Run) -> plans.Plan:
  """Plans the batches of a validation, the same after every epoch."""
  return run.data.validation_plan(
    run.strategy,
    run.batch_size,
    run.items_multiple,
    double_window=run.double_window,
  )


def _load_epoch(
  run: setup.Run, plan: plans.Plan, progress: Progress
) -> Iterator[dict[str, jax.Array]]:
  """Yields what is left of an epoch's batches, with a progress bar."""
  bar = tqdm.tqdm(
    total=len(plan),
    initial=progress.step_in_epoch,
    desc=f"epoch {progress.epoch}",
    unit="step",
    leave=False,
    disable=not (sys.stderr.isatty() and hosts.is_first()),
  )
  batches = load(run, plan, progress.step_in_epoch)
  with bar, contextlib.closing(batches):
    for batch in batches:
      yield batch
      bar.update()


def _train_epoch(
  session: sessions.Session, state: dict[str, Any], plan: plans.Plan
) -> dict[str, Any]:
  """Trains what is left of an epoch, or until a signal; returns the state."""
  run, progress, stop = session.run, session.progress, session.stop
  config, log = session.config, train_log.LateLog(session.writer)
  meter, before = train_log.Meter(), None
  with contextlib.closing(_load_epoch(run, plan, progress)) as batches:
    while progress.step_in_epoch < len(plan) and not stop.is_due:
      asked = time.perf_counter()
      batch = stop.mark(next(batches))
      meter.add(plan.songs.shape[1], time.perf_counter() - asked)
      # All that a step takes is on the devices by now, or this is an error.
      with jax.transfer_guard("disallow"):
        state, terms = run.train_step(state, batch, run.key)
      flags = train_step.take_flags(terms)
      # One step may be under way while the next is prepared, not more: what
      # is queued holds its batch in memory.
      if before is not None:
        session.note(plan, *before)
      before = terms, flags
      progress.step += 1
      progress.step_in_epoch += 1
      log.flush()
      if session.trace.note_step(terms):
        console.say(
          f"wrote a trace of the last steps into {session.trace.folder}"
        )
      if progress.step % config.log_every_steps == 0:
        log.put(_row(session, plan, meter), terms)
      meter.leave_out_compilation()
      at_end = progress.step_in_epoch == len(plan)  # Saved once validated.
      if progress.step % config.save_every_steps == 0 and not at_end:
        session.note(plan, *before)
        before = None
        log.flush()  # A run that goes on from here does not log it again.
        session.save_within_epoch(state)
  if before is not None:
    session.note(plan, *before)
    log.flush()
    if progress.step_in_epoch < len(plan):
      session.save_within_epoch(state)
  return state


def _row(
  session: sessions.Session, plan: plans.Plan, meter: train_log.Meter
) -> dict[str, Any]:
  """Returns what a row of the log says beside the losses."""
  run, progress = session.run, session.progress
  speeds = meter.read()
  steps_per_s = speeds["songs_per_s"] / plan.songs.shape[1]
  devices = run.sharding.mesh.devices.ravel().tolist()
  row = {"epoch": progress.epoch, "step": progress.step} | speeds
  row |= profiling.figures(run.step_operations, steps_per_s, devices)
  if callable(run.learning_rate):
    row["learning_rate"] = float(run.learning_rate(progress.step - 1))
  if run.sharing is not None:
    songs = plan.songs[progress.step_in_epoch - 1]
    row["sharing_share"] = round(run.sharing.share(songs), 5)
  return row | session.failures()


def _restore(
  run: setup.Run,
  checkpoints: manager.Checkpoints,
  allow_change: Collection[str],
) -> tuple[dict[str, Any], Progress]:
  """Returns where the last start of this run stopped, or its beginning."""

  def check(meta: dict[str, Any]) -> None:
    config_changes.check(meta, run.meta, allow_change)

  restored = checkpoints.restore_newest(run.state, check)
  if restored is None:
    return run.state, Progress()
  state, meta = restored
  progress = Progress.from_dict(meta["progress"])
  console.say(f"going on from step {progress.step}, epoch {progress.epoch}")
  changes = config_changes.check(meta, run.meta, allow_change)
  for line in changes.lines:
    console.say(f"changed since then: {line}")
  if changes.other_batches and progress.step_in_epoch:
    progress.step_in_epoch = 0
    console.say(
      f"epoch {progress.epoch} has other batches now and is begun anew"
    )
  return state, progress


def _validate_and_note(
  session: sessions.Session, state: dict[str, Any], plan: plans.Plan
) -> dict[str, float]:
  """Validates at the end of an epoch; returns the losses.

  Raises:
    RunError: they are not finite.
  """
  losses, progress = validate(session.run, state, plan), session.progress
  epoch = progress.epoch
  if not math.isfinite(losses["total"]):
    raise errors.RunError(
      f"the validation loss of epoch {epoch} is not finite "
      f"({train_log.in_words(losses)}). The checkpoints before it are kept: "
      "lower --config.opt_params.lr or raise "
      "--config.loss_params.contrastive_temperature (with --allow_change), and "
      "the same --workdir goes on from them."
    )
  progress.note_validation(losses["total"])
  better = " (best so far)" if not progress.epochs_without_better else ""
  row = {"epoch": epoch} | losses | session.failures()
  session.writer.write("validation", progress.step, row)
  terms = {k: v for k, v in losses.items() if not k.startswith("collapse_")}
  console.say(f"epoch {epoch} validation: {train_log.in_words(terms)}{better}")
  return losses


def _train(
  session: sessions.Session,
  state: dict[str, Any],
  ahead: prefetch.Planner[plans.Plan],
  validation_plan: plans.Plan,
) -> None:
  """Trains epoch after epoch, until the last, the best or a signal."""
  config, progress, stop = session.config, session.progress, session.stop
  while (
    progress.epoch < config.epochs
    and progress.epochs_without_better < config.early_stop_patience
    and not stop.is_due
  ):
    plan = ahead.get(progress.epoch)
    state = _train_epoch(session, state, plan)
    if progress.step_in_epoch < len(plan):
      return
    losses = _validate_and_note(session, state, validation_plan)
    session.save(state, losses)


def _in_short(run: setup.Run) -> str:
  return (
    f"strategy {run.strategy.name}, {run.sharding.mesh.size} device(s), "
    f"{len(run.data.store)} songs in {run.data.directory}"
  )


def _say_beginning(
  run: setup.Run, config: ml_collections.ConfigDict, progress: Progress
) -> None:
  console.say(_in_short(run))
  if progress.epoch >= config.epochs:
    console.say(
      f"all {config.epochs} epochs are done: nothing is left to train; a "
      "larger --config.epochs goes on"
    )


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
    config: as the files in configs/ give it.
    workdir: folder of the run; holds config.json, checkpoints, metrics.jsonl
      and TensorBoard events.
    devices: to train on; None for all.
    profile: writes a trace of some steps into WORKDIR/profile.
    allow_change: keys that may differ from those of the checkpoint that is
      gone on from (`config_changes`).

  Returns:
    The run's progress: steps, epochs, best validation loss.

  Raises:
    InputError: config, data set or workdir break a rule, or another trainer
      uses the workdir.
    RunError: loss or weights are no longer finite.
  """
  flat = config_check.flatten(json.loads(config.to_json()))
  hosts.check_same(flat | versions.installed())
  beside = pathlib.Path(workdir).parent / CACHE
  profiling.keep_compiled(
    pathlib.Path(config.train.compilation_cache or beside)
  )
  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(preemption.Interruption())
    run = setup.build(config, devices)
    validation_plan = plan_validation(run)
    ahead = prefetch.Planner(functools.partial(plan_epoch, run))
    stack.callback(ahead.close)
    ahead.get(0)  # To be refused here, before anything is written.
    path = setup.make_workdir(workdir)
    stack.enter_context(hosts.hold_workdir(path))
    checkpoints = manager.Checkpoints(path)
    stack.callback(checkpoints.close)
    hosts.check_same(run.meta["data"])
    state, progress = _restore(run, checkpoints, allow_change)
    hosts.check_same({"first step": progress.step})
    if hosts.is_first():
      setup.write_config(path, config)  # Not before: it may have been refused.
    _say_beginning(run, config, progress)
    stop.prepare(run.sharding, several=jax.process_count() > 1)
    writer = metric_writers.open_writer(path, progress.step)
    stack.callback(writer.close)
    trace = profiling.Trace(path / "profile" if profile else None)
    stack.callback(trace.close)
    most = config.train.max_nonfinite_steps
    watch = nonfinite.Watch(run, path, writer, progress, most)
    session = sessions.Session(
      run, config, progress, checkpoints, writer, trace, watch, stop
    )
    with _advising_on_memory():
      _train(session, state, ahead, validation_plan)
    checkpoints.finish()
    kept = checkpoints.files.best(), checkpoints.files.latest()
  _say_end(session, *kept, path)
  return progress.as_dict()


def _say_end(
  session: sessions.Session,
  best: int | None,
  latest: int | None,
  path: pathlib.Path,
) -> None:
  progress, stop = session.progress, session.stop
  if stop.is_due:
    saved = (
      "nothing is saved yet" if latest is None else f"step {latest} is saved"
    )
    console.say(
      f"stopped by {stop.reason} after step {progress.step}; {saved}, and the "
      "same command line goes on"
    )
    return
  if progress.epoch < session.config.epochs:
    console.say(
      f"stopped early: {progress.epochs_without_better} epochs without a "
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
