"""What JAX computes with: the project's types, and devices that are there."""

from collections.abc import Callable
import functools
from typing import ParamSpec, TypeVar

import jax
import numpy as np

from pcl_jax.common import errors

_Given = ParamSpec("_Given")
_Out = TypeVar("_Out")


def start() -> None:
  """Prepares JAX for a command, before anything is computed.

  JAX_ENABLE_X64 is without effect, since all numbers have the types that they
  are trained and saved in.

  Raises:
    InputError: JAX_PLATFORMS names what this machine does not have.
  """
  jax.config.update("jax_enable_x64", False)
  try:
    jax.devices()
  # JAX asserts that one of the platforms came up.
  except (RuntimeError, AssertionError) as error:
    asked = jax.config.jax_platforms
    if not asked:
      raise
    reason = str(error).partition(" (set JAX_PLATFORMS")[0].rstrip(".")
    raise errors.InputError(
      f"JAX_PLATFORMS={asked}, and JAX finds no such device here "
      f"({reason or 'it has no plugin of this name'}). Leave JAX_PLATFORMS "
      "unset, or give JAX_PLATFORMS=cpu."
    ) from error


def check_types() -> None:
  """Refuses to compute in types that are not the project's.

  Raises:
    InputError: JAX would make 64-bit numbers.
  """
  if jax.dtypes.canonicalize_dtype(np.float64) == np.float64:
    raise errors.InputError(
      "JAX_ENABLE_X64 (jax_enable_x64) is on, and this project trains and "
      "restores 32-bit numbers: turn it off, as with JAX_ENABLE_X64=0."
    )


def in_own_types(function: Callable[_Given, _Out]) -> Callable[_Given, _Out]:
  """Has a function compute in the project's types inside another program."""

  @functools.wraps(function)
  def computed(*args: _Given.args, **kwargs: _Given.kwargs) -> _Out:
    with jax.enable_x64(False):
      return function(*args, **kwargs)

  return computed


def in_precision(
  function: Callable[_Given, _Out], precision: str | None
) -> Callable[_Given, _Out]:
  """Has a function that JAX traces compute its products with a precision."""
  if precision is None:
    return function

  @functools.wraps(function)
  def precise(*args: _Given.args, **kwargs: _Given.kwargs) -> _Out:
    with jax.default_matmul_precision(precision):
      return function(*args, **kwargs)

  return precise
