"""Contrastive losses over rows of embeddings."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_MIN_NORM = 1e-8
LOG_POSITIVE_OFFSET = math.log(1e-5)  # Added to s_ij in the positive term.


def unit_rows(z: Float[Array, "rows d"]) -> Float[Array, "rows d"]:
  """Scales rows to norm 1; a row of zeros stays one."""
  square = jnp.sum(z.astype(jnp.float32) ** 2, axis=-1, keepdims=True)
  return z / jnp.sqrt(jnp.maximum(square, _MIN_NORM**2))


def nt_xent(
  anchors: Float[Array, "n d"],
  positives: Float[Array, "n d"],
  temperature: float,
  weights: Float[Array, "rows rows"] | None = None,
  excluded: Bool[Array, "rows rows"] | None = None,
) -> Float[Array, ""]:
  """Computes NT-Xent over the rows z = [anchors; positives], as published.

  With s_ij = exp(cos(z_i, z_j) / t) for i != j and s_ii = 0, the loss is the
  mean over i of log sum_j s_ij - sum_j w_ij log(s_ij + 1e-5). The rows are
  those of the global batch: where they are sharded, XLA gathers them.

  Args:
    anchors: embeddings of any norm, [n, d].
    positives: embeddings, [n, d]; row i belongs with anchor i.
    temperature: divides the cosines; positive.
    weights: w, [2n, 2n], rows summing to 1 or to 0. A row of zeros has no
      positive and contributes 0. None: w_ij is 1 for the partner row.
    excluded: pairs (i, j) that sum_j s_ij leaves out, [2n, 2n]; those of a
      positive weight stay in. None leaves out none.

  Returns:
    Mean over the 2n rows, in nats, float32. A collapsed encoder scores about
    log(2n - 1).

  References:
    Chen et al., `A Simple Framework for Contrastive Learning of Visual
    Representations <https://arxiv.org/abs/2002.05709>`_, 2020.
  """
  n = anchors.shape[0]
  z = unit_rows(jnp.concatenate([anchors, positives]).astype(jnp.float32))
  logits = jnp.matmul(z, z.T, precision="highest") / temperature
  itself = jnp.eye(2 * n, dtype=bool)
  partner = (jnp.arange(2 * n) + n) % (2 * n)
  kept = ~itself
  if excluded is not None:
    positive = itself[partner] if weights is None else weights > 0
    # A row without positives keeps all, so that its gradient is not 0 * inf.
    alone = ~jnp.any(positive, axis=1, keepdims=True)
    kept = kept & (positive | alone | ~excluded)
  normaliser = jax.nn.logsumexp(logits, axis=1, where=kept)
  if weights is None:
    attracted = jnp.take_along_axis(logits, partner[:, None], axis=1)[:, 0]
    # Not the log of exp(logits) + 1e-5, which overflows where t < 1 / 88.
    return jnp.mean(normaliser - jnp.logaddexp(attracted, LOG_POSITIVE_OFFSET))
  attraction = jnp.logaddexp(
    jnp.where(itself, -jnp.inf, logits), LOG_POSITIVE_OFFSET
  )
  has_positive = jnp.any(weights > 0, axis=1)
  per_row = normaliser - jnp.sum(weights * attraction, axis=1)
  return jnp.mean(jnp.where(has_positive, per_row, 0.0))


def genre_weights(
  tags: Int[Array, "rows tags"], num_codes: int
) -> Float[Array, "rows rows"]:
  """Computes the weights of songs as positives by the genres they share.

  For i != j, |G_i and G_j| / (|G_i| + |G_j|), each row scaled to sum 1.

  Args:
    tags: genre codes of each song, 1..num_codes, 0 for none, [rows, tags].
    num_codes: number of genre codes.

  Returns:
    Weights, float32 [rows, rows]; a song that shares no genre with another
    one of the batch has a row of zeros.
  """
  sets = genre_sets(tags, num_codes)
  return row_weights(shared_part(sets, sets))


def row_weights(
  pairs: Float[Array, "rows rows"] | Bool[Array, "rows rows"],
) -> Float[Array, "rows rows"]:
  """Scales each row to sum 1, without its own column; rows of zeros stay."""
  itself = jnp.eye(pairs.shape[0], dtype=bool)
  weights = jnp.where(itself, 0.0, pairs)
  total = weights.sum(axis=1, keepdims=True)
  return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1.0), 0.0)


def genre_sets(
  tags: Int[Array, "rows tags"], num_codes: int
) -> Bool[Array, "rows codes"]:
  """Writes lists of genre codes as rows of flags, one flag a code.

  Args:
    tags: genre codes of each song, 1..num_codes, 0 for none, [rows, tags].
    num_codes: number of genre codes.
  """
  codes = jnp.arange(1, num_codes + 1)
  # One pass per tag keeps the largest array at [rows, codes].
  sets = jnp.zeros((tags.shape[0], num_codes), bool)
  for column in range(tags.shape[1]):
    sets = sets | (tags[:, column][:, None] == codes[None])
  return sets


def shared_part(
  rows: Bool[Array, "r codes"], columns: Bool[Array, "c codes"]
) -> Float[Array, "r c"]:
  """Computes |A and B| / (|A| + |B|) of sets A by sets B; 0 of two empty ones.

  Args:
    rows: sets as flags, [r, codes].
    columns: sets as flags, [c, codes].
  """
  rows, columns = rows.astype(jnp.float32), columns.astype(jnp.float32)
  # Counts: sums of products of 0 and 1 are exact in any matmul precision.
  shared = jnp.matmul(rows, columns.T)
  sizes = rows.sum(axis=1)[:, None] + columns.sum(axis=1)[None, :]
  return shared / jnp.maximum(sizes, 1.0)
