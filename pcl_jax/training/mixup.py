"""Mixup of patches on the device."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


def draw(
  key: Key[Array, ""], rows: int, alpha: float, beta: float
) -> tuple[Float[Array, " rows"], Int[Array, " rows"]]:
  """Draws gains in (0, 1) from Beta(alpha, beta), and a permutation of rows."""
  gain_key, order_key = jax.random.split(key)
  gains = jax.random.beta(gain_key, alpha, beta, (rows,))
  return gains, jax.random.permutation(order_key, rows)


def mix(
  patches: Float[Array, "rows frames bands"],
  gains: Float[Array, " rows"],
  order: Int[Array, " rows"],
) -> Float[Array, "rows frames bands"]:
  """Returns g x + (1 - g) x[order], on the stored (log) feature, float32."""
  patches = patches.astype(jnp.float32)
  g = gains.astype(jnp.float32)[:, None, None]
  return g * patches + (1.0 - g) * patches[order]
