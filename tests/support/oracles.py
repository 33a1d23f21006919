"""Random arrays, and a function and its gradients next to an oracle's."""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
import numpy as np


def normal(*shape: int, seed: int = 0) -> jax.Array:
  """Draws standard normal float32 numbers."""
  drawn = np.random.default_rng(seed).standard_normal(shape)
  return jnp.asarray(drawn, jnp.float32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def both_with_gradients(
  ours: Callable, oracle: Callable, *inputs: jax.Array
) -> list[tuple[jax.Array, tuple[jax.Array, ...]]]:
  """Returns (value, gradients) of both functions for one random pull."""
  pull_with = normal(*jax.eval_shape(oracle, *inputs).shape, seed=3)
  results = []
  for function in (ours, oracle):
    value, pull = jax.vjp(function, *inputs)
    results.append((value, pull(pull_with)))
  return results
