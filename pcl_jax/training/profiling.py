"""What a step costs a device: operations, memory, a trace of some steps."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import functools
import math
import pathlib
import sys
import tempfile
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

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
# Of the log -> as a device tells it.
_MEMORY = {
  "device_memory_gb": "peak_bytes_in_use",
  "device_memory_now_gb": "bytes_in_use",
}
_FIRST_TRACED = 10  # Steps; the first ones compile.
_TRACED = 5


def count_products(function: Callable, *arguments: Any) -> int:
  """Counts the operations of a function's convolutions and matrix products.

  A multiplication and an addition are two operations. Products with the zeros
  of a padding count, as PyTorch counts them and as published figures do; XLA
  leaves them out, a fifth of ResNet-18 at 256 x 48. Nothing is compiled, and
  the arguments may be shapes.
  """
  return _products_in(jax.make_jaxpr(function)(*arguments))


def _products_in(jaxpr: Any) -> int:
  total = 0
  for one in jaxpr.eqns:
    name, out = one.primitive.name, one.outvars[0].aval
    if name == "dot_general":
      (contracted, _), _ = one.params["dimension_numbers"]
      shape = one.invars[0].aval.shape
      total += 2 * out.size * math.prod(shape[axis] for axis in contracted)
    elif name == "conv_general_dilated":
      outputs, *others = one.params["dimension_numbers"].rhs_spec
      shape = one.invars[1].aval.shape
      total += 2 * out.size * math.prod(shape[axis] for axis in others)
    else:
      inside = [_products_in(inner) for inner in _inner(one.params)]
      # Of the forms for different platforms that without added zeros.
      forms = name == "cond"
      count = min(filter(None, inside), default=0) if forms else sum(inside)
      total += count * (one.params["length"] if name == "scan" else 1)
  return total


def _inner(params: Mapping[str, Any]) -> Iterator[Any]:
  """Yields the programs within an operation."""
  for value in params.values():
    for one in value if isinstance(value, tuple | list) else (value,):
      inner = getattr(one, "jaxpr", one)
      if hasattr(inner, "eqns"):
        yield inner


def step_operations(
  graphdef: nnx.GraphDef,
  recipe: train_step.Recipe,
  mesh: jax.sharding.Mesh,
  state: Any,
  batch: Any,
) -> int:
  """Counts the floating-point operations of a step, over all devices.

  They are three times those of the forward pass (`count_products`), since the
  gradient of a product is two of its size. State and batch may be shapes.
  Microbatches, tiles, remat and augmentation change nothing: what is computed
  twice to save memory, or before the networks, is no work of the model.
  """
  whole = dataclasses.replace(
    recipe, augmentation=None, microbatches=1, tiled_above=sys.maxsize
  )
  loss = functools.partial(
    train_step.compute_loss, graphdef, whole, mesh, training=True
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  weights = state["params"], state["batch_stats"]
  return 3 * count_products(loss, *weights, batch, key)


def peak_of(device_kind: str) -> float | None:
  """Returns a device's dense bfloat16 peak in operations/s, None if unknown."""
  peaks = (peak for name, peak in _PEAKS.items() if name in device_kind)
  return next((peak * 1e12 for peak in peaks), None)


def figures(
  operations: float | None, steps_per_s: float, devices: Sequence[Any]
) -> dict[str, float]:
  """Returns what the log says of the devices; what is unknown is left out.

  These are `tflops_per_s` of all devices together; `mfu`, the share of their
  bfloat16 peak; `device_memory_gb`, the most that one has held so far; and
  `device_memory_now_gb`, what it holds between two steps.
  """
  row = {}
  if operations is not None:
    row["tflops_per_s"] = round(operations * steps_per_s / 1e12, 3)
    peak = peak_of(devices[0].device_kind)
    if peak is not None:
      share = operations * steps_per_s / (peak * len(devices))
      row["mfu"] = round(share, 4)
  own = [one for one in devices if one.process_index == jax.process_index()]
  memory = own[0].memory_stats() or {}
  for key, told in _MEMORY.items():
    if told in memory:
      row[key] = round(memory[told] / 1e9, 3)
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
      self._end()

  def _end(self) -> None:
    self._on = False
    jax.profiler.stop_trace()
    console.say(f"wrote a trace of the last steps into {self._folder}")

  def close(self) -> None:
    """Ends a trace that is under way, or says why there is none."""
    if self._on:
      self._end()
    elif self._folder is not None and self._steps < _FIRST_TRACED:
      console.say(
        f"no trace is in {self._folder}: it begins with step {_FIRST_TRACED} "
        "of a start, after those that compile, and this one had "
        f"{self._steps}"
      )


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
