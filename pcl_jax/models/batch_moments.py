"""Normalising a batch by its own moments, in one pass each way.

On accelerators mean and variance come from one pass over the batch. Each group
of rows sums how far its elements are from its first one, so that a mean far
from 0 costs no digits, and the moments of the groups are put together as by
Chan et al. Both sums of the gradient come from one pass too. So devices that
share a batch exchange numbers once each way. CPUs are faster with two passes.

References:
  Chan, Golub and LeVeque, Algorithms for Computing the Sample Variance, 1983.
"""

import math

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float

EPSILON = 1e-5
# As many devices hold whole groups, and need not exchange rows.
_MOST_GROUPS = 64
# A GPU sums so many elements of a channel in one launch.
_MOST_SUMMED = 4096


@jax.custom_vjp
def normalise(
  x: Float[Array, "*batch channels"],
  scale: Float[Array, " channels"],
  bias: Float[Array, " channels"],
) -> tuple[
  Float[Array, "*batch channels"],
  Float[Array, " channels"],
  Float[Array, " channels"],
]:
  """Normalises each channel over all other axes, in float32.

  Returns:
    The normalised batch, of the type of `x`, and each channel's mean and biased
    variance, through which no gradient passes.
  """
  return _forward(x, scale, bias)[0]


def _forward(x: Array, scale: Array, bias: Array) -> tuple[tuple, tuple]:
  mean, var = _moments(x)
  inverse = lax.rsqrt(var + EPSILON)
  y = affine(x, scale * inverse, bias - mean * scale * inverse)
  return (y, mean, var), (x, mean, inverse, scale)


def _backward(residuals: tuple, gradients: tuple) -> tuple[Array, Array, Array]:
  x, mean, inverse, scale = residuals
  axes, shape = tuple(range(x.ndim - 1)), (1,) * (x.ndim - 1) + (-1,)
  count = x.size // x.shape[-1]
  pull, wide = gradients[0].astype(jnp.float32), x.astype(jnp.float32)
  by_bias, with_x = jnp.sum(pull, axis=axes), jnp.sum(pull * wide, axis=axes)
  by_scale = (with_x - mean * by_bias) * inverse
  factor = scale * inverse
  slope, offset = factor * inverse * by_scale / count, factor * by_bias / count
  by_x = factor.reshape(shape) * pull - offset.reshape(shape)
  by_x = by_x - slope.reshape(shape) * (wide - mean.reshape(shape))
  return by_x.astype(x.dtype), by_scale, by_bias


normalise.defvjp(_forward, _backward)


def affine(
  x: Float[Array, "*batch channels"],
  factor: Float[Array, " channels"],
  offset: Float[Array, " channels"],
) -> Float[Array, "*batch channels"]:
  """Returns factor x + offset of each channel, in float32 but for the result.

  One product and one sum: half the passes of centring first.
  """
  shape = (1,) * (x.ndim - 1) + (-1,)
  y = x.astype(jnp.float32) * factor.reshape(shape) + offset.reshape(shape)
  return y.astype(x.dtype)


def _moments(x: Array) -> tuple[Array, Array]:
  """Returns mean and biased variance of each channel."""
  return lax.platform_dependent(x, cpu=_in_two_passes, default=_in_one_pass)


def _in_two_passes(x: Array) -> tuple[Array, Array]:
  axes, wide = tuple(range(x.ndim - 1)), x.astype(jnp.float32)
  return jnp.mean(wide, axis=axes), jnp.var(wide, axis=axes)


def _in_one_pass(x: Array) -> tuple[Array, Array]:
  groups = math.gcd(x.shape[0], _MOST_GROUPS)
  count = x.size // (groups * x.shape[-1])
  parts = -(-count // _MOST_SUMMED)
  while count % parts:
    parts += 1
  wide = x.reshape(groups, parts, count // parts, x.shape[-1])
  wide = wide.astype(jnp.float32)
  first = wide[:, :1, :1]
  apart = wide - first
  sums = jnp.sum(apart, axis=2), jnp.sum(apart**2, axis=2)
  if parts > 1:  # In one launch.
    sums = jnp.stack(sums).sum(axis=2, keepdims=True)
  shift, square = (one[:, 0] / count for one in sums)
  apart = jnp.maximum(square - shift**2, 0) * count
  counts = jnp.full_like(shift, count)
  return _together(counts, first[:, 0, 0] + shift, apart)


def _together(*groups: Array) -> tuple[Array, Array]:
  """Returns mean and biased variance of all groups.

  They are given by count, mean and squared deviations, [groups, channels] each.
  A reduction over all three at once: devices merge their own groups first, and
  exchange what is left of them together.
  """
  zeros = (jnp.float32(0),) * 3
  count, mean, apart = lax.reduce(groups, zeros, _merge, (0,))
  return mean, apart / count


def _merge(
  one: tuple[Array, Array, Array], other: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array]:
  (count, mean, apart), (new, new_mean, new_apart) = one, other
  both = count + new
  share = new / jnp.maximum(both, 1.0)
  gap = new_mean - mean
  return both, mean + gap * share, apart + new_apart + gap**2 * count * share
