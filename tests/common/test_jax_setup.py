"""Tests of pcl_jax.common.jax_setup."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.common import jax_setup
from pcl_jax.training import loop

ABSENT = "Unable to initialize backend 'cpu': no libcpu. (set JAX_PLATFORMS=''"


@pytest.fixture
def wide():
  """Turns 64-bit numbers on, as JAX_ENABLE_X64 does."""
  jax.config.update("jax_enable_x64", True)
  yield
  jax.config.update("jax_enable_x64", False)


def test_a_command_computes_in_32_bits_whatever_the_environment_says(wide):
  jax_setup.start()
  jax_setup.check_types()
  assert jnp.arange(2.0).dtype == np.float32


def test_within_another_program_only_our_own_functions_do(wide):
  kinds = jax_setup.in_own_types(lambda: jnp.arange(2).dtype)
  assert (kinds(), jnp.arange(2).dtype) == (np.int32, np.int64)


def test_training_in_64_bits_is_refused_by_the_name_of_the_flag(wide, tmp_path):
  with pytest.raises(errors.InputError, match="JAX_ENABLE_X64"):
    loop.train_and_evaluate(ml_collections.ConfigDict(), tmp_path / "run")


@pytest.mark.parametrize(
  "raised, reason",
  [(AssertionError(), "no plugin"), (RuntimeError(ABSENT), "no libcpu)")],
)
def test_a_platform_that_is_not_there_is_named(monkeypatch, raised, reason):
  def devices():
    raise raised

  monkeypatch.setattr(jax, "devices", devices)
  with pytest.raises(errors.InputError, match="JAX_PLATFORMS=cpu") as caught:
    jax_setup.start()
  assert reason in str(caught.value)


@pytest.mark.long
def test_a_command_without_its_devices_ends_with_one_line():
  done = subprocess.run(
    [sys.executable, "-m", "pcl_jax.similar", "--embeddings=a", "--query=b"],
    cwd=pathlib.Path(__file__).parents[2],
    env=os.environ | {"JAX_PLATFORMS": "nonsense"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == errors.EXIT_BAD_INPUT
  assert done.stderr.startswith("error: JAX_PLATFORMS=nonsense, and JAX finds")
  assert done.stderr.count("\n") == 1
