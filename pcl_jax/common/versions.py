"""Versions of the packages that a run's numbers depend on."""

from importlib import metadata
import platform

OF_TRAINING = ("numpy", "jax", "flax", "optax")


def own() -> str:
  """Returns the version of pcl_jax; "unknown" where it is not installed."""
  try:
    return metadata.version("pcl_jax")
  except metadata.PackageNotFoundError:
    return "unknown"


def installed(*names: str) -> dict[str, str]:
  """Returns the versions of Python and packages, by default `OF_TRAINING`."""
  found = {name: metadata.version(name) for name in names or OF_TRAINING}
  return {"python": platform.python_version()} | found
