"""NT-Xent of a global batch: over all pairs at once, or by tiles.

By tiles a running log-sum-exp goes over square tiles of the logits forward;
backward, the tiles are computed again.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pcl_jax.losses import pair_tiles
from pcl_jax.losses import without_rivals

_MIN_NORM = 1e-8


def nt_xent(
  anchors: Float[Array, "n d"],
  positives: Float[Array, "n d"],
  weights: pair_tiles.Pairs | None = None,
  excluded: pair_tiles.Pairs | None = None,
  *,
  temperature: float,
  rivals: bool = True,
  mesh: jax.sharding.Mesh | None = None,
  tiled_above: int = 4096,
  tile: int = 1024,
) -> Float[Array, ""]:
  """Computes NT-Xent over the rows z = [anchors; positives], as published.

  With s_ij = exp(cos(z_i, z_j) / t) for i != j and s_ii = 0, the loss is the
  mean over i of log sum_j s_ij - sum_j w_ij log(s_ij + 1e-5). The rows are
  those of the global batch, sharded over the mesh or not.

  There the positives of a row are all in sum_j s_ij, as rivals of each other.
  Without rivals each stands against the negatives alone, the pairs of weight 0:
  the loss is the mean over i of
  sum_p w_ip (log(s_ip + sum_n s_in) - log(s_ip + 1e-5)). With one positive a
  row both are the same.

  Args:
    anchors: embeddings of any norm, [n, d].
    positives: embeddings, [n, d]; row i belongs with anchor i.
    weights: w at any scale, how much j is a positive of i. Pairs i = j are left
      out and each row is scaled to sum 1; a row without positives contributes
      0. None: w_ij is 1 for the partner row.
    excluded: pairs that sum_j s_ij leaves out where their number is not 0,
      unless j is a positive of i. None leaves out none.
    temperature: t, which divides the cosines; positive.
    rivals: whether the positives of a row are; weights must be given if not.
    mesh: has one axis, `data`, of type Auto. Without one, all pairs are
      computed at once.
    tiled_above: number of rows, 2n, above which the loss is computed by tiles.
    tile: most rows, and columns, of a tile; decides speed and memory only.

  Returns:
    Mean over the 2n rows, in nats, float32. A collapsed encoder scores about
    log(2n - 1).

  Raises:
    ValueError: by tiles, 2n is not divisible by the number of devices.

  References:
    Chen et al., `A Simple Framework for Contrastive Learning of Visual
    Representations <https://arxiv.org/abs/2002.05709>`_, 2020.
    Cheng et al., `Breaking the Memory Barrier: Near Infinite Batch Size
    Scaling for Contrastive Loss <https://arxiv.org/abs/2410.17243>`_, 2024.
  """
  total = 2 * anchors.shape[0]
  a = unit_rows(anchors.astype(jnp.float32))
  p = unit_rows(positives.astype(jnp.float32))
  z = jnp.concatenate([a, p])
  rows = pair_tiles.Rows(jnp.arange(1, total + 1), z, weights, excluded)
  rows = pair_tiles.on_all_devices(rows, mesh)
  settings = pair_tiles.Settings(temperature, total // 2, tile, mesh)
  at_once, by_tiles = _mean_at_once, _mean_by_tiles
  if not rivals:
    at_once, by_tiles = (
      without_rivals.mean_at_once,
      without_rivals.mean_by_tiles,
    )
  if mesh is None or total <= tiled_above:
    value = at_once(settings, rows)
  elif total % mesh.size:
    raise ValueError(
      f"{total} rows on {mesh.size} devices: the rows of anchors and positives "
      "together must be a multiple of the devices."
    )
  else:
    value = by_tiles(settings, rows)
  if weights is not None:
    return value
  logits = jnp.sum(a * p, axis=1) / temperature
  # Not the log of exp(logits) + 1e-5, which overflows where t < 1 / 88.
  return value - jnp.mean(jnp.logaddexp(logits, pair_tiles.LOG_POSITIVE_OFFSET))


def unit_rows(z: Float[Array, "rows d"]) -> Float[Array, "rows d"]:
  """Scales rows to norm 1; a row of zeros stays one."""
  square = jnp.sum(z**2, axis=-1, keepdims=True)
  return z / jnp.sqrt(jnp.maximum(square, _MIN_NORM**2))


def _mean_at_once(
  settings: pair_tiles.Settings, rows: pair_tiles.Rows
) -> Float[Array, ""]:
  """Computes the loss; where weights is None, without its attraction."""
  logits, weights = pair_tiles.pairs_at_once(settings, rows)
  if weights is None:
    return jnp.mean(jax.nn.logsumexp(logits, axis=1))
  total = weights.sum(axis=1, keepdims=True)
  counts = total > 0
  # A row without positives may have no logits left: 0 * inf in the gradient.
  logits = jnp.where(counts, logits, 0.0)
  attraction = jnp.logaddexp(logits, pair_tiles.LOG_POSITIVE_OFFSET)
  scaled = weights / jnp.where(counts, total, 1.0)
  per_row = jax.nn.logsumexp(logits, axis=1)
  per_row = per_row - jnp.sum(scaled * attraction, axis=1)
  return jnp.mean(jnp.where(counts[:, 0], per_row, 0.0))


class _Sums(NamedTuple):
  """Sums over the columns so far, for each row."""

  most: Float[Array, " r"]  # The largest logit.
  scaled: Float[Array, " r"]  # Of exp(logit - most).
  weight: Float[Array, " r"]
  attraction: Float[Array, " r"]  # Of weight * log(s + 1e-5).


class _Scales(NamedTuple):
  """What the gradient needs of each row."""

  normaliser: Float[Array, " r"]  # log sum_j s_ij; inf: contributes nothing.
  weight: Float[Array, " r"]  # Scales the weights to sum 1; 0: has none.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mean_by_tiles(
  settings: pair_tiles.Settings, rows: pair_tiles.Rows
) -> Float[Array, ""]:
  """Computes the same as `_mean_at_once`."""
  return _forward(settings, rows)[0]


def _forward(
  settings: pair_tiles.Settings, rows: pair_tiles.Rows
) -> tuple[Float[Array, ""], tuple[pair_tiles.Rows, _Scales]]:
  zeros = jnp.zeros(len(rows.z))
  # Below any logit, and finite, so that no difference of two is NaN.
  least = zeros - 2 / settings.temperature
  sums = _Sums(least, zeros, zeros, zeros)
  sums = pair_tiles.over_columns(_add_to_sums, settings, rows, sums)
  counts = zeros == 0 if rows.weights is None else sums.weight > 0
  scale = jnp.where(counts, 1 / jnp.where(sums.weight > 0, sums.weight, 1), 0)
  normaliser = sums.most + jnp.log(jnp.where(counts, sums.scaled, 1))
  per_row = jnp.where(counts, normaliser - scale * sums.attraction, 0)
  scales = _Scales(jnp.where(counts, normaliser, jnp.inf), scale)
  return jnp.mean(per_row), (rows, scales)


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


_mean_by_tiles.defvjp(_forward, _backward)


def _add_to_sums(
  settings: pair_tiles.Settings,
  rows: pair_tiles.Rows,
  columns: pair_tiles.Rows,
  sums: _Sums,
) -> _Sums:
  logits, weights = pair_tiles.pairs_of_tile(settings, rows, columns)
  most = jnp.maximum(sums.most, jnp.max(logits, axis=1))
  scaled = sums.scaled * jnp.exp(sums.most - most)
  scaled = scaled + jnp.sum(jnp.exp(logits - most[:, None]), axis=1)
  if weights is None:
    return sums._replace(most=most, scaled=scaled)
  attraction = jnp.logaddexp(logits, pair_tiles.LOG_POSITIVE_OFFSET)
  return _Sums(
    most,
    scaled,
    sums.weight + jnp.sum(weights, axis=1),
    sums.attraction + jnp.sum(weights * attraction, axis=1),
  )


def _add_to_gradient(
  settings: pair_tiles.Settings,
  rows: tuple[pair_tiles.Rows, _Scales],
  columns: tuple[pair_tiles.Rows, _Scales],
  gradient: Float[Array, "r d"],
) -> Float[Array, "r d"]:
  """Adds the contribution of a tile to the gradient of its rows."""
  # A cosine c_ij is in the terms of both rows i and j. With the normalisers of
  # both, row i needs no gradient from the tile in which it is a column.
  (rows, row_scales), (columns, column_scales) = rows, columns
  logits, weights = pair_tiles.pairs_of_tile(settings, rows, columns)
  slope = jnp.exp(logits - row_scales.normaliser[:, None])
  slope = slope + jnp.exp(logits - column_scales.normaliser[None, :])
  if weights is not None:
    scale = row_scales.weight[:, None] + column_scales.weight[None, :]
    attracted = jax.nn.sigmoid(logits - pair_tiles.LOG_POSITIVE_OFFSET)
    slope = slope - weights * scale * attracted
  return gradient + jnp.matmul(slope, columns.z, precision="highest")
