"""Writes checkpoints while training goes on, and outlives a full disk."""

import concurrent.futures
import contextlib
import dataclasses
import math
from typing import Any

from absl import logging
import jax
import orbax.checkpoint as ocp

from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import orbax_noise
from pcl_jax.checkpoint import reader
from pcl_jax.checkpoint import tree
from pcl_jax.common import errors
from pcl_jax.common import hosts

_KEPT = 2  # Of the latest, and of the best.


class _Keep(ocp.checkpoint_managers.PreservationPolicy):
  """Keeps the latest steps, and the best; what is not finite is never best."""

  def should_preserve(self, checkpoints, *, context):
    del context
    losses = {
      one.step: checkpoint_files.loss_of(one.metrics) for one in checkpoints
    }
    kept = {
      *sorted(losses)[-_KEPT:],
      *checkpoint_files.best_of(losses, _KEPT),
    }
    return [one.step in kept for one in checkpoints]


@dataclasses.dataclass
class _Save:
  """A save under way.

  Attributes:
    step: that is saved.
    state: of the run; gone once the next step has been taken.
    meta: plain values.
    metrics: likewise.
    done: ends with the save, or fails with it.
  """

  step: int
  state: dict[str, Any]
  meta: dict[str, Any]
  metrics: dict[str, float | None]
  done: concurrent.futures.Future | None = None

  def can_be_repeated(self) -> bool:
    """Tells whether the state is still there."""
    return not any(
      isinstance(leaf, jax.Array) and leaf.is_deleted()
      for leaf in jax.tree.leaves(self.state)
    )


def _plain(metrics: dict[str, Any] | None) -> dict[str, float | None]:
  """Returns what json can hold, None for what is not finite."""
  values = {name: float(value) for name, value in (metrics or {}).items()}
  values = {
    name: value if math.isfinite(value) else None
    for name, value in values.items()
  }
  # Never empty, which orbax would take for absent.
  return values or {checkpoint_files.LOSS: None}


class Saver:
  """Saves the steps of one run.

  Attributes:
    failures: attempts that have failed, as on a full disk.
    last_save_failed: whether the newest state that was to be saved is not on
      file.
  """

  def __init__(self, files: checkpoint_files.CheckpointFiles):
    self._files = files
    self._manager: ocp.CheckpointManager | None = None
    self._save: _Save | None = None  # Under way.
    self._step: int | None = None  # Of the newest save.
    self._background = concurrent.futures.ThreadPoolExecutor(1)
    self._quiet = contextlib.ExitStack()
    self.failures = 0
    self.last_save_failed = False

  def _open(self) -> ocp.CheckpointManager:
    if self._manager is None:
      self._quiet.enter_context(orbax_noise.silenced())
      self._manager = ocp.CheckpointManager(
        self._files.path,
        options=ocp.CheckpointManagerOptions(
          preservation_policy=_Keep(),
          # Without it metrics are not written down.
          best_fn=lambda metrics: -checkpoint_files.loss_of(metrics),
          # Deleting is a rename, so that no half-deleted step is ever listed.
          todelete_subdir=checkpoint_files.TRASH,
          async_options=ocp.AsyncOptions(
            post_finalization_callback=self._write_digest
          ),
        ),
      )
    return self._manager

  def save(
    self,
    state: dict[str, Any],
    meta: dict[str, Any],
    metrics: dict[str, Any] | None = None,
  ) -> None:
    """Does what `Checkpoints.save` says; state, meta and metrics are its own.

    Raises:
      RunError: it failed, and other processes take part.
    """
    self.wait()
    save = _Save(meta["progress"]["step"], state, meta, _plain(metrics))
    if save.step in self._open().all_steps():
      if metrics is None:
        return
      self._open().delete(save.step)
    try:
      self._start(save)
    except Exception as error:  # Orbax has no narrower one.
      self._note_failure(save, error)
      self._try_again(save)

  def wait(self) -> None:
    """Waits for the save under way, which may fail and is then tried again.

    Raises:
      RunError: it failed, and other processes take part.
    """
    save = self._save
    if save is None:
      return
    try:
      save.done.result()
      self._save, self.last_save_failed = None, False
    except Exception as error:
      self._note_failure(save, error)
      if save.can_be_repeated():
        self._try_again(save)

  def _start(self, save: _Save) -> None:
    """Does the half of a save that training waits for."""
    if hosts.is_first():
      self._files.drop_digest(save.step)
    manager = self._open()
    self._save, self._step = save, save.step
    encoder, rest = tree.split(save.state)
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
    save.done = self._background.submit(self._end, manager)

  def _end(self, manager: ocp.CheckpointManager) -> None:
    """Waits in the background until a step is in its place; tidies then."""
    manager.wait_until_finished()
    if hosts.is_first():
      self._files.tidy()
      self._files.write_index()

  def _write_digest(self) -> None:
    self._files.write_digest(self._step)

  def _note_failure(self, save: _Save, error: Exception) -> None:
    """Warns of a save that failed and removes what is left of it."""
    self.failures += 1
    self.last_save_failed = True
    self._save, reason = None, reader.shorten(error)
    if jax.process_count() > 1:
      raise errors.RunError(
        f"checkpoint {save.step} could not be written into {self._files.path} "
        f"({reason}). Those before it are kept: make room, and the same "
        "--workdir goes on from them."
      ) from error
    manager, self._manager = self._manager, None
    if manager is not None:
      with contextlib.suppress(Exception):  # It says the same once more.
        manager.close()
    orbax_noise.settle()
    self._quiet.close()
    self._files.tidy()
    logging.warning(
      "checkpoint %d could not be written into %s (%s). Training goes on; what "
      "is lost if it is interrupted grows until there is room. This was "
      "failure %d.",
      save.step, self._files.path, reason, self.failures,
    )  # fmt: skip

  def _try_again(self, save: _Save) -> None:
    """Saves a state a second time, while training waits."""
    try:
      self._start(save)
      save.done.result()
      self._save, self.last_save_failed = None, False
      logging.warning("checkpoint %d was written after all", save.step)
    except Exception as error:
      self._note_failure(save, error)

  def close(self) -> None:
    """Waits for what is being written, then closes."""
    self.wait()
    self._background.shutdown()
    if self._manager is not None:
      self._manager.close()
      self._manager = None
    self._quiet.close()
