"""Checkpoints by orbax: encoder, rest of the state, and what they belong to.

A step holds three items: `encoder` (parameters and batch statistics of the
audio encoder, restorable alone), `rest` (the other encoders, the optimiser and
the step) and `meta` (json: progress, architecture, feature settings, config,
data set, versions, and a digest of each other item: orbax has none and would
restore a damaged file as wrong numbers). The latest step and the best by
validation loss are kept.
"""

from collections.abc import Callable, Iterator
import contextlib
import functools
import gc
import math
import os
import pathlib
import shutil
import sys
import time
from typing import Any, TypeVar
import zlib

from absl import logging
from flax import nnx
import jax
import numpy as np
import orbax.checkpoint as ocp

from pcl_jax import errors
from pcl_jax import hosts
from pcl_jax import melspectrogram
from pcl_jax.models import audio

FOLDER = "checkpoints"
_METRIC = "total"
_TRASH = ".trash"
_SETTLE_S = 0.3
_T = TypeVar("_T")
_LONGEST = 200  # Characters shown of a library's message.


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


def _short(error: Exception) -> str:
  """Returns the beginning of a message; orbax's can be pages."""
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0] if len(lines[0]) <= _LONGEST else f"{lines[0][:_LONGEST]}..."


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
  """Drops tracebacks of what orbax leaves half done after an error."""
  hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
  try:
    yield
  finally:
    sys.unraisablehook = hook


def _digest(tree: Any) -> int:
  """Returns a checksum of all arrays, in the order of their names."""
  total = 0
  for leaf in jax.tree.leaves(tree):
    total = zlib.crc32(np.ascontiguousarray(leaf), total)
  return total


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
      InputError: the folder cannot be made or read.
    """
    self._path = pathlib.Path(workdir).absolute() / FOLDER
    self._read_only = read_only
    try:
      if not read_only:
        self._path.mkdir(parents=True, exist_ok=True)
      self._empty_trash()
      self._manager = self._open()
    except (OSError, ValueError) as error:
      raise errors.InputError(
        f"{self._path} cannot be opened as a folder of checkpoints "
        f"({_short(error)}). Remove what is damaged or in its place, or give "
        "another --workdir."
      ) from error

  def _open(self) -> ocp.CheckpointManager:
    keep = ocp.checkpoint_managers
    return ocp.CheckpointManager(
      self._path,
      options=ocp.CheckpointManagerOptions(
        create=not self._read_only,
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
        cleanup_tmp_directories=not self._read_only,
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
    meta = meta | {
      "digests": {"encoder": _digest(encoder), "rest": _digest(rest)}
    }
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
    scores = {}
    for step in self._manager.all_steps():
      read = functools.partial(self._manager.metrics, step)
      scores[step] = _score(self._read(step, read) or {})
    if not any(math.isfinite(score) for score in scores.values()):
      return self._manager.latest_step()
    return max(scores, key=scores.get)

  def restore_meta(self, step: int) -> dict[str, Any]:
    """Returns what a step says about itself.

    Args:
      step: to read.

    Raises:
      InputError: it cannot be read.
    """
    args = ocp.args.Composite(meta=ocp.args.JsonRestore())
    return self._read(step, lambda: self._manager.restore(step, args=args)).meta

  def restore(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """Returns the training state of a step.

    Args:
      step: to restore.
      like: a state of the same structure, shapes and sharding.

    Raises:
      InputError: the step is damaged or holds arrays of another architecture.
    """
    encoder, rest = _split(like)
    restored = self._restore_items(step, {"encoder": encoder, "rest": rest})
    return _join(restored["encoder"], restored["rest"])

  def restore_encoder(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """Returns `params` and `batch_stats` of the audio encoder of a step.

    Args:
      step: to restore.
      like: the same of an encoder of the same architecture.

    Raises:
      InputError: the step is damaged or holds arrays of another architecture.
    """
    return self._restore_items(step, {"encoder": like})["encoder"]

  def _restore_items(
    self, step: int, like: dict[str, dict[str, Any]]
  ) -> dict[str, Any]:
    digests = self.restore_meta(step)["digests"]
    items = {
      name: ocp.args.StandardRestore(_abstract(tree))
      for name, tree in like.items()
    }

    def read() -> dict[str, Any]:
      restored = self._manager.restore(step, args=ocp.args.Composite(**items))
      for name in like:
        found = _digest(restored[name])
        if found != digests[name]:
          raise ValueError(
            f"its {name} has the checksum {found}, {digests[name]} is on file"
          )
      return {name: restored[name] for name in like}

    return self._read(step, read)

  def _read(self, step: int, read: Callable[[], _T]) -> _T:
    """Calls `read` and words what goes wrong while a step is read."""
    with _without_noise():
      try:
        return read()
      except Exception as error:  # Orbax has no narrower one for damaged data.
        reason = _short(error)
      # Reads that orbax has abandoned end here, where nobody hears them.
      time.sleep(_SETTLE_S)
      gc.collect()
    others = [one for one in self._manager.all_steps() if one != step]
    instead = f"go on from step {max(others)}" if others else "begin anew"
    raise errors.InputError(
      f"checkpoint {step} in {self._path} cannot be read ({reason}): it is "
      "damaged, or of other networks than the config's. Give the config it was "
      f"trained with or another --workdir, or delete {self._path / str(step)} "
      f"to {instead}."
    )

  def close(self) -> None:
    """Waits for what is being written, then closes."""
    self._manager.wait_until_finished()
    self._manager.close()
    self._empty_trash()

  def _empty_trash(self) -> None:
    if not self._read_only and hosts.is_first():
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
