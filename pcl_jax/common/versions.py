"""Versions of the packages that a run's numbers depend on."""

from importlib import metadata
import platform

OF_TRAINING = ("numpy", "jax", "flax", "optax")


def _version(name: str) -> str | None:
  try:
    return metadata.version(name)
  except metadata.PackageNotFoundError:
    return None


def own() -> str:
  """Returns the version of pcl_jax; "unknown" where it is not installed."""
  return _version("pcl_jax") or "unknown"


def installed(*names: str) -> dict[str, str | None]:
  """Returns the versions of Python and packages, by default `OF_TRAINING`.

  The version of a package that is not installed is None.
  """
  found = {name: _version(name) for name in names or OF_TRAINING}
  return {"python": platform.python_version()} | found
