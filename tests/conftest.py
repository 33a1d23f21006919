"""Eight CPU devices and strict JAX, set before anything touches a device."""

import pathlib

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

GOLDEN = pathlib.Path(__file__).parent / "golden"
SHARED = pathlib.Path(__file__).parents[2] / "shared"


@pytest.fixture
def golden_dir() -> pathlib.Path:
  """Folder of the numbers measured on the published implementation."""
  return GOLDEN


@pytest.fixture
def shared_dir() -> pathlib.Path:
  """Folder of real lists and recordings; skips the test where it is absent."""
  if not SHARED.is_dir():
    pytest.skip(f"needs the folder of real recordings and lists, {SHARED.name}")
  return SHARED
