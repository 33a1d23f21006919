"""Encoders with golden weights, and how far from the numbers they may be."""

import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from pcl_jax.interop import torch_names
from tests.support.published import golden_weights

# Allowed differences from the golden numbers, as parts of the largest number of
# an array; measured on one CPU: 1.7e-6 in evaluation, 6.6e-6 in training (batch
# norm over six patches amplifies rounding), 4e-7 for the running statistics,
# 5e-7 for the playlist and genre encoders.
SHARES = {"eval": 3e-6, "train": 1.2e-5, "statistics": 1e-6, "others": 1e-6}


def numbers(file: str) -> dict[str, np.ndarray]:
  """Returns the golden arrays of a file, by name."""
  with np.load(golden_weights.REFERENCE.parent / file) as stored:
    return dict(stored)


def share(found: Any, golden: np.ndarray) -> float:
  """Returns the largest difference, as a part of the largest golden number."""
  difference = np.abs(np.asarray(found, np.float64) - golden).max()
  return float(difference / np.abs(golden).max())


def parts(module: nnx.Module) -> tuple[nnx.GraphDef, Any, Any]:
  """Returns the structure of a module, its weights and its statistics."""
  graph, weights, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
  return graph, nnx.to_pure_dict(weights), nnx.to_pure_dict(stats)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _apply(graph, weights, stats, x, training):
  module = nnx.merge(graph, weights, stats, copy=True)
  out = module(x, training=training)
  return out, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))


def apply(module: nnx.Module, x: jax.Array, training: bool) -> tuple[Any, Any]:
  """Returns what a module gives, and its statistics after that."""
  return _apply(*parts(module), x, training)


def run(name: str, golden: dict[str, np.ndarray]) -> tuple:
  """Runs an audio encoder with golden weights on its golden patches.

  Args:
    name: resnet or sc_cnn.
    golden: of `encoders.npz`.

  Returns:
    The encoder; features and projection in evaluation ("eval") and training
    ("train"); its statistics after the one, and after the other.
  """
  encoder = torch_names.load_encoder(golden_weights.draw_state_dict(name))
  x = jnp.asarray(golden[f"{name}/x"].transpose(0, 2, 1))
  outputs = {}
  outputs["eval"], kept = apply(encoder, x, False)
  outputs["train"], moved = apply(encoder, x, True)
  return encoder, outputs, kept, moved
