"""Arrays as files of safetensors; as halves where these hold every bit."""

from collections.abc import Mapping
import pathlib

import numpy as np
import safetensors
import safetensors.numpy

from pcl_jax.common import errors


def write(
  path: pathlib.Path, arrays: Mapping[str, np.ndarray], kind: str
) -> None:
  """Writes arrays as safetensors, whose header says what kind they are of."""
  whole = {name: np.ascontiguousarray(one) for name, one in arrays.items()}
  # The library's own writing hides the file from all other users.
  path.write_bytes(safetensors.numpy.save(whole, {"format": kind}))


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads a file of safetensors.

  Raises:
    InputError: it cannot be read as one, or holds types that numpy lacks.
  """
  try:
    return safetensors.numpy.load_file(path)
  except (
    OSError, ValueError, TypeError, KeyError, safetensors.SafetensorError
  ) as error:  # fmt: skip
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    raise errors.InputError(
      f"{path} cannot be read as safetensors ({reason}): give a whole file, or "
      "download or export it again."
    ) from error


def halved(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Rounds arrays of two axes or more to float16; others are as they were.

  The rest, statistics and biases, is little, and of any size.
  """
  return {
    name: np.asarray(one).astype(np.float16) if np.ndim(one) > 1 else one
    for name, one in arrays.items()
  }


def narrowed(arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
  """Returns what `halved` gives if `widened` restores it to the bit."""
  with np.errstate(over="ignore"):
    halves = halved(arrays)
  same = all(np.array_equal(halves[name], one) for name, one in arrays.items())
  return halves if same else arrays


def widened(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns arrays of float16 as float32; others are as they were."""
  return {
    name: one.astype(np.float32) if one.dtype == np.float16 else one
    for name, one in arrays.items()
  }
