"""NT-Xent of a global batch: with all pairs at once, or by tiles."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pcl_jax.losses import dense_nt_xent
from pcl_jax.losses import tiled_nt_xent


class Sharing(NamedTuple):
  """Whether two rows stand in a list together; a `tiled_nt_xent.Pairs`.

  Attributes:
    flags: the lists of each row, [rows, lists].
  """

  flags: Bool[Array, "rows lists"]

  def tile(self, columns: "Sharing") -> Bool[Array, "r c"]:
    """Looks for a list in common."""
    rows, columns = (x.flags.astype(jnp.float32) for x in (self, columns))
    return rows @ columns.T > 0

  def twice(self) -> "Sharing":
    """Returns that of [rows; rows], as of two modes of the same songs."""
    return Sharing(jnp.concatenate([self.flags, self.flags]))


def sharing_of(entries: Int[Array, "2 n"], rows: int) -> Sharing:
  """Spreads the entries of `SharedLists.entries` out.

  Args:
    entries: row and list of each, [2, n]; a row too large fills up.
    rows: of the batch.
  """
  flags = jnp.zeros((rows, entries.shape[1] // 2), bool)
  return Sharing(flags.at[entries[0], entries[1]].set(True, mode="drop"))


def nt_xent(
  anchors: Float[Array, "n d"],
  positives: Float[Array, "n d"],
  weights: tiled_nt_xent.Pairs | None = None,
  excluded: tiled_nt_xent.Pairs | None = None,
  *,
  temperature: float,
  mesh: jax.sharding.Mesh,
  tiled_above: int,
  tile: int,
) -> Float[Array, ""]:
  """Computes NT-Xent in the way that suits the size of the batch.

  Args:
    anchors: embeddings of any norm, [n, d].
    positives: embeddings, [n, d]; row i belongs with anchor i.
    weights: of the pairs as positives; None for the partners.
    excluded: pairs that are no negatives; None for none.
    temperature: divides the cosines; positive.
    mesh: that the rows are split over.
    tiled_above: of more rows, 2n, no array of all pairs is made.
    tile: most rows and columns of a tile.

  Returns:
    Mean over the 2n rows, in nats, float32; the same either way.
  """
  if 2 * anchors.shape[0] > tiled_above:
    return tiled_nt_xent.nt_xent(
      anchors, positives, temperature, weights, excluded, mesh=mesh, tile=tile
    )
  return dense_nt_xent.nt_xent(
    anchors,
    positives,
    temperature,
    None
    if weights is None
    else dense_nt_xent.row_weights(weights.tile(weights)),
    None if excluded is None else excluded.tile(excluded) > 0,
  )
