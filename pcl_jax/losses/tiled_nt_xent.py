"""NT-Xent of `losses.nt_xent` by tiles, in memory linear in the rows.

No array of all pairs is made. Forward, a running log-sum-exp goes over square
tiles of the logits; backward, the tiles are computed again. The rows lie
sharded over the mesh, and blocks of columns are passed round it.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pcl_jax.losses import dense_nt_xent

_AXIS = "data"


@runtime_checkable
class Pairs(Protocol):
  """A number of each pair of rows, computed a tile at a time.

  A pytree of arrays whose leading axis is the 2n rows in the order of
  [anchors; positives].
  """

  def tile(self, columns: Any) -> Array:
    """Computes the numbers of some rows by some columns.

    Args:
      columns: a Pairs of the same class that holds the columns' entries, as
        self holds the rows'.

    Returns:
      Numbers of at least 0, or flags, [r, c]. A pair has the same number in
      either order: `a.tile(b)` is `b.tile(a).T`.
    """


class SharedGenres(NamedTuple):
  """By the genres two rows share, as `losses.genre_weights`.

  Attributes:
    sets: flags of `losses.genre_sets`, [2n, codes].
  """

  sets: Bool[Array, "rows codes"]

  def tile(self, columns: "SharedGenres") -> Float[Array, "r c"]:
    """Computes |G_i and G_j| / (|G_i| + |G_j|)."""
    return dense_nt_xent.shared_part(self.sets, columns.sets)


class SameGroup(NamedTuple):
  """1 for rows of the same group, such as patches of one song or artist.

  Attributes:
    labels: the group of each row, [2n]; negative for none.
  """

  labels: Int[Array, " rows"]

  def tile(self, columns: "SameGroup") -> Bool[Array, "r c"]:
    """Compares labels."""
    same = self.labels[:, None] == columns.labels[None, :]
    return same & (self.labels >= 0)[:, None]


def nt_xent(
  anchors: Float[Array, "n d"],
  positives: Float[Array, "n d"],
  temperature: float,
  weights: Pairs | None = None,
  excluded: Pairs | None = None,
  *,
  mesh: jax.sharding.Mesh,
  tile: int = 1024,
) -> Float[Array, ""]:
  """Computes the value and gradient of `losses.nt_xent` by tiles.

  Args:
    anchors: embeddings of any norm, [n, d]; of the global batch, sharded over
      the mesh or not.
    positives: embeddings, [n, d]; row i belongs with anchor i.
    temperature: divides the cosines; positive.
    weights: how much j is a positive of i, at any scale: the pairs i = j are
      left out and each row is scaled to sum 1. A row without positives
      contributes 0. None: the partner row is the one positive.
    excluded: where it is not 0, pair (i, j) is left out of the normaliser,
      unless j is a positive of i. None leaves out none.
    mesh: has one axis, `data`, of type Auto.
    tile: most rows, and columns, of a tile; decides speed and memory only.

  Returns:
    Mean over the 2n rows, in nats, float32.

  Raises:
    ValueError: 2n is not divisible by the number of devices.

  References:
    Cheng et al., `Breaking the Memory Barrier: Near Infinite Batch Size
    Scaling for Contrastive Loss <https://arxiv.org/abs/2410.17243>`_, 2024.
  """
  total = 2 * anchors.shape[0]
  if total % mesh.size:
    raise ValueError(
      f"{total} rows on {mesh.size} devices: the rows of anchors and positives "
      "together must be a multiple of the devices."
    )
  a = dense_nt_xent.unit_rows(anchors.astype(jnp.float32))
  p = dense_nt_xent.unit_rows(positives.astype(jnp.float32))
  settings = _Settings(temperature, tile, mesh)
  value = _mean_by_tiles(settings, jnp.concatenate([a, p]), weights, excluded)
  if weights is not None:
    return value
  logits = jnp.sum(a * p, axis=1) / temperature
  return value - jnp.mean(
    jnp.logaddexp(logits, dense_nt_xent.LOG_POSITIVE_OFFSET)
  )


class _Settings(NamedTuple):
  temperature: float
  tile: int
  mesh: jax.sharding.Mesh


class _Rows(NamedTuple):
  """Entries of all rows, or of those of one tile.

  Attributes:
    number: from 1 to 2n; 0 for the rows that fill a tile up.
    z: of norm 1.
    weights: None where the partner is the one positive.
    excluded: None where nothing is.
  """

  number: Int[Array, " r"]
  z: Float[Array, "r d"]
  weights: Pairs | None
  excluded: Pairs | None


class _Sums(NamedTuple):
  """Sums over the columns seen so far, of each row.

  Attributes:
    most: largest logit.
    scaled: sum of exp(logit - most).
    weight: sum of the weights.
    attraction: sum of weight * log(s + 1e-5).
  """

  most: Float[Array, " r"]
  scaled: Float[Array, " r"]
  weight: Float[Array, " r"]
  attraction: Float[Array, " r"]


class _Scales(NamedTuple):
  """What the gradient needs of each row.

  Attributes:
    normaliser: log sum_j s_ij; inf for a row that contributes nothing.
    weight: scales the row's weights to sum 1; 0 for a row without any.
  """

  normaliser: Float[Array, " r"]
  weight: Float[Array, " r"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mean_by_tiles(
  settings: _Settings,
  z: Float[Array, "rows d"],
  weights: Pairs | None,
  excluded: Pairs | None,
) -> Float[Array, ""]:
  """Computes the loss; where weights is None, without its attraction."""
  return _forward(settings, z, weights, excluded)[0]


def _forward(
  settings: _Settings,
  z: Float[Array, "rows d"],
  weights: Pairs | None,
  excluded: Pairs | None,
) -> tuple[Float[Array, ""], tuple[_Rows, _Scales]]:
  rows = _Rows(jnp.arange(1, len(z) + 1), z, weights, excluded)
  zeros = jnp.zeros(len(z))
  # Below any logit, and finite, so that no difference of two is NaN.
  least = jnp.full(len(z), -2 / settings.temperature)
  sums = _over_columns(
    functools.partial(_add_to_sums, settings.temperature, len(z) // 2),
    settings,
    rows,
    _Sums(least, zeros, zeros, zeros),
  )
  counts = jnp.full(len(z), True) if weights is None else sums.weight > 0
  scale = jnp.where(counts, 1 / jnp.where(sums.weight > 0, sums.weight, 1), 0)
  normaliser = sums.most + jnp.log(jnp.where(counts, sums.scaled, 1))
  per_row = jnp.where(counts, normaliser - scale * sums.attraction, 0)
  scales = _Scales(jnp.where(counts, normaliser, jnp.inf), scale)
  return jnp.mean(per_row), (rows, scales)


def _backward(
  settings: _Settings,
  residuals: tuple[_Rows, _Scales],
  cotangent: Float[Array, ""],
) -> tuple[Float[Array, "rows d"], None, None]:
  z = residuals[0].z
  gradient = _over_columns(
    functools.partial(_add_to_gradient, settings.temperature, len(z) // 2),
    settings,
    residuals,
    jnp.zeros_like(z),
  )
  return gradient * (cotangent / (len(z) * settings.temperature)), None, None


_mean_by_tiles.defvjp(_forward, _backward)


def _pairs_of_tile(
  temperature: float, half: int, rows: _Rows, columns: _Rows
) -> tuple[Float[Array, "r c"], Float[Array, "r c"] | None]:
  """Computes logits, -inf where left out of the normaliser, and weights."""
  logits = jnp.matmul(rows.z / temperature, columns.z.T, precision="highest")
  apart = rows.number[:, None] - columns.number[None, :]
  kept = (apart != 0) & (columns.number > 0)[None, :]
  weights = None
  if rows.weights is not None:
    weights = rows.weights.tile(columns.weights).astype(jnp.float32)
    weights = jnp.where(kept, weights, 0.0)
  if rows.excluded is not None:
    positive = jnp.abs(apart) == half if weights is None else weights > 0
    excluded = rows.excluded.tile(columns.excluded) > 0
    kept = kept & (positive | ~excluded)
  return jnp.where(kept, logits, -jnp.inf), weights


def _add_to_sums(
  temperature: float, half: int, rows: _Rows, columns: _Rows, sums: _Sums
) -> _Sums:
  logits, weights = _pairs_of_tile(temperature, half, rows, columns)
  most = jnp.maximum(sums.most, jnp.max(logits, axis=1))
  scaled = sums.scaled * jnp.exp(sums.most - most)
  scaled = scaled + jnp.sum(jnp.exp(logits - most[:, None]), axis=1)
  if weights is None:
    return sums._replace(most=most, scaled=scaled)
  attraction = jnp.logaddexp(logits, dense_nt_xent.LOG_POSITIVE_OFFSET)
  return _Sums(
    most,
    scaled,
    sums.weight + jnp.sum(weights, axis=1),
    sums.attraction + jnp.sum(weights * attraction, axis=1),
  )


def _add_to_gradient(
  temperature: float,
  half: int,
  rows: tuple[_Rows, _Scales],
  columns: tuple[_Rows, _Scales],
  gradient: Float[Array, "r d"],
) -> Float[Array, "r d"]:
  """Adds what a tile gives its rows.

  A cosine c_ij is in the terms of both rows i and j. With the normalisers of
  both at hand, row i needs no gradient from the tile in which it is a column.
  """
  rows, of_rows = rows
  columns, of_columns = columns
  logits, weights = _pairs_of_tile(temperature, half, rows, columns)
  slope = jnp.exp(logits - of_rows.normaliser[:, None])
  slope = slope + jnp.exp(logits - of_columns.normaliser[None, :])
  if weights is not None:
    scale = of_rows.weight[:, None] + of_columns.weight[None, :]
    attracted = jax.nn.sigmoid(logits - dense_nt_xent.LOG_POSITIVE_OFFSET)
    slope = slope - weights * scale * attracted
  return gradient + jnp.matmul(slope, columns.z, precision="highest")


def _over_columns(
  add: Callable, settings: _Settings, rows: Any, sums: Any
) -> Any:
  """Sums over all columns for each row, tile by tile.

  Args:
    add: (tile of rows, tile of columns, sums of these rows) -> the sums with
      those over these columns added.
    settings: of the loss.
    rows: arrays of all rows, [2n, ...], split over the mesh.
    sums: what the sums start from, [2n, ...].
  """
  devices = settings.mesh.size
  onwards = [(i, (i + 1) % devices) for i in range(devices)]

  def add_block(rows, columns, sums):
    def of_tile(tile):
      one, so_far = tile
      return jax.lax.scan(
        lambda so_far, other: (add(one, other, so_far), None), so_far, columns
      )[0]

    return jax.lax.map(of_tile, (rows, sums))

  def of_device(rows, sums):
    size = jax.tree.leaves(rows)[0].shape[0]
    rows, sums = _in_tiles((rows, sums), size, settings.tile)

    def step(carry, _):
      columns, sums = carry
      # The block goes on to the next device while its tiles are computed.
      following = jax.lax.ppermute(columns, _AXIS, onwards)
      return (following, add_block(rows, columns, sums)), None

    if devices == 1:
      sums = add_block(rows, rows, sums)
    else:
      (_, sums), _ = jax.lax.scan(step, (rows, sums), length=devices)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:size], sums)

  split = jax.P(_AXIS)
  return jax.shard_map(
    of_device, mesh=settings.mesh, in_specs=split, out_specs=split
  )(rows, sums)


def _in_tiles(entries: Any, size: int, tile: int) -> Any:
  """Cuts arrays [size, ...] into [tiles, rows, ...], filled up with zeros."""
  tiles = -(-size // tile)
  rows = -(-size // tiles)  # The least that as many tiles can hold.

  def cut(x):
    fill = [(0, tiles * rows - size)] + [(0, 0)] * (x.ndim - 1)
    return jnp.pad(x, fill).reshape(tiles, rows, *x.shape[1:])

  return jax.tree.map(cut, entries)
