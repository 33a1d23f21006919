r"""Checkpoints by orbax: encoder, rest of the state, and what they belong to.

A step holds three items: `encoder` (parameters and batch statistics of the
audio encoder, restorable alone), `rest` (the other encoders, the optimiser and
the step) and `meta` (json: progress, architecture, feature settings, config,
data set, versions). Orbax would restore a damaged file as wrong numbers, so
digests of all files lie beside the steps. The two latest steps and the two best
by validation loss are kept.

python -m pcl_jax.checkpoint list runs/hybrid
python -m pcl_jax.checkpoint verify runs/hybrid

`list` shows the steps of a run; `verify` reads all their files and compares the
digests; it exits 1 where a step is damaged. Neither changes anything, so that a
run may be under way.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
import contextlib
import json
import os
from typing import Any

from absl import logging
from flax import nnx
import jax

from pcl_jax.audio import melspectrogram
from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import listing
from pcl_jax.checkpoint import reader
from pcl_jax.checkpoint import saver
from pcl_jax.common import errors
from pcl_jax.common import hosts
from pcl_jax.models import audio_encoder
from pcl_jax.training import train_log

FOLDER = checkpoint_files.FOLDER


def _agreed(decide: Callable[[], Any]) -> Any:
  """Returns what process 0 decides, in all processes; fit for json."""
  if jax.process_count() == 1:
    return decide()
  text = json.dumps(decide()) if hosts.is_first() else ""
  return json.loads(hosts.gather(text)[0])


class Checkpoints:
  """The checkpoints of one run."""

  def __init__(
    self, workdir: str | os.PathLike[str], *, read_only: bool = False
  ):
    """Opens, and makes where absent, WORKDIR/checkpoints.

    Args:
      workdir: folder of the run.
      read_only: writes and tidies nothing, so that a run that is under way in
        the same folder is not disturbed.

    Raises:
      InputError: the folder cannot be made, read or written.
    """
    self._files = checkpoint_files.CheckpointFiles(workdir)
    self._saver = saver.Saver(self._files)
    if not read_only:
      hosts.await_first(self._files.prepare)

  @property
  def failures(self) -> int:
    """How many attempts to save have failed, as on a full disk."""
    return self._saver.failures

  @property
  def last_save_failed(self) -> bool:
    """Whether the newest state that was to be saved is not on file."""
    return self._saver.last_save_failed

  def save(
    self,
    state: dict[str, Any],
    meta: dict[str, Any],
    metrics: dict[str, Any] | None = None,
  ) -> None:
    """Starts to write a step; training goes on meanwhile.

    A save that fails is warned of, counted and tried once more, and training
    goes on. A step that is on file already is replaced where there are metrics
    now, and stays as it is where there are none.

    Args:
      state: of the run.
      meta: plain values, fit for json; its progress.step names the checkpoint.
      metrics: validation losses, where there were any at this step.

    Raises:
      RunError: it failed, and other processes take part.
    """
    self._saver.save(state, meta, metrics)

  def wait(self) -> None:
    """Waits for the save under way, which may fail and is then tried again.

    Raises:
      RunError: it failed, and other processes take part.
    """
    self._saver.wait()

  def finish(self) -> None:
    """Waits for the last save of a run.

    Raises:
      RunError: the newest state is not on file.
    """
    self.wait()
    if self.last_save_failed:
      raise errors.RunError(
        f"the last checkpoint could not be written into {self._files.path}: "
        f"the newest on file is of step {self.latest_step()}. Make room, and "
        "the same --workdir goes on from there."
      )

  def latest_step(self) -> int | None:
    """Returns the newest step, None where there is none."""
    return self._files.latest()

  def best_step(self) -> int | None:
    """Returns the step of the lowest validation loss, else the newest."""
    return self._files.best()

  def restore_newest(
    self,
    like: dict[str, Any],
    check: Callable[[dict[str, Any]], None] = lambda meta: None,
  ) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Restores the newest good step and moves the damaged ones aside.

    Nothing is moved where a step is refused, or where none is good.

    Args:
      like: a state of the same structure, shapes and sharding.
      check: raises where what a step says about itself is not of this run.

    Returns:
      State and meta of the step; None where there are no steps at all.

    Raises:
      InputError: the newest step whose files are good holds other arrays than
        `like`, or no step is good.
    """
    found, faults = None, {}
    for step in reversed(_agreed(self._files.steps)):
      fault = _agreed(lambda step=step: self._files.fault(step))
      if fault is None and found is None:
        meta = _agreed(lambda step=step: self._files.read(step, "meta"))
        check(meta)
        try:
          state = reader.read_state(self._files, step, like)
          found = state, meta
          self._warn_of_missing_digest(step)
        except reader.DamagedError as error:
          fault = str(error)
      if fault is not None:
        faults[step] = fault
    if faults and found is None:
      listed = "; ".join(f"step {step}: {why}" for step, why in faults.items())
      raise errors.InputError(
        f"no checkpoint in {self._files.path} can be used: {listed}. Nothing "
        "was moved or deleted. Bring one back from a copy, or give another "
        "--workdir to begin anew."
      )
    hosts.await_first(lambda: self._move_aside(faults))
    return found

  def _move_aside(self, faults: dict[int, str]) -> None:
    for step, fault in faults.items():
      place = self._files.move_aside(step, fault)
      train_log.say(
        f"checkpoint {step} is damaged ({fault}): moved to {place}, and an "
        "earlier one is used"
      )
    if faults:
      self._files.write_index()

  def _warn_of_missing_digest(self, step: int) -> None:
    if hosts.is_first() and not self._files.has_digest(step):
      logging.warning(
        "checkpoint %d in %s has no digests, so it could not be verified",
        step, self._files.path,
      )  # fmt: skip

  def restore_meta(self, step: int) -> dict[str, Any]:
    """Returns what a step says about itself.

    Args:
      step: to read.

    Raises:
      InputError: it cannot be read.
    """
    self._check_files(step, (checkpoint_files.META,))
    return self._files.read(step, checkpoint_files.META)

  def restore(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """Returns the training state of a step.

    Args:
      step: to restore.
      like: a state of the same structure, shapes and sharding.

    Raises:
      InputError: the step cannot be read or holds other arrays.
    """
    self._check_files(step)
    with self._naming_damage(step):
      return reader.read_state(self._files, step, like)

  def restore_encoder(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """Returns `params` and `batch_stats` of the audio encoder of a step.

    Args:
      step: to restore.
      like: the same of an encoder of the same architecture.

    Raises:
      InputError: the step cannot be read or holds other arrays.
    """
    self._check_files(step, (checkpoint_files.ENCODER,))
    with self._naming_damage(step):
      return reader.read_encoder(self._files, step, like)

  def check_scores(self) -> None:
    """Refuses to call a step the best where the losses of one are damaged.

    Raises:
      InputError: they are.
    """
    for step in self._files.steps():
      self._check_files(step, (checkpoint_files.METRICS,))

  def _check_files(self, step: int, *items: tuple[str, ...]) -> None:
    fault = self._files.fault(step, *items)
    if fault is not None:
      raise self._damaged(step, fault)

  @contextlib.contextmanager
  def _naming_damage(self, step: int) -> Iterator[None]:
    try:
      yield
    except reader.DamagedError as error:
      raise self._damaged(step, str(error)) from error

  def _damaged(self, step: int, fault: str) -> errors.InputError:
    others = [one for one in self._files.steps() if one != step]
    instead = f"use step {max(others)}" if others else "begin anew"
    return errors.InputError(
      f"checkpoint {step} in {self._files.path} is damaged ({fault}). Move "
      f"{self._files.folder(step)} away to {instead}; training that goes on "
      "does so by itself."
    )

  def close(self) -> None:
    """Waits for what is being written, then closes."""
    self._saver.close()


def load_encoder(
  workdir: str | os.PathLike[str], which: str = "best"
) -> tuple[audio_encoder.AudioEncoder, dict[str, Any]]:
  """Loads the audio encoder of a run.

  Args:
    workdir: folder of the run.
    which: `best` by validation loss, or `latest`.

  Returns:
    The encoder, and what its checkpoint says about itself.

  Raises:
    InputError: there is no checkpoint, or its feature has other settings.
  """
  folder = listing.folder_of(workdir)
  checkpoints = Checkpoints(workdir, read_only=True)
  try:
    step = checkpoints.latest_step()
    if which == "best":
      checkpoints.check_scores()
      step = checkpoints.best_step()
    if step is None:
      raise errors.InputError(
        f"{folder} holds no finished checkpoint yet: train longer."
      )
    meta = checkpoints.restore_meta(step)
    melspectrogram.check_settings(meta["feature"], f"{folder}/{step}")
    model = audio_encoder.AudioEncoder(
      **meta["architecture"]["audio"], rngs=nnx.Rngs(0)
    )
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    like = {
      "params": nnx.to_pure_dict(params),
      "batch_stats": nnx.to_pure_dict(stats),
    }
    restored = checkpoints.restore_encoder(step, like)
  finally:
    checkpoints.close()
  logging.info("loaded step %d of %s", step, workdir)
  encoder = nnx.merge(graphdef, restored["params"], restored["batch_stats"])
  return encoder, meta


def main(argv: Sequence[str] | None = None) -> int:
  """Parses the command line; lists or verifies the checkpoints of a run."""
  parser = argparse.ArgumentParser(
    prog="python -m pcl_jax.checkpoint",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("task", choices=("list", "verify"))
  parser.add_argument("run", help="workdir of the run")
  flags = parser.parse_args(argv)
  if flags.task == "list":
    return listing.show_steps(flags.run)
  return listing.verify(flags.run)
