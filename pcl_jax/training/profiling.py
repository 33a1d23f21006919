"""What a step costs a device: operations, memory, a trace of some steps."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
import sys
import tempfile
from typing import Any

from absl import logging
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from pcl_jax.audio import song_patches
from pcl_jax.common import console
from pcl_jax.data import song_store
from pcl_jax.training import train_step

# Dense bfloat16 peak of one device, in TFLOP/s, by a part of its name.
_PEAKS = {
  "H200": 989,
  "H100": 989,
  "A100": 312,
  "L40S": 362,
  "V100": 125,
  "TPU v6": 918,
  "TPU v5p": 459,
  "TPU v5": 197,  # v5e; v5p is found first.
  "TPU v4": 275,
}
_FIRST_TRACED = 10  # Steps; the first ones compile.
_TRACED = 5
# Counted in the form for accelerators: that for CPUs has loops, of which the
# analysis counts one turn.
_COUNTED_FOR = "tpu"


def step_operations(
  graphdef: nnx.GraphDef,
  optimizer: optax.GradientTransformation,
  recipe: train_step.Recipe,
  mesh: jax.sharding.Mesh,
  state: Any,
  batch: Any,
) -> float | None:
  """Counts the floating-point operations of a step by XLA's cost analysis.

  State and batch may be shapes. Microbatches, tiles and remat are left out,
  since what is computed twice to save memory is no work of the model: the
  graphdef is one without remat.

  Returns:
    Operations of the whole step, over all devices; None where XLA does not
    count them, which the log says.
  """
  whole = dataclasses.replace(recipe, microbatches=1, tiled_above=sys.maxsize)
  step, _ = train_step.make_steps(graphdef, optimizer, whole, mesh)
  shapes = jax.eval_shape(lambda *x: x, state, batch)
  key = jax.eval_shape(lambda: jax.random.key(0))
  try:
    lowered = step.trace(*shapes, key).lower(lowering_platforms=(_COUNTED_FOR,))
    return float(lowered.cost_analysis()["flops"])
  except (RuntimeError, LookupError, TypeError, ValueError) as no:
    # A figure of the log is no reason not to train. (What XLA raises, and
    # operations without a rule for a platform, are RuntimeErrors.)
    logging.warning("XLA does not count a step's operations (%s)", no)
    return None


def peak_of(device_kind: str) -> float | None:
  """Returns a device's dense bfloat16 peak in operations/s, None if unknown."""
  peaks = (peak for name, peak in _PEAKS.items() if name in device_kind)
  return next((peak * 1e12 for peak in peaks), None)


def figures(
  operations: float | None, steps_per_s: float, devices: Sequence[Any]
) -> dict[str, float]:
  """Returns what the log says of the devices; what is unknown is left out.

  These are `tflops_per_s` of all devices together; `mfu`, the share of their
  bfloat16 peak; and `device_memory_gb`, the most that one has held so far.
  """
  row = {}
  if operations is not None:
    row["tflops_per_s"] = round(operations * steps_per_s / 1e12, 3)
    peak = peak_of(devices[0].device_kind)
    if peak is not None:
      share = operations * steps_per_s / (peak * len(devices))
      row["mfu"] = round(share, 4)
  own = [one for one in devices if one.process_index == jax.process_index()]
  used = (own[0].memory_stats() or {}).get("peak_bytes_in_use")
  if used is not None:
    row["device_memory_gb"] = round(used / 1e9, 3)
  return row


class Trace:
  """Traces some steps of a run into a folder, if there is one."""

  def __init__(self, folder: pathlib.Path | None):
    self._folder, self._steps, self._on = folder, 0, False

  def record_step(self, terms: Any) -> None:
    """Counts a step with its arrays; starts or stops where it is time."""
    self._steps += 1
    if self._folder is not None and self._steps == _FIRST_TRACED:
      jax.profiler.start_trace(self._folder)
      self._on = True
    if self._on and self._steps == _FIRST_TRACED + _TRACED:
      jax.block_until_ready(terms)
      self.close()
      console.say(f"wrote a trace of the last steps into {self._folder}")

  def close(self) -> None:
    """Ends a trace that is under way."""
    if self._on:
      self._on = False
      jax.profiler.stop_trace()


def enable_compilation_cache(folder: pathlib.Path) -> None:
  """Keeps compiled programs in a folder, unless jax has one already.

  Where that is impossible, all programs are compiled again, with a warning; so
  is a program whose file is damaged.
  """
  if jax.config.jax_compilation_cache_dir is not None:
    return
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    console.warn(
      f"compiled programs cannot be kept in {folder} ({error.strerror}), so "
      "each start compiles them again; config.train.compilation_cache names "
      "another folder"
    )
    return
  jax.config.update("jax_compilation_cache_dir", str(folder))


def shapes_of_batch(
  rows: int, tables: Mapping[str, np.ndarray]
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes of a global batch with rows of these tables."""
  patches = (rows, song_patches.FRAMES, song_store.MEL_BANDS)
  shapes = {"audio": jax.ShapeDtypeStruct(patches, jnp.float16)}
  for name, table in tables.items():
    shape = (rows, *table.shape[1:])
    shapes[name] = jax.ShapeDtypeStruct(shape, table.dtype)
  return shapes
