"""Saves the checkpoints of a run while it trains, and restores the newest.

A step holds three items: `encoder`, `rest` (see `restore`) and `meta` (json:
progress, architecture, feature settings, config, data set, versions), and the
validation losses as `metrics`. The two latest steps and the two best by
validation loss are kept. A save that fails, as on a full disk, does not end
training.
"""

from collections.abc import Callable
import concurrent.futures
import contextlib
import json
import math
import os
from typing import Any, NamedTuple

from absl import logging
import jax
import orbax.checkpoint as ocp

from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import orbax_noise
from pcl_jax.checkpoint import restore
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import hosts

_KEPT = 2  # Of the latest steps, and of the best.


def _agree_on(decide: Callable[..., Any], *arguments: Any) -> Any:
  """Returns what process 0 decides, in all processes; fit for json."""
  text = json.dumps(decide(*arguments)) if hosts.is_first() else ""
  return json.loads(hosts.text_of_first(text))


def _plain(metrics: dict[str, Any] | None) -> dict[str, float | None]:
  """Returns what json can hold; never empty, which orbax takes for absent."""
  values = metrics or {checkpoint_files.LOSS: math.nan}
  return {k: float(v) if math.isfinite(v) else None for k, v in values.items()}


class _Save(NamedTuple):
  """What a save writes; the next step of training deletes the state."""

  step: int
  state: dict[str, Any]
  meta: dict[str, Any]
  metrics: dict[str, float | None]

  def can_be_repeated(self) -> bool:
    return not any(
      isinstance(leaf, jax.Array) and leaf.is_deleted()
      for leaf in jax.tree.leaves(self.state)
    )


