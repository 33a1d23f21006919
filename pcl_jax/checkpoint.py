"""Checkpoints by orbax: encoder, rest of the state, and what they belong to.

A step holds three items: `encoder` (parameters and batch statistics of the
audio encoder, restorable alone), `rest` (the other encoders, the optimiser and
the step) and `meta` (json: progress, architecture, feature settings, config,
data set, versions). The latest and the best by validation loss are kept.
"""

import math
import os
import pathlib
import shutil
from typing import Any

from absl import logging
from flax import nnx
import jax
import orbax.checkpoint as ocp

from pcl_jax import errors
from pcl_jax import melspectrogram
from pcl_jax.models import audio

FOLDER = "checkpoints"
_METRIC = "total"
_TRASH = ".trash"


def _score(metrics: dict[str, float]) -> float:
  """Higher is better; what is not finite or absent ranks last."""
  loss = metrics.get(_METRIC, math.nan)
  return -loss if math.isfinite(loss) else -math.inf


def _split(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  """Parts the audio encoder from the rest of a training state."""
  encoder, rest = {}, {}
  for kind in ("params", "batch_stats"):
    encoder[kind] = state[kind]["audio"]
    rest[kind] = {k: v for k, v in state[kind].items() if k != "audio"}
  rest["opt_state"], rest["step"] = state["opt_state"], state["step"]
  # Orbax refuses an item without any leaf, which strategies without other
  # encoders would have here.
  rest = {name: tree for name, tree in rest.items() if jax.tree.leaves(tree)}
  return encoder, rest


def _join(encoder: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
  state = dict(rest)
  for kind in ("params", "batch_stats"):
    state[kind] = {"audio": encoder[kind]} | rest.get(kind, {})
  return state


def _abstract(tree: Any) -> Any:
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
  )


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
      InputError: the folder cannot be made.
    """
    keep = ocp.checkpoint_managers
    self._path = pathlib.Path(workdir).absolute() / FOLDER
    self._read_only = read_only
    if not read_only:
      try:
        self._path.mkdir(parents=True, exist_ok=True)
      except OSError as error:
        raise errors.InputError(
          f"{self._path} cannot be made a folder ({error}). Remove what is "
          "there, or give another --workdir."
        ) from error
    self._empty_trash()
    self._manager = ocp.CheckpointManager(
      self._path,
      options=ocp.CheckpointManagerOptions(
        read_only=read_only,
        save_decision_policy=keep.FixedIntervalPolicy(1),
        preservation_policy=keep.AnyPreservationPolicy(
          [
            keep.LatestN(1),
            keep.BestN(
              get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False
            ),
          ]
        ),
        best_fn=_score,  # Without it metrics are not written down.
        cleanup_tmp_directories=not read_only,
        # Deleting is a rename, so that no half-deleted step is ever listed.
        todelete_subdir=_TRASH,
      ),
    )

  def save(
    self,
    state: dict[str, Any],
    meta: dict[str, Any],
    metrics: dict[str, float] | None = None,
  ) -> None:
    """Starts to write a step; training goes on meanwhile.

    Args:
      state: of the run; its `step` names the checkpoint.
      meta: plain values, fit for json.
      metrics: validation losses, where there were any at this step.
    """
    encoder, rest = _split(state)
    step = meta["progress"]["step"]
    self._manager.save(
      step,
      args=ocp.args.Composite(
        encoder=ocp.args.StandardSave(encoder),
        rest=ocp.args.StandardSave(rest),
        meta=ocp.args.JsonSave(meta),
      ),
      # Never None, which orbax would warn of; what is not a number ranks last.
      metrics=metrics or {_METRIC: math.nan},
    )

  def latest_step(self) -> int | None:
    """Returns the newest step, None where there is none."""
    return self._manager.latest_step()

  def best_step(self) -> int | None:
    """Returns the step of the lowest validation loss, else the newest."""
    scores = {
      step: _score(self._manager.metrics(step) or {})
      for step in self._manager.all_steps()
    }
    if not any(math.isfinite(score) for score in scores.values()):
      return self._manager.latest_step()
    return max(scores, key=scores.get)

  def restore_meta(self, step: int) -> dict[str, Any]:
    """Returns what a step says about itself."""
    restored = self._manager.restore(
      step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
    )
    return restored.meta

  def restore(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """Returns the training state of a step.

    Args:
      step: to restore.
      like: a state of the same structure, shapes and sharding.

    Raises:
      InputError: the step holds arrays of another architecture.
    """
    encoder, rest = (_abstract(part) for part in _split(like))
    try:
      restored = self._manager.restore(
        step,
        args=ocp.args.Composite(
          encoder=ocp.args.StandardRestore(encoder),
          rest=ocp.args.StandardRestore(rest),
        ),
      )
    except ValueError as error:
      raise errors.InputError(
        f"checkpoint {step} in {self._path} does not fit this run's networks "
        f"({error}). Give the config it was trained with, or another workdir."
      ) from error
    return _join(restored.encoder, restored.rest)

  def restore_encoder(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """Returns `params` and `batch_stats` of the audio encoder of a step."""
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        encoder=ocp.args.StandardRestore(_abstract(like))
      ),
    )
    return restored.encoder

  def close(self) -> None:
    """Waits for what is being written, then closes."""
    self._manager.wait_until_finished()
    self._manager.close()
    self._empty_trash()

  def _empty_trash(self) -> None:
    if not self._read_only:
      shutil.rmtree(self._path / _TRASH, ignore_errors=True)


def load_encoder(
  workdir: str | os.PathLike[str], which: str = "best"
) -> tuple[audio.AudioEncoder, dict[str, Any]]:
  """Loads the audio encoder of a run.

  Args:
    workdir: folder of the run.
    which: `best` by validation loss, or `latest`.

  Returns:
    The encoder, and what its checkpoint says about itself.

  Raises:
    InputError: there is no checkpoint, or its feature has other settings.
  """
  folder = pathlib.Path(workdir) / FOLDER
  if not folder.is_dir():
    raise errors.InputError(
      f"{workdir} has no folder {FOLDER}, so it is not the workdir of a run. "
      "Train one with python launch.py --config=... --workdir=..."
    )
  checkpoints = Checkpoints(workdir, read_only=True)
  try:
    step = (
      checkpoints.best_step() if which == "best" else checkpoints.latest_step()
    )
    if step is None:
      raise errors.InputError(
        f"{folder} holds no finished checkpoint yet: train longer."
      )
    meta = checkpoints.restore_meta(step)
    melspectrogram.check_settings(meta["feature"], f"{folder}/{step}")
    model = audio.AudioEncoder(
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
