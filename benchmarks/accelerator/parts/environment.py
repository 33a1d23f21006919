"""Versions, and what the device can do: products, copies, transfers."""

import functools
from importlib import metadata
import os
import statistics

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator import part_context
from benchmarks.parts import machine
from pcl_jax.audio import song_patches
from pcl_jax.data import song_store

_PACKAGES = """jax jaxlib jax-cuda13-plugin jax-cuda12-plugin libtpu flax optax
orbax-checkpoint numpy scipy lmdb torch triton nvidia-cudnn-cu13
nvidia-cudnn-cu12 nvidia-nccl-cu13""".split()
_FULL_FLOAT32 = 1e-5  # Error of a product; TensorFloat-32's is 3e-4.


def _versions() -> dict[str, str]:
  found = {}
  for name in _PACKAGES:
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      continue
  return found


def _products(context: part_context.Context, size: int) -> None:
  drawn = np.random.default_rng(0).standard_normal((size, size))
  drawn = drawn.astype(np.float32)
  for name, dtype, precision in (
    ("bfloat16", jnp.bfloat16, None),
    ("float32", jnp.float32, None),
    ("float32 highest", jnp.float32, "highest"),
  ):
    x = jax.device_put(drawn).astype(dtype)
    multiply = jax.jit(functools.partial(jnp.matmul, precision=precision))
    seconds = part_context.time_calls(
      functools.partial(multiply, x, x), jax.block_until_ready, 5, 4
    )
    context.record(
      f"product of {size} x {size}, {name}",
      tflops_per_s=2 * size**3 / statistics.median(seconds) / 1e12,
    )


def _copy(context: part_context.Context, size: int) -> None:
  x = jnp.full((size, size, 16), 1.5, jnp.float32)
  add = jax.jit(lambda x: x + 1)
  seconds = part_context.time_calls(lambda: add(x), jax.block_until_ready, 5, 4)
  context.record(
    f"copy of {x.nbytes / 1e9:.1f} GB",
    tb_per_s=2 * x.nbytes / statistics.median(seconds) / 1e12,
  )


def _transfers(context: part_context.Context) -> None:
  shape = (768, song_patches.FRAMES, song_store.MEL_BANDS)
  batch = np.random.default_rng(0).uniform(-2, 1, shape).astype(np.float16)
  seconds = part_context.time_calls(
    lambda: jax.device_put(batch.copy()), jax.block_until_ready, 20
  )
  context.record(
    "768 patches to the device",
    **part_context.in_ms(seconds),
    gb_per_s=batch.nbytes / statistics.median(seconds) / 1e9,
  )
  seven = jax.jit(lambda x: [x[0, 0, 0] * i for i in range(7)])
  here = jax.device_put(batch)
  seconds = part_context.time_calls(lambda: seven(here), jax.device_get, 20)
  context.record(
    "seven numbers computed, fetched", **part_context.in_ms(seconds)
  )


def _convolution_error(precision: str | None) -> float:
  """Returns the error of a float32 convolution, as a share of its size."""
  rng = np.random.default_rng(0)
  x = rng.standard_normal((16, 32, 12, 64)).astype(np.float32)
  kernel = rng.standard_normal((3, 3, 64, 64)).astype(np.float32)
  padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
  exact = sum(
    padded[:, i : i + 32, j : j + 12] @ kernel[i, j].astype(np.float64)
    for i in range(3)
    for j in range(3)
  )
  convolve = functools.partial(
    jax.lax.conv_general_dilated,
    window_strides=(1, 1),
    padding="SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    precision=precision,
  )
  found = np.asarray(jax.jit(convolve)(x, kernel))
  return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def measure(context: part_context.Context) -> None:
  """Measures what the device there is can do."""
  device = jax.devices()[0]
  memory = device.memory_stats() or {}
  context.record(
    "machine",
    words=machine.describe(),
    devices=len(jax.devices()),
    kind=device.device_kind,
    memory_bytes=memory.get("bytes_limit"),
    xla_flags=os.environ.get("XLA_FLAGS"),
  )
  context.record("versions", **_versions())
  size = 256 if context.tiny else 8192
  _products(context, size)
  _copy(context, size)
  _transfers(context)
  for precision in (None, "highest"):
    share = _convolution_error(precision)
    context.record(
      f"float32 convolution, precision {precision or 'not given'}",
      rounding=share,  # "error" is that of a part that failed.
      is_full_float32=share < _FULL_FLOAT32,
    )