class Checkpoints:
  """The checkpoints of one run."""

  def __init__(self, workdir: str | os.PathLike[str]):
    """Opens WORKDIR/checkpoints, or makes the folder.

    Raises:
      InputError: the folder cannot be made, read or written.
    """
    self.files = checkpoint_files.CheckpointFiles(workdir)
    self.failures = 0  # Attempts to save that failed, as on a full disk.
    self.last_save_failed = False  # The newest state is not on file.
    self._manager: ocp.CheckpointManager | None = None
    self._save: _Save | None = None  # In progress.
    self._done: concurrent.futures.Future | None = None  # Ends with it.
    self._background = concurrent.futures.ThreadPoolExecutor(1)
    self._quiet = contextlib.ExitStack()
    hosts.await_first(self.files.prepare)
    self._since = self.files.compared_since()

  def save(
    self,
    state: dict[str, Any],
    meta: dict[str, Any],
    metrics: dict[str, Any] | None = None,
  ) -> None:
    """Starts to save a step while training goes on.

    A save that fails is warned of, counted and tried once more, and training
    goes on. A step that is on file already is replaced if there are metrics
    now, else it stays as it is. `meta`, which is fit for json, has its number
    in progress.step.

    Raises:
      RunError: the save failed, and other processes take part.
    """
    self.wait()
    if metrics is not None:
      self._since = meta["progress"].get(checkpoint_files.COMPARED_SINCE, 0)
      metrics = metrics | {checkpoint_files.COMPARED_SINCE: self._since}
    save = _Save(meta["progress"]["step"], state, meta, _plain(metrics))
    if save.step in self._open().all_steps():
      if metrics is None:
        return
      self._open().delete(save.step)
    try:
      self._start(save)
    except Exception as error:  # Orbax has no narrower one.
      self._record_failure(save, error)
      self._try_again(save)

  def wait(self) -> None:
    """Waits for the save in progress; fails as `save`."""
    save = self._save
    if save is None:
      return
    try:
      self._await_end()
    except Exception as error:
      self._record_failure(save, error)
      if save.can_be_repeated():
        self._try_again(save)

  def finish(self) -> None:
    """Waits for the last save; RunError if the newest state is not on file."""
    self.wait()
    if self.last_save_failed:
      raise errors.RunError(
        f"the last checkpoint could not be written into {self.files.path}: "
        f"the newest on file is of step {self.files.latest()}. Make room, and "
        "the same --workdir goes on from there."
      )

  def close(self) -> None:
    """Waits for the save in progress, then closes."""
    self.wait()
    self._background.shutdown()
    if self._manager is not None:
      self._manager.close()
      self._manager = None
    self._quiet.close()

  def restore_newest(
    self,
    like: dict[str, Any],
    check: Callable[[dict[str, Any]], None] = lambda meta: None,
  ) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Restores the newest good step and moves the damaged ones aside.

    Nothing is moved where a step is refused, as by `check`, which gets its meta
    and may raise, or where no step is good.

    Returns:
      State and meta of the step; None where there are no steps at all.

    Raises:
      InputError: the newest step whose files are good holds other arrays than
        the state `like`, or no step is good.
    """
    found, faults = None, {}
    for step in reversed(_agree_on(self.files.steps)):
      fault = _agree_on(self.files.fault, step)
      if fault is None and found is None:
        meta = _agree_on(self.files.read, step, checkpoint_files.META)
        check(meta)
        try:
          state = restore.read_state(self.files, step, like, verified=True)
          found = state, meta
          self._warn_of_missing_digest(step)
        except restore.DamagedError as error:
          fault = error.fault
      if fault is not None:
        faults[step] = fault
    if faults and found is None:
      listed = "; ".join(f"step {step}: {why}" for step, why in faults.items())
      raise errors.InputError(
        f"no checkpoint in {self.files.path} can be used: {listed}. Nothing "
        "was moved or deleted. Restore one from a copy, or give another "
        "--workdir to start from step 0."
      )
    hosts.await_first(lambda: self._move_aside(faults))
    return found

  def _move_aside(self, faults: dict[int, str]) -> None:
    for step, fault in faults.items():
      place = self.files.move_aside(step, fault)
      console.say(
        f"checkpoint {step} is damaged ({fault}): moved to {place}, and an "
        "earlier one is used"
      )
    if faults:
      self.files.write_index()

  def _warn_of_missing_digest(self, step: int) -> None:
    if hosts.is_first() and not self.files.has_digest(step):
      logging.warning(
        "checkpoint %d in %s has no digests, so it could not be verified",
        step, self.files.path,
      )  # fmt: skip

  def _goodness(self, metrics: dict[str, Any]) -> float:
    """Ranks steps by validation loss; -inf where it cannot be compared."""
    if checkpoint_files.since_of(metrics) != self._since:
      return -math.inf
    return -checkpoint_files.loss_of(metrics)

  def _open(self) -> ocp.CheckpointManager:
    if self._manager is None:
      self._quiet.enter_context(orbax_noise.silenced())
      policies = ocp.checkpoint_managers
      latest = policies.LatestN(_KEPT)
      best = policies.BestN(
        get_metric_fn=self._goodness,
        n=_KEPT,
        keep_checkpoints_without_metrics=False,
      )
      self._manager = ocp.CheckpointManager(
        self.files.path,
        options=ocp.CheckpointManagerOptions(
          preservation_policy=policies.AnyPreservationPolicy([latest, best]),
          # Without it metrics are not written to disk.
          best_fn=self._goodness,
          # Deleting is a rename, so that no half-deleted step is ever listed.
          todelete_subdir=checkpoint_files.TRASH,
          async_options=ocp.AsyncOptions(
            post_finalization_callback=lambda: self.files.write_digest(
              self._save.step
            )
          ),
        ),
      )
    return self._manager

  def _start(self, save: _Save) -> None:
    """Does the part of a save that training waits for."""
    if hosts.is_first():
      self.files.drop_digest(save.step)
    manager = self._open()
    self._save = save
    encoder, rest = restore.split(save.state)
    manager.save(
      save.step,
      args=ocp.args.Composite(
        encoder=ocp.args.StandardSave(encoder),
        rest=ocp.args.StandardSave(rest),
        meta=ocp.args.JsonSave(save.meta),
      ),
      metrics=save.metrics,
      force=True,
    )
    self._done = self._background.submit(self._end, manager)

  def _end(self, manager: ocp.CheckpointManager) -> None:
    """Waits in the background until a step is in its place, then tidies."""
    manager.wait_until_finished()
    if hosts.is_first():
      self.files.tidy()
      self.files.write_index()

  def _await_end(self) -> None:
    self._done.result()
    self._save, self.last_save_failed = None, False

  def _record_failure(self, save: _Save, error: Exception) -> None:
    """Warns of a save that failed and removes its remains."""
    self.failures += 1
    self.last_save_failed = True
    reason = restore.shorten(error)
    if jax.process_count() > 1:
      self._save = None
      raise errors.RunError(
        f"checkpoint {save.step} could not be written into {self.files.path} "
        f"({reason}). Those before it are kept: make room, and the same "
        "--workdir goes on from them."
      ) from error
    manager, self._manager = self._manager, None
    if manager is not None:
      with contextlib.suppress(Exception):  # It repeats the error.
        manager.close()
    self._save = None  # Not before, since closing may still write digests.
    orbax_noise.settle()
    self._quiet.close()
    self.files.tidy()
    logging.warning(
      "checkpoint %d could not be written into %s (%s). Training goes on; what "
      "is lost if it is interrupted grows until there is room. This was "
      "failure %d.",
      save.step, self.files.path, reason, self.failures,
    )  # fmt: skip

  def _try_again(self, save: _Save) -> None:
    """Saves a state a second time, while training waits."""
    try:
      self._start(save)
      self._await_end()
      logging.warning("checkpoint %d was written after all", save.step)
    except Exception as error:
      self._record_failure(save, error)
