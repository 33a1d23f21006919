"""The terms of a strategy's loss, and the pairs of rows that they weight."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pcl_jax.data import strategies


class SharedGenres(NamedTuple):
  """Weights of songs as positives by the genres they share; a `nt_xent.Pairs`.

  |G_i and G_j| / (|G_i| + |G_j|), and 0 for two songs without genres.

  Attributes:
    sets: the genre codes of each row as flags, [rows, codes].
  """

  sets: Bool[Array, "rows codes"]

  def tile(self, columns: "SharedGenres") -> Float[Array, "r c"]:
    """Computes the weights of some rows by some columns."""
    a, b = (x.sets.astype(jnp.float32) for x in (self, columns))
    # Counts: sums of products of 0 and 1 are exact in any matmul precision.
    sizes = a.sum(axis=1)[:, None] + b.sum(axis=1)[None, :]
    return jnp.matmul(a, b.T) / jnp.maximum(sizes, 1.0)


def shared_genres(
  tags: Int[Array, "rows tags"], num_codes: int
) -> SharedGenres:
  """Reads the genre codes of each row of a batch.

  Args:
    tags: genre codes of each song, 1..num_codes, 0 for none, [rows, tags].
    num_codes: number of genre codes.
  """
  codes = jnp.arange(1, num_codes + 1)
  # One pass per tag keeps the largest array at [rows, codes].
  sets = jnp.zeros((tags.shape[0], num_codes), bool)
  for column in range(tags.shape[1]):
    sets = sets | (tags[:, column][:, None] == codes[None])
  return SharedGenres(sets)


class FalseNegatives(NamedTuple):
  """Whether two rows share a list, such as a playlist; a `nt_xent.Pairs`.

  Attributes:
    flags: the lists of each row, [rows, lists].
  """

  flags: Bool[Array, "rows lists"]

  def tile(self, columns: "FalseNegatives") -> Bool[Array, "r c"]:
    """Tells whether rows and columns have a list in common."""
    rows, columns = (x.flags.astype(jnp.float32) for x in (self, columns))
    return rows @ columns.T > 0

  def twice(self) -> "FalseNegatives":
    """Returns those of [rows; rows], two modes of the same songs."""
    return FalseNegatives(jnp.concatenate([self.flags, self.flags]))


def false_negatives(entries: Int[Array, "2 n"], rows: int) -> FalseNegatives:
  """Spreads out the entries of `SharedLists.entries`.

  Args:
    entries: row and list of each entry, [2, n]; entries with a row too large
      are padding.
    rows: number of rows of the batch.
  """
  flags = jnp.zeros((rows, entries.shape[1] // 2), bool)
  return FalseNegatives(flags.at[entries[0], entries[1]].set(True, mode="drop"))


def loss_terms(
  strategy: strategies.Strategy,
  projections: dict[str, Float[Array, "rows d"]],
  tags: Int[Array, "rows tags"] | None,
  *,
  num_codes: int,
  contrast: Callable[..., Float[Array, ""]],
  excluded: FalseNegatives | None = None,
) -> dict[str, Float[Array, ""]]:
  """Computes the terms of a strategy's loss on one global batch.

  Args:
    strategy: decides which terms there are; they are added without weights.
    projections: the modes' embeddings of each row, [rows, d]. Where the
      strategy is paired, the first half of the audio rows are the anchors.
    tags: genre codes of each row, [rows, tags]; only for genre weights.
    num_codes: number of genre codes.
    contrast: (anchors, positives, weights, excluded) -> loss.
    excluded: rows that are not negatives of each other, if there are any.

  Returns:
    Value of each term in nats, by its published name, and their sum `total`.
  """
  audio = projections["audio"]
  half = audio.shape[0] // 2
  terms = {}
  for first, second in strategy.combos:
    if second == "audio_self":
      value = contrast(audio[:half], audio[half:], None, excluded)
    else:
      value = contrast(
        projections[first],
        projections[second],
        None,
        None if excluded is None else excluded.twice(),
      )
    terms[f"{first}+{second}"] = value
  if strategy.pair_method:
    weights = None
    if strategy.pair_method == "Genre":
      weights = shared_genres(tags, num_codes)
    terms[f"audio_{strategy.pair_method}_CO"] = contrast(
      audio[:half], audio[half:], weights, excluded
    )
  terms["total"] = sum(terms.values())
  return terms
