"""Reads the arrays of a checkpoint, and refuses those of other networks."""

from collections.abc import Iterator
import contextlib
from typing import Any

import orbax.checkpoint as ocp

from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import orbax_noise
from pcl_jax.checkpoint import tree
from pcl_jax.common import errors

_LONGEST = 200  # Characters shown of a library's message.


class DamagedError(Exception):
  """A step cannot be read; the message says why."""


def shorten(error: BaseException) -> str:
  """Returns the beginning of a message; orbax's can be pages."""
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0] if len(lines[0]) <= _LONGEST else f"{lines[0][:_LONGEST]}..."


@contextlib.contextmanager
def _wording_damage() -> Iterator[None]:
  """Shortens what orbax says, and drops tracebacks of what it leaves behind.

  Raises:
    DamagedError: anything went wrong.
  """
  with orbax_noise.silenced():
    try:
      yield
      return
    except Exception as error:  # Orbax has no narrower one for damaged data.
      if "RESOURCE_EXHAUSTED" in str(error):
        raise  # Of a device, which is no fault of the file's.
      reason = shorten(error)
    orbax_noise.settle()
  raise DamagedError(f"it cannot be read: {reason}")


def _read_item(
  files: checkpoint_files.CheckpointFiles,
  step: int,
  item: str,
  like: dict[str, Any],
) -> dict[str, Any]:
  """Returns an item of a step, if it has the arrays of `like`."""
  folder = files.folder(step) / item
  wanted = tree.shapes(like)
  handler = ocp.StandardCheckpointHandler()
  with _wording_damage():
    found = tree.shapes(handler.metadata(folder).tree)
  # Orbax would cast another type without a word.
  differing = tree.differences(found, wanted)
  if differing:
    raise errors.InputError(
      f"checkpoint {step} in {files.path} is of other networks than the "
      f"config's. Of its {item}: {differing}. Give the config it was trained "
      "with, or another --workdir; the checkpoints stay as they are."
    )
  with _wording_damage():
    restored = handler.restore(
      folder, args=ocp.args.StandardRestore(tree.abstract(like))
    )
  differing = tree.differences(tree.shapes(restored), wanted)
  if differing:
    raise DamagedError(f"its {item} was restored as another: {differing}")
  handler.close()
  return restored


def read_state(
  files: checkpoint_files.CheckpointFiles, step: int, like: dict[str, Any]
) -> dict[str, Any]:
  """Returns the training state of a step whose files have been verified.

  Args:
    files: of the run.
    step: to read.
    like: a state of the same structure, shapes and sharding.

  Raises:
    InputError: it holds other arrays than `like`.
    DamagedError: it cannot be read.
  """
  encoder, rest = tree.split(like)
  return tree.join(
    _read_item(files, step, checkpoint_files.ENCODER, encoder),
    _read_item(files, step, checkpoint_files.REST, rest),
  )


def read_encoder(
  files: checkpoint_files.CheckpointFiles, step: int, like: dict[str, Any]
) -> dict[str, Any]:
  """Returns params and batch_stats of the encoder, as `read_state` the state.

  Args:
    files: of the run.
    step: to read.
    like: the same of an encoder of the same architecture.

  Raises:
    InputError: it holds other arrays than `like`.
    DamagedError: it cannot be read.
  """
  return _read_item(files, step, checkpoint_files.ENCODER, like)
