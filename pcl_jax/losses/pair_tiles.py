"""All pairs of the rows of a batch, tile by tile, on one device or several.

No array of all pairs is made, so that memory grows linearly with the rows. Each
device has all of them as columns, gathered once, and sums for its own rows.
"""

from collections.abc import Callable
import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_AXIS = "data"
LOG_POSITIVE_OFFSET = math.log(1e-5)  # Added to s_ij in the positive term.


@runtime_checkable
class Pairs(Protocol):
  """A number for each pair of rows, computed a tile at a time.

  A pytree of arrays whose leading axis is the 2n rows in the order of
  [anchors; positives].
  """

  def tile(self, columns: Any) -> Array:
    """Computes numbers of at least 0, or flags, of some rows by some columns.

    A pair has the same number in either order: `a.tile(b)` is `b.tile(a).T`.
    """


class Settings(NamedTuple):
  temperature: float
  half: int
  tile: int
  mesh: jax.sharding.Mesh | None


class Rows(NamedTuple):
  """All rows, or those of one tile."""

  number: Int[Array, " r"]  # From 1 to 2n; 0 for rows that fill up a tile.
  z: Float[Array, "r d"]  # Of norm 1.
  weights: Pairs | None  # None where the partner is the one positive.
  excluded: Pairs | None  # None where no pair is excluded.


def on_all_devices(rows: Rows, mesh: jax.sharding.Mesh | None) -> Rows:
  """Gathers rows; else XLA moves halves of the batch, a dozen times."""
  if mesh is None or mesh.size == 1:
    return rows
  return _laid_out(rows, mesh, jax.P())


def pairs_at_once(
  settings: Settings, rows: Rows
) -> tuple[Float[Array, "r c"], Float[Array, "r c"] | None]:
  """Computes those of all pairs; each device has the pairs of its rows."""
  mesh, columns = settings.mesh, rows
  if mesh is not None and mesh.size > 1 and len(rows.z) % mesh.size == 0:
    rows = _laid_out(rows, mesh, jax.P(_AXIS))
  return pairs_of_tile(settings, rows, columns)


def _laid_out(rows: Rows, mesh: jax.sharding.Mesh, how: jax.P) -> Rows:
  return jax.lax.with_sharding_constraint(rows, jax.NamedSharding(mesh, how))


def pairs_of_tile(
  settings: Settings, rows: Rows, columns: Rows
) -> tuple[Float[Array, "r c"], Float[Array, "r c"] | None]:
  """Computes logits, -inf where left out of the normaliser, and weights."""
  logits = jnp.matmul(rows.z, columns.z.T, precision="highest")
  apart = rows.number[:, None] - columns.number[None, :]
  kept = (apart != 0) & (columns.number > 0)[None, :]
  weights = None
  if rows.weights is not None:
    weights = rows.weights.tile(columns.weights).astype(jnp.float32)
    weights = jnp.where(kept, weights, 0.0)
  if rows.excluded is not None:
    is_partner = jnp.abs(apart) == settings.half
    positive = is_partner if weights is None else weights > 0
    excluded = rows.excluded.tile(columns.excluded) > 0
    kept = kept & (positive | ~excluded)
  return jnp.where(kept, logits / settings.temperature, -jnp.inf), weights


def over_columns(
  add: Callable, settings: Settings, rows: Any, sums: Any
) -> Any:
  """Sums over all columns for each row, tile by tile; arrays are [2n, ...].

  `add` takes the settings, a tile of rows, one of columns and the sums of these
  rows, and returns the sums with these columns.
  """

  def of_device(rows, columns, sums):
    size, total = (len(jax.tree.leaves(one)[0]) for one in (rows, columns))
    columns = _in_tiles(columns, total, settings.tile)

    def of_tile(tile):
      one, so_far = tile
      return jax.lax.scan(
        lambda so_far, other: (add(settings, one, other, so_far), None),
        so_far,
        columns,
      )[0]

    tiles = _in_tiles((rows, sums), size, settings.tile)
    sums = jax.lax.map(of_tile, tiles)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:size], sums)

  split, everywhere = jax.P(_AXIS), jax.P()
  return jax.shard_map(
    of_device,
    mesh=settings.mesh,
    in_specs=(split, everywhere, split),
    out_specs=split,
  )(rows, rows, sums)


def _in_tiles(entries: Any, size: int, tile: int) -> Any:
  """Cuts arrays [size, ...] into [tiles, rows, ...], padded with zeros."""
  tiles = -(-size // tile)
  rows = -(-size // tiles)  # The fewest that as many tiles can hold.

  def cut(x):
    fill = [(0, tiles * rows - size)] + [(0, 0)] * (x.ndim - 1)
    return jnp.pad(x, fill).reshape(tiles, rows, *x.shape[1:])

  return jax.tree.map(cut, entries)
