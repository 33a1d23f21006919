"""NT-Xent whose positives are no rivals of one another; see `nt_xent`.

A positive p of row i adds log(s_ip + N_i) - log(s_ip + 1e-5), where N_i is the
sum of s_in over the negatives of the row, by its share of the row's weights.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from pcl_jax.losses import pair_tiles


def mean_at_once(
  settings: pair_tiles.Settings, rows: pair_tiles.Rows
) -> Float[Array, ""]:
  """Computes the mean over the rows, of all pairs in one array."""
  logits, weights = pair_tiles.pairs_at_once(settings, rows)
  positive, negative = _signs(logits, weights)
  some = negative.any(axis=1, keepdims=True)
  # A row without negatives has nothing to sum: 0 / 0 in the gradient.
  repelled = jnp.where(some, jnp.where(negative, logits, -jnp.inf), 0.0)
  normaliser = jax.nn.logsumexp(repelled, axis=1, keepdims=True)
  normaliser = jnp.where(some, normaliser, -jnp.inf)
  per_pair = _per_pair(jnp.where(positive, logits, 0.0), normaliser)
  total = weights.sum(axis=1, keepdims=True)
  scaled = weights / jnp.where(total > 0, total, 1.0)
  return jnp.mean(jnp.sum(scaled * per_pair, axis=1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def mean_by_tiles(
  settings: pair_tiles.Settings, rows: pair_tiles.Rows
) -> Float[Array, ""]:
  """Computes the same as `mean_at_once`, in two passes over the tiles."""
  return _forward(settings, rows)[0]


def _signs(
  logits: Float[Array, "r c"], weights: Float[Array, "r c"]
) -> tuple[Bool[Array, "r c"], Bool[Array, "r c"]]:
  """Tells which pairs of a tile are positives, and which negatives."""
  positive = weights > 0
  return positive, ~positive & (logits > -jnp.inf)


def _per_pair(
  logits: Float[Array, "r c"], normaliser: Float[Array, "r 1"]
) -> Float[Array, "r c"]:
  offset = pair_tiles.LOG_POSITIVE_OFFSET
  return jnp.logaddexp(logits, normaliser) - jnp.logaddexp(logits, offset)


class _Negatives(NamedTuple):
  """Sums over the negatives so far, for each row."""

  most: Float[Array, " r"]  # The largest logit.
  scaled: Float[Array, " r"]  # Of exp(logit - most).


class _Positives(NamedTuple):
  """Sums over the positives so far, for each row."""

  weight: Float[Array, " r"]
  value: Float[Array, " r"]  # Of weight * (log(s + N) - log(s + 1e-5)).
  repulsion: Float[Array, " r"]  # Of weight * N / (s + N).


class _Scales(NamedTuple):
  """What the gradient needs of each row."""

  normaliser: Float[Array, " r"]  # log N; -inf without negatives.
  weight: Float[Array, " r"]  # Scales the weights to sum 1; 0: has none.
  repulsion: Float[Array, " r"]  # How far its negatives are repelled in all.


def _forward(
  settings: pair_tiles.Settings, rows: pair_tiles.Rows
) -> tuple[Float[Array, ""], tuple[pair_tiles.Rows, _Scales]]:
  zeros = jnp.zeros(len(rows.z))
  # Below any logit, and finite, so that no difference of two is NaN.
  sums = _Negatives(zeros - 2 / settings.temperature, zeros)
  sums = pair_tiles.over_columns(_add_negatives, settings, rows, sums)
  normaliser = sums.most + jnp.log(sums.scaled)
  found = pair_tiles.over_columns(
    _add_positives,
    settings,
    (rows, normaliser),
    _Positives(zeros, zeros, zeros),
  )
  scale = jnp.where(
    found.weight > 0, 1 / jnp.where(found.weight > 0, found.weight, 1), 0
  )
  scales = _Scales(normaliser, scale, scale * found.repulsion)
  return jnp.mean(scale * found.value), (rows, scales)


def _backward(
  settings: pair_tiles.Settings,
  residuals: tuple[pair_tiles.Rows, _Scales],
  cotangent: Float[Array, ""],
) -> tuple[pair_tiles.Rows]:
  z = residuals[0].z
  gradient = pair_tiles.over_columns(
    _add_to_gradient, settings, residuals, jnp.zeros_like(z)
  )
  gradient = gradient * (cotangent / (len(z) * settings.temperature))
  return (pair_tiles.Rows(None, gradient, None, None),)


mean_by_tiles.defvjp(_forward, _backward)


def _add_negatives(
  settings: pair_tiles.Settings,
  rows: pair_tiles.Rows,
  columns: pair_tiles.Rows,
  sums: _Negatives,
) -> _Negatives:
  logits, weights = pair_tiles.pairs_of_tile(settings, rows, columns)
  _, negative = _signs(logits, weights)
  logits = jnp.where(negative, logits, -jnp.inf)
  most = jnp.maximum(sums.most, jnp.max(logits, axis=1))
  scaled = sums.scaled * jnp.exp(sums.most - most)
  scaled = scaled + jnp.sum(jnp.exp(logits - most[:, None]), axis=1)
  return _Negatives(most, scaled)


def _add_positives(
  settings: pair_tiles.Settings,
  rows: tuple[pair_tiles.Rows, Float[Array, " r"]],
  columns: tuple[pair_tiles.Rows, Float[Array, " c"]],
  sums: _Positives,
) -> _Positives:
  (rows, normaliser), (columns, _) = rows, columns
  logits, weights = pair_tiles.pairs_of_tile(settings, rows, columns)
  logits = jnp.where(weights > 0, logits, 0.0)
  value = weights * _per_pair(logits, normaliser[:, None])
  repulsion = weights * jax.nn.sigmoid(normaliser[:, None] - logits)
  return _Positives(
    sums.weight + jnp.sum(weights, axis=1),
    sums.value + jnp.sum(value, axis=1),
    sums.repulsion + jnp.sum(repulsion, axis=1),
  )


def _add_to_gradient(
  settings: pair_tiles.Settings,
  rows: tuple[pair_tiles.Rows, _Scales],
  columns: tuple[pair_tiles.Rows, _Scales],
  gradient: Float[Array, "r d"],
) -> Float[Array, "r d"]:
  """Adds the contribution of a tile, as the terms of both its rows have it."""
  (rows, of_row), (columns, of_column) = rows, columns
  logits, weights = pair_tiles.pairs_of_tile(settings, rows, columns)
  positive, negative = _signs(logits, weights)
  slope = 0.0
  for scales in (
    jax.tree.map(lambda x: x[:, None], of_row),
    jax.tree.map(lambda x: x[None, :], of_column),
  ):
    repelled = scales.repulsion * jnp.exp(logits - scales.normaliser)
    attracted = jax.nn.sigmoid(logits - scales.normaliser)
    attracted -= jax.nn.sigmoid(logits - pair_tiles.LOG_POSITIVE_OFFSET)
    slope += jnp.where(negative, repelled, 0.0)
    slope += jnp.where(positive, scales.weight * weights * attracted, 0.0)
  return gradient + jnp.matmul(slope, columns.z, precision="highest")
