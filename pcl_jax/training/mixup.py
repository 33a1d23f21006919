"""Mixup of patches on the device, drawn without a loop.

A loop of unknown length makes a GPU wait for its host at each turn, so nothing
here rejects until it succeeds.

References:
  Marsaglia and Tsang, A Simple Method for Generating Gamma Variables, 2000.
"""

import math

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

# Rows that a block has at least, where the batch has as many.
_LEAST_BLOCK = 32
_MOST_BLOCKS = 64
# Up to this an integer parameter is a sum of as many exponential draws.
_MOST_SUMMED = 16
# A try fails with less than 0.05, all of them with less than 4e-11.
TRIES = 8


def draw(
  key: Key[Array, ""], rows: int, alpha: float, beta: float
) -> tuple[Float[Array, " rows"], Int[Array, "blocks size"]]:
  """Draws gains from Beta(alpha, beta), and each row's partner.

  The batch is cut into blocks of adjoining rows, as its size alone says, so
  that rows need not move between devices that hold whole blocks. The rows of a
  block stand in a random ring, and the partner of each is the next one: every
  other row of the block is it with the same probability. As rows come in
  random order, so is every other song of the batch.

  Returns:
    Gains from 0 to 1, and for each row of each block the place of its partner
    in the block.
  """
  alpha_key, beta_key, order_key = jax.random.split(key, 3)
  apart = _log_gamma(alpha_key, alpha, rows) - _log_gamma(beta_key, beta, rows)
  # Each block by a draw of its own: of the two patches of a pair, which are in
  # different blocks, the partners are not to be a pair again.
  shape = _blocks(rows), rows // _blocks(rows)
  ring = jnp.argsort(jax.random.bits(order_key, shape), axis=1)
  _, partners = lax.sort_key_val(ring, jnp.roll(ring, -1, axis=1))
  return jax.nn.sigmoid(apart), partners


def mix(
  patches: Float[Array, "rows frames bands"],
  gains: Float[Array, " rows"],
  partners: Int[Array, "blocks size"],
) -> Float[Array, "rows frames bands"]:
  """Returns g x + (1 - g) x[partner], on the stored (log) feature, float32."""
  blocks = patches.reshape(*partners.shape, *patches.shape[1:])
  others = jax.vmap(lambda block, places: block[places])(blocks, partners)
  others = others.reshape(patches.shape).astype(jnp.float32)
  g = gains.astype(jnp.float32)[:, None, None]
  return g * patches.astype(jnp.float32) + (1.0 - g) * others


def _blocks(rows: int) -> int:
  """Returns a power of two that divides the rows."""
  count = 1
  while (
    rows % (2 * count) == 0
    and rows // (2 * count) >= _LEAST_BLOCK
    and count < _MOST_BLOCKS
  ):
    count *= 2
  return count


def _log_gamma(
  key: Key[Array, ""], shape: float, rows: int
) -> Float[Array, " rows"]:
  """Draws logarithms of Gamma(shape, 1).

  They are exact for small integers; else the distribution is off by less than
  4e-11 in total variation.
  """
  if shape == int(shape) and shape <= _MOST_SUMMED:
    draws = _log_uniform(key, (rows, int(shape)))
    return jnp.log(-jnp.sum(draws, axis=1))
  tries_key, power_key = jax.random.split(key)
  if shape >= 1:
    return _log_gamma_by_tries(tries_key, shape, rows)
  # In logarithms, as the power of a small shape would often be 0.
  power = _log_uniform(power_key, (rows,)) / shape
  return _log_gamma_by_tries(tries_key, shape + 1.0, rows) + power


def _log_gamma_by_tries(
  key: Key[Array, ""], shape: float, rows: int
) -> Float[Array, " rows"]:
  """Draws for a shape of at least 1: the first of some tries to succeed."""
  normal_key, uniform_key = jax.random.split(key)
  scale = shape - 1 / 3
  x = jax.random.normal(normal_key, (TRIES, rows))
  root = 1.0 + x / (3.0 * math.sqrt(scale))
  log_cube = 3.0 * jnp.log(jnp.where(root > 0, root, 1.0))
  most = 0.5 * x**2 + scale * (1.0 - root**3 + log_cube)
  accepted = (root > 0) & (_log_uniform(uniform_key, (TRIES, rows)) < most)
  # Where none is accepted: 0, whose cube is 1, the middle of what is drawn.
  found = jnp.zeros(rows)
  for good, drawn in zip(accepted[::-1], log_cube[::-1], strict=True):
    found = jnp.where(good, drawn, found)
  return math.log(scale) + found


def _log_uniform(
  key: Key[Array, ""], shape: tuple[int, ...]
) -> Float[Array, "..."]:
  """Draws logarithms of numbers between 0 and 1, below 0 and finite."""
  least = float(jnp.finfo(jnp.float32).tiny)
  return jnp.log(jax.random.uniform(key, shape, minval=least))
