"""A worker that takes the steps of a run, as `launch.py` builds them.

It imports only what other checkouts of the project have too.
"""

import contextlib
import hashlib
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator import workers
from pcl_jax.training import setup


class _Steps:
  def __init__(self, compiled: Any, run: setup.Setup, batch: Any):
    self._compiled, self._batch, self._key = compiled, batch, run.key
    self._first = run.state
    self._state = jax.tree.map(jnp.copy, run.state)

  def take(self) -> jax.Array:
    self._state, terms = self._compiled(self._state, self._batch, self._key)
    return terms["total"]

  def wait(self, last: jax.Array) -> None:
    jax.block_until_ready(last)

  def digest(self, count: int) -> str:
    self._state = jax.tree.map(jnp.copy, self._first)
    for _ in range(count):
      self.take()
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(self._state):
      found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()[:16]


def prepare(
  config: str, changes: dict[str, Any], precision: str | None = None
) -> tuple[_Steps, dict[str, Any]]:
  """Compiles the step of a run on one device.

  Args:
    config: name of a file of configs/.
    changes: keys that differ from it, with dots.
    precision: of float32 products; None for JAX's own choice.

  Returns:
    What takes steps of its first batch, and facts of the program.
  """
  made = importlib.import_module(f"configs.{config}").get_config("")
  made.update_from_flattened_dict(changes)
  asked = contextlib.nullcontext()
  if precision is not None:
    asked = jax.default_matmul_precision(precision)
  with asked:
    run = setup.build(made, jax.devices()[:1])
    plan = run.batches.plan_epoch(0)
    with contextlib.closing(run.batches.load(plan)) as batches:
      batch = next(batches)
    lowered = run.train_step.lower(run.state, batch, run.key)
    compiled = lowered.compile()
  memory = compiled.memory_analysis()
  about = {
    "patches": plan.songs.shape[1],
    "operations": run.operations,
    "temporary_gb": round(memory.temp_size_in_bytes / 1e9, 3),
  }
  return _Steps(compiled, run, batch), about


if __name__ == "__main__":
  workers.serve(prepare)
