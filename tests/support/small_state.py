"""A training state of a few arrays, for tests of what is done with it."""

import pathlib
from typing import Any

import jax
import numpy as np

from pcl_jax.checkpoint import manager
from pcl_jax.training import train_step


def make(
  step: int = 1, width: int = 4, devices: int = 1, padding: int = 0
) -> dict[str, Any]:
  """Returns a state as it is after a step, replicated over devices.

  Args:
    step: decides the values.
    width: of the arrays.
    devices: how many.
    padding: numbers more, which no compression makes smaller.
  """
  rng = np.random.default_rng(step)

  def draw(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)

  weights = {"fc": {"kernel": draw(3, width), "bias": draw(width)}}
  state = {
    "params": {"audio": weights, "cf": {"kernel": draw(width)}},
    "batch_stats": {"audio": {"mean": draw(width)}},
    "opt_state": ({"mu": draw(3, width), "padding": draw(padding + 1)},),
    "step": np.int32(step),
  }
  mesh = train_step.make_mesh(jax.devices()[:devices])
  return jax.device_put(state, jax.NamedSharding(mesh, jax.P()))


def meta(step: int) -> dict[str, Any]:
  """Returns what a checkpoint of it says about itself."""
  return {"progress": {"step": step, "epoch": step // 2}}


def write(
  workdir: pathlib.Path, losses: list[float | None], **kind: int
) -> None:
  """Saves the steps 1, 2, ... with these validation losses; None for none."""
  checkpoints = manager.Checkpoints(workdir)
  for step, loss in enumerate(losses, start=1):
    metrics = None if loss is None else {"total": loss}
    checkpoints.save(make(step, **kind), meta(step), metrics)
  checkpoints.close()


def assert_same(a: Any, b: Any) -> None:
  """Asserts that two states are bitwise the same, on the same devices."""
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype and x.sharding == y.sharding
    np.testing.assert_array_equal(x, y)
