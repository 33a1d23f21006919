"""Diagnostics of collapse: do embeddings still use their whole space?

A collapsed encoder maps all songs to one point or a few directions, and its
loss may look good all the same. All functions scale rows to norm 1.

References:
  Wang and Isola, Understanding Contrastive Representation Learning through
  Alignment and Uniformity on the Hypersphere, 2020.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from pcl_jax.losses import nt_xent

_MIN_NORM = 1e-8
_UNIFORMITY_T = 2.0


def effective_rank(rows: Float[Array, "n d"]) -> Float[Array, ""]:
  """Returns how many directions the rows use, from 1 (a line) to min(n, d).

  This is the exponential of the entropy of the singular values as shares of
  their sum; the rows are not centred.

  References:
    Roy and Vetterli, The Effective Rank, 2007.
  """
  # Not the roots of the eigenvalues of rows.T @ rows: rounding errors of 1e-7
  # would become singular values of 3e-4, and hundreds of these add to the rank.
  values = jnp.linalg.svd(nt_xent.unit_rows(rows), compute_uv=False)
  shares = values / jnp.maximum(values.sum(), _MIN_NORM)
  entropy = -jnp.sum(jnp.where(shares > 0, shares * jnp.log(shares), 0.0))
  return jnp.exp(entropy)


def mean_cosine(rows: Float[Array, "n d"]) -> Float[Array, ""]:
  """Returns the mean cosine of two different rows; 1 if all are one point."""
  unit = nt_xent.unit_rows(rows)
  n = unit.shape[0]
  total = jnp.sum(jnp.sum(unit, axis=0) ** 2)
  return (total - jnp.sum(unit**2)) / (n * (n - 1))


def alignments(
  first: Float[Array, "n d"], second: Float[Array, "n d"]
) -> Float[Array, " n"]:
  """Returns the squared distance of each pair of rows, from 0 (alike) to 4."""
  return jnp.sum(
    (nt_xent.unit_rows(first) - nt_xent.unit_rows(second)) ** 2, axis=1
  )


def uniformity(rows: Float[Array, "n d"]) -> Float[Array, ""]:
  """Returns how evenly the rows lie on the sphere; lower is more even.

  This is the logarithm of the mean of exp(-2 |u - v|^2) over pairs of different
  rows: 0 if all are one point; about -3.9 for uniform rows in many dimensions.
  """
  unit = nt_xent.unit_rows(rows)
  n = unit.shape[0]
  squared = jnp.maximum(2.0 - 2.0 * unit @ unit.T, 0.0)
  near = jnp.exp(-_UNIFORMITY_T * squared)
  near = jnp.where(jnp.eye(n, dtype=bool), 0.0, near)
  return jnp.log(near.sum() / (n * (n - 1)))


def diagnostics(
  rows: Float[Array, "n d"],
) -> dict[str, Float[Array, ""]]:
  """Returns all diagnostics of at least two rows, by name."""
  return {
    "effective_rank": effective_rank(rows),
    "uniformity": uniformity(rows),
    "mean_cosine": mean_cosine(rows),
  }
