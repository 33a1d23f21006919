"""The training loop, the same for every strategy."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import functools
import json
import math
import os
import pathlib
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import tqdm

from pcl_jax import checkpoint
from pcl_jax import config_check
from pcl_jax import errors
from pcl_jax import hosts
from pcl_jax import metric_writers
from pcl_jax import run as runs
from pcl_jax import speed
from pcl_jax import train_log
from pcl_jax.data import loader
from pcl_jax.data import plan as plans
from pcl_jax.data import plan_ahead

CACHE = ".compiled"  # Beside the workdir, of all runs there.
_VALIDATION_KEY = 0  # Validation is mixed with the same draws in every run.


@dataclasses.dataclass
class Progress:
  """How far a run is; saved with every checkpoint.

  Attributes:
    step: steps taken.
    epoch: the one under way, from 0.
    step_in_epoch: steps taken of it.
    best_loss: lowest total validation loss so far.
    epochs_without_better: since then.
  """

  step: int = 0
  epoch: int = 0
  step_in_epoch: int = 0
  best_loss: float = math.inf
  epochs_without_better: int = 0

  def note_validation(self, loss: float) -> None:
    """Ends an epoch with its total validation loss."""
    self.epoch += 1
    self.step_in_epoch = 0
    self.epochs_without_better += 1
    if loss < self.best_loss:
      self.best_loss, self.epochs_without_better = loss, 0

  def as_dict(self) -> dict[str, Any]:
    """Returns plain values; json knows no infinity."""
    values = dataclasses.asdict(self)
    if math.isinf(self.best_loss):
      values["best_loss"] = None
    return values

  @classmethod
  def from_dict(cls, values: dict[str, Any]) -> "Progress":
    """Reads what `as_dict` gave."""
    if values["best_loss"] is None:
      values = values | {"best_loss": math.inf}
    return cls(**values)


def _check_finite(what: str, terms: dict[str, float]) -> None:
  """Stops a run that has gone astray.

  Raises:
    RunError: the total is not finite.
  """
  if not math.isfinite(terms["total"]):
    raise errors.RunError(
      f"{what} is not finite ({train_log.in_words(terms)}). The checkpoints "
      "before it are kept: lower --config.opt_params.lr or raise "
      "--config.loss_params.contrastive_temperature, and the same --workdir "
      "goes on from them."
    )


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
      "--config.train.rematerialise=True, and a smaller "
      "--config.data.batch_size. The checkpoints are kept. "
      f"({str(error).splitlines()[0][:200]})"
    ) from error


def _check_step(step: int, terms: dict[str, jax.Array]) -> None:
  _check_finite(f"the loss of step {step}", train_log.fetch(terms))


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
  """Tells it on the device; fetching a whole state would hold training up."""
  return jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]).all()


def _load(
  run: runs.Run, plan: plans.Plan, first_step: int = 0
) -> Iterator[dict[str, jax.Array]]:
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
  run: runs.Run, state: dict[str, Any], plan: plans.Plan
) -> dict[str, float]:
  """Returns each term of the loss, averaged over the validation batches."""
  key = jax.random.key(_VALIDATION_KEY)
  sums: dict[str, jax.Array] = {}
  for i, batch in enumerate(_load(run, plan)):
    terms = run.eval_step(state, batch, jax.random.fold_in(key, i))
    sums = {k: sums[k] + v if sums else v for k, v in terms.items()}
  return {
    name: value / len(plan) for name, value in train_log.fetch(sums).items()
  }


def _plan_epoch(run: runs.Run, epoch: int) -> plans.Plan:
  return run.data.training_plan(
    run.strategy,
    run.batch_size,
    double_window=run.double_window,
    seed=run.seed,
    epoch=epoch,
  )


def _load_epoch(
  run: runs.Run, plan: plans.Plan, progress: Progress
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
  batches = _load(run, plan, progress.step_in_epoch)
  with bar, contextlib.closing(batches):
    for batch in batches:
      yield batch
      bar.update()


def _train_epoch(
  run: runs.Run,
  state: dict[str, Any],
  plan: plans.Plan,
  progress: Progress,
  log: train_log.LateLog,
  trace: speed.Trace,
  save: Callable[[dict[str, Any]], None],
  config: ml_collections.ConfigDict,
) -> dict[str, Any]:
  """Trains what is left of an epoch; returns the state after it."""
  meter, before = train_log.Meter(), None
  with contextlib.closing(_load_epoch(run, plan, progress)) as batches:
    while progress.step_in_epoch < len(plan):
      asked = time.perf_counter()
      batch = next(batches)
      meter.add(plan.songs.shape[1], time.perf_counter() - asked)
      # All that a step takes is on the devices by now, or this is an error.
      with jax.transfer_guard("disallow"):
        state, terms = run.train_step(state, batch, run.key)
      # One step may be under way while the next is prepared, not more: what
      # is queued holds its batch in memory.
      if before is not None:
        _check_step(progress.step, before)
      before = terms
      progress.step += 1
      progress.step_in_epoch += 1
      log.flush()
      if trace.note_step(terms):
        train_log.say(f"wrote a trace of the last steps into {trace.folder}")
      if progress.step % config.log_every_steps == 0:
        log.put(_row(run, plan, progress, meter), terms)
      meter.leave_out_compilation()
      at_end = progress.step_in_epoch == len(plan)  # Saved once validated.
      if progress.step % config.save_every_steps == 0 and not at_end:
        _check_step(progress.step, terms)
        log.flush()  # A run that goes on from here does not log it again.
        save(state)
  if before is not None:
    _check_step(progress.step, before)
  log.flush()
  return state


def _row(
  run: runs.Run,
  plan: plans.Plan,
  progress: Progress,
  meter: train_log.Meter,
) -> dict[str, Any]:
  """Returns what a row of the log says beside the losses."""
  speeds = meter.read()
  steps_per_s = speeds["songs_per_s"] / plan.songs.shape[1]
  devices = run.sharding.mesh.devices.ravel().tolist()
  row = {"epoch": progress.epoch, "step": progress.step} | speeds
  row |= speed.figures(run.step_operations, steps_per_s, devices)
  if run.sharing is not None:
    songs = plan.songs[progress.step_in_epoch - 1]
    row["sharing_share"] = round(run.sharing.share(songs), 5)
  return row


def _restore(
  run: runs.Run, checkpoints: checkpoint.Checkpoints
) -> tuple[dict[str, Any], Progress]:
  """Returns where the last start of this run stopped, or its beginning."""
  changed: list[str] = []

  def check(meta: dict[str, Any]) -> None:
    changed.extend(config_check.check_continues(meta, run.meta))

  restored = checkpoints.restore_newest(run.state, check)
  if restored is None:
    return run.state, Progress()
  state, meta = restored
  progress = Progress.from_dict(meta["progress"])
  train_log.say(f"going on from step {progress.step}, epoch {progress.epoch}")
  for line in changed:
    train_log.say(f"changed since then: {line}")
  return state, progress


def _validate_and_note(
  run: runs.Run,
  state: dict[str, Any],
  plan: plans.Plan,
  progress: Progress,
  writer: metric_writers.Writer,
) -> dict[str, float]:
  """Validates at the end of an epoch; returns the losses."""
  losses = validate(run, state, plan)
  epoch = progress.epoch
  _check_finite(f"the validation loss of epoch {epoch}", losses)
  progress.note_validation(losses["total"])
  better = " (best so far)" if not progress.epochs_without_better else ""
  writer.write("validation", progress.step, {"epoch": epoch} | losses)
  train_log.say(
    f"epoch {epoch} validation: {train_log.in_words(losses)}{better}"
  )
  return losses


def _make_save(
  run: runs.Run, progress: Progress, checkpoints: checkpoint.Checkpoints
) -> Callable[..., None]:
  """Returns what saves a state, with its validation losses if there are any."""

  def save(
    state: dict[str, Any], losses: dict[str, float] | None = None
  ) -> None:
    if not _all_finite((state["params"], state["batch_stats"])):
      raise errors.RunError(
        f"after step {progress.step} the weights are not finite. The "
        "checkpoints before it are kept: lower --config.opt_params.lr, and "
        "the same --workdir goes on from them."
      )
    meta = run.meta | {"progress": progress.as_dict()}
    checkpoints.save(state, meta, losses)

  return save


def _in_short(run: runs.Run) -> str:
  return (
    f"strategy {run.strategy.name}, {run.sharding.mesh.size} device(s), "
    f"{len(run.data.store)} songs in {run.data.directory}"
  )


def train_and_evaluate(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike[str],
  devices: Sequence[jax.Device] | None = None,
  *,
  profile: bool = False,
) -> dict[str, Any]:
  """Trains by a config, validating after each epoch; goes on where it stopped.

  Args:
    config: as the files in configs/ give it.
    workdir: folder of the run; holds config.json, checkpoints, metrics.jsonl
      and TensorBoard events.
    devices: to train on; None for all.
    profile: writes a trace of some steps into WORKDIR/profile.

  Returns:
    The run's progress: steps, epochs, best validation loss.

  Raises:
    InputError: config, data set or workdir break a rule.
    RunError: the loss or the weights are no longer finite.
  """
  flat = config_check.flatten(json.loads(config.to_json()))
  hosts.check_same(flat | runs.versions())
  beside = pathlib.Path(workdir).parent / CACHE
  speed.keep_compiled(pathlib.Path(config.train.compilation_cache or beside))
  run = runs.build(config, devices)
  validation_plan = run.data.validation_plan(
    run.strategy,
    run.batch_size,
    run.items_multiple,
    double_window=run.double_window,
  )
  with contextlib.ExitStack() as stack:
    ahead = plan_ahead.PlanAhead(functools.partial(_plan_epoch, run))
    stack.callback(ahead.close)
    ahead.get(0)  # To be refused here, before anything is written.
    path = runs.make_workdir(workdir)
    checkpoints = checkpoint.Checkpoints(path)
    stack.callback(checkpoints.close)
    hosts.check_same(run.meta["data"])
    state, progress = _restore(run, checkpoints)
    hosts.check_same({"first step": progress.step})
    if hosts.is_first():
      runs.write_config(path, config)  # Not before: it may have been refused.
    train_log.say(_in_short(run))
    if progress.epoch >= config.epochs:
      train_log.say(
        f"all {config.epochs} epochs are done: nothing is left to train; a "
        "larger --config.epochs goes on"
      )
    writer = metric_writers.open_writer(path, progress.step)
    save = _make_save(run, progress, checkpoints)
    log = train_log.LateLog(writer)
    trace = speed.Trace(path / "profile" if profile else None)
    with (
      contextlib.closing(writer),
      contextlib.closing(trace),
      _advising_on_memory(),
    ):
      while (
        progress.epoch < config.epochs
        and progress.epochs_without_better < config.early_stop_patience
      ):
        plan = ahead.get(progress.epoch)
        state = _train_epoch(
          run, state, plan, progress, log, trace, save, config
        )
        losses = _validate_and_note(
          run, state, validation_plan, progress, writer
        )
        save(state, losses)
    checkpoints.finish()
    best = checkpoints.best_step()
  if progress.epoch < config.epochs:
    train_log.say(
      f"stopped early: {progress.epochs_without_better} epochs without a "
      "better validation loss"
    )
  train_log.say(
    f"done: {progress.step} steps; best checkpoint: step {best} in {path}"
  )
  return progress.as_dict()
