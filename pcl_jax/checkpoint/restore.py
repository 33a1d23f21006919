"""Restores states and encoders from checkpoints, and refuses other networks.

A step holds the items `encoder` (parameters and batch statistics of the audio
encoder, restorable alone) and `rest` (the other encoders, the optimiser and the
step). Orbax would restore a damaged file as wrong numbers and cast other types
without a word, so digests, names, shapes and types are compared first.
"""

from collections.abc import Iterator
import contextlib
import os
from typing import Any

from absl import logging
from flax import nnx
import jax
import orbax.checkpoint as ocp

from pcl_jax.audio import melspectrogram
from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import orbax_noise
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import jax_setup
from pcl_jax.common import storage
from pcl_jax.models import audio_encoder

_LONGEST = 200  # Characters shown of a library's message.


class DamagedError(errors.InputError):
  """A step is damaged; `fault` says how."""

  def __init__(
    self, files: checkpoint_files.CheckpointFiles, step: int, fault: str
  ):
    others = [one for one in files.steps() if one != step]
    instead = f"use step {max(others)}" if others else "start from step 0"
    super().__init__(
      f"checkpoint {step} in {files.path} is damaged ({fault}). Move "
      f"{files.folder(step)} away to {instead}; training that goes on does so "
      "by itself."
    )
    self.fault = fault


def shorten(error: BaseException) -> str:
  """Returns the beginning of a message; orbax's can be pages long."""
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0] if len(lines[0]) <= _LONGEST else f"{lines[0][:_LONGEST]}..."


def verify(
  files: checkpoint_files.CheckpointFiles, step: int, *items: tuple[str, ...]
) -> None:
  """Raises DamagedError where a file of some items is not as it was written."""
  fault = files.fault(step, *items)
  if fault is not None:
    raise DamagedError(files, step, fault)


def read_meta(
  files: checkpoint_files.CheckpointFiles, step: int
) -> dict[str, Any]:
  """Returns what a step says about itself, or raises DamagedError."""
  verify(files, step, (checkpoint_files.META,))
  return files.read(step, checkpoint_files.META)


def read_state(
  files: checkpoint_files.CheckpointFiles,
  step: int,
  like: dict[str, Any],
  *,
  verified: bool = False,
) -> dict[str, Any]:
  """Returns the training state of a step.

  `like` is a state of the same structure, shapes and sharding; files that are
  `verified` are not verified again.

  Raises:
    DamagedError: the step cannot be read.
    InputError: it holds other arrays than `like`.
  """
  if not verified:
    verify(files, step)
  encoder, rest = split(like)
  encoder = _read_item(files, step, checkpoint_files.ENCODER, encoder)
  state = _read_item(files, step, checkpoint_files.REST, rest)
  for kind in ("params", "batch_stats"):
    state[kind] = {"audio": encoder[kind]} | state.get(kind, {})
  return state


def read_encoder(
  files: checkpoint_files.CheckpointFiles, step: int, like: dict[str, Any]
) -> dict[str, Any]:
  """Returns `params` and `batch_stats` of the audio encoder of a step.

  `like` is the same of an encoder of the same architecture.

  Raises:
    DamagedError: the step cannot be read.
    InputError: it holds other arrays than `like`.
  """
  verify(files, step, (checkpoint_files.ENCODER,))
  return _read_item(files, step, checkpoint_files.ENCODER, like)


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
    InputError: there is no good checkpoint, its feature has other settings, or
      JAX would compute in other types.
  """
  jax_setup.check_types()
  files = checkpoint_files.CheckpointFiles(workdir)
  folder = file_names.path(workdir) / checkpoint_files.FOLDER
  files.check_exists()
  step = files.latest()
  if which == "best":
    for one in files.steps():  # A damaged loss would hide the best step.
      fault = files.fault(one, (checkpoint_files.METRICS,))
      # A run that is under way deletes steps meanwhile.
      if fault is not None and files.folder(one).is_dir():
        raise DamagedError(files, one, fault)
    step = files.best()
  if step is None:
    raise errors.InputError(
      f"{folder} holds no finished checkpoint yet: train longer."
    )
  meta = read_meta(files, step)
  melspectrogram.check_settings(meta["feature"], f"{folder}/{step}")
  built = meta["architecture"]["audio"]
  # Shapes alone: no weights are drawn.
  model = nnx.eval_shape(
    lambda: audio_encoder.AudioEncoder(**built, rngs=nnx.Rngs(0))
  )
  graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
  here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
    {
      "params": nnx.to_pure_dict(params),
      "batch_stats": nnx.to_pure_dict(stats),
    },
  )
  restored = read_encoder(files, step, like)
  logging.info("loaded step %d of %s", step, workdir)
  encoder = nnx.merge(graphdef, restored["params"], restored["batch_stats"])
  return encoder, meta


def split(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  """Splits a training state into the items `encoder` and `rest`."""
  encoder, rest = {}, dict(state)
  for kind in ("params", "batch_stats"):
    rest[kind] = dict(state[kind])
    encoder[kind] = rest[kind].pop("audio")
  # Orbax refuses a tree without leaves, as without other encoders.
  rest = {name: tree for name, tree in rest.items() if jax.tree.leaves(tree)}
  return encoder, rest


@contextlib.contextmanager
def _finding_damage(
  files: checkpoint_files.CheckpointFiles, step: int
) -> Iterator[None]:
  """Turns any error of orbax into a DamagedError with a short reason."""
  with orbax_noise.silenced():
    try:
      yield
      return
    except Exception as error:  # Orbax has no narrower one for damaged data.
      if "RESOURCE_EXHAUSTED" in str(error):
        raise  # The device has no memory left; the file may be good.
      reason = shorten(error)
    orbax_noise.settle()
  raise DamagedError(files, step, f"it cannot be read: {reason}")


def _read_item(
  files: checkpoint_files.CheckpointFiles,
  step: int,
  item: str,
  like: dict[str, Any],
) -> dict[str, Any]:
  """Returns an item of a step, if it has the arrays of `like`."""
  folder = files.folder(step) / item
  wanted = _shapes(like)
  handler = ocp.StandardCheckpointHandler()
  with _finding_damage(files, step):
    found = _shapes(handler.metadata(folder).tree)
  differing = storage.differences(found, wanted, "on file")
  if differing:
    raise errors.InputError(
      f"checkpoint {step} in {files.path} is of other networks than the "
      f"config's. Of its {item}: {'; '.join(differing)}. Give the config it "
      "was trained with, or another --workdir; the checkpoints stay as they "
      "are."
    )
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
  )
  with _finding_damage(files, step):
    restored = handler.restore(folder, args=ocp.args.StandardRestore(abstract))
  differing = storage.differences(_shapes(restored), wanted, "restored")
  if differing:
    fault = f"its {item} was restored as another: {'; '.join(differing)}"
    raise DamagedError(files, step, fault)
  handler.close()
  return restored


def _shapes(tree: Any) -> dict[str, str]:
  """Returns type and shape of each array, as in float32[3, 4], by its path."""
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): (
      f"{x.dtype}[{', '.join(map(str, x.shape))}]"
    )
    for path, x in jax.tree_util.tree_leaves_with_path(tree)
  }
