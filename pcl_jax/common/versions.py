"""Which versions of jax and flax go together."""

import importlib.metadata

from pcl_jax.common import errors

_LEAST_JAX = (0, 10, 2)
_LEAST_FLAX = (0, 12, 8)
_NEW_JAX = (0, 11)  # From it on, flax must be new too.
_LEAST_FLAX_OF_NEW_JAX = (0, 12, 12)


def _numbers(version: str) -> tuple[int, ...]:
  numbers = []
  for part in version.split("."):
    if not part.isdecimal():
      break
    numbers.append(int(part))
  return tuple(numbers)


def _in_words(numbers: tuple[int, ...]) -> str:
  return ".".join(map(str, numbers))


def check(jax: str | None = None, flax: str | None = None) -> None:
  """Refuses a pair of versions that does not work; imports neither.

  Args:
    jax: version; None for the installed one.
    flax: likewise.

  Raises:
    InputError: names both and what to install.
  """
  jax = jax or importlib.metadata.version("jax")
  flax = flax or importlib.metadata.version("flax")
  least = _LEAST_FLAX
  if _numbers(jax) >= _NEW_JAX:
    least = _LEAST_FLAX_OF_NEW_JAX
  if _numbers(jax) < _LEAST_JAX or _numbers(flax) < least:
    raise errors.InputError(
      f"jax {jax} with flax {flax} is not supported: jax is at least "
      f"{_in_words(_LEAST_JAX)}, and flax at least {_in_words(_LEAST_FLAX)}, "
      f"with jax {_in_words(_NEW_JAX)} or later "
      f"{_in_words(_LEAST_FLAX_OF_NEW_JAX)}. "
      "Install them with pip install -r requirements.txt."
    )
