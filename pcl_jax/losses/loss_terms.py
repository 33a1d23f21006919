"""The terms of a strategy's loss, and the pairs of rows that they weight."""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pcl_jax.data import strategies
from pcl_jax.losses import nt_xent


class Shared(NamedTuple):
  """How much of their sets two rows share; a `nt_xent.Pairs`.

  |A and B| / (|A| + |B|), and 0 for two empty sets.
  """

  sets: Bool[Array, "rows codes"]  # As flags.

  def tile(self, columns: "Shared") -> Float[Array, "r c"]:
    """Computes the shares of some rows and some columns."""
    a, b = (x.sets.astype(jnp.float32) for x in (self, columns))
    # Counts: sums of products of 0 and 1 are exact in any matmul precision.
    sizes = a.sum(axis=1)[:, None] + b.sum(axis=1)[None, :]
    return jnp.matmul(a, b.T) / jnp.maximum(sizes, 1.0)


def shared_genres(tags: Int[Array, "rows tags"], num_codes: int) -> Shared:
  """Reads the genre codes of each row, 1..num_codes, or 0 for none."""
  codes = jnp.arange(1, num_codes + 1)
  # One pass per tag keeps the largest array at [rows, codes].
  sets = jnp.zeros((tags.shape[0], num_codes), bool)
  for column in range(tags.shape[1]):
    sets = sets | (tags[:, column][:, None] == codes[None])
  return Shared(sets)


def false_negatives(entries: Int[Array, "2 n"], rows: int) -> Shared:
  """Spreads out the rows and lists of `SharedLists.entries`.

  Entries with a row too large are padding.
  """
  sets = jnp.zeros((rows, entries.shape[1] // 2), bool)
  return Shared(sets.at[entries[0], entries[1]].set(True, mode="drop"))


class NoNegatives(NamedTuple):
  """Whether two rows are of one song, or share a list; a `nt_xent.Pairs`."""

  # Numbers; None where no song can be there twice.
  songs: Int[Array, " rows"] | None = None
  shared: Shared | None = None  # One of both is given.

  def tile(self, columns: "NoNegatives") -> Bool[Array, "r c"]:
    """Computes the flags of some rows and some columns."""
    flags = []
    if self.songs is not None:
      flags.append(self.songs[:, None] == columns.songs[None, :])
    if self.shared is not None:
      flags.append(self.shared.tile(columns.shared) > 0)
    return functools.reduce(jnp.logical_or, flags)


def loss_terms(
  strategy: strategies.Strategy,
  projections: dict[str, Float[Array, "rows d"]],
  tags: Int[Array, "rows tags"] | None,
  *,
  num_codes: int,
  contrast: Callable[..., Float[Array, ""]],
  excluded: nt_xent.Pairs | None = None,
) -> dict[str, Float[Array, ""]]:
  """Computes the terms of a strategy's loss, which are added without weights.

  Args:
    strategy: decides which terms there are.
    projections: the modes' embeddings of each row. Where the strategy is
      paired, the first half of the audio rows are the anchors.
    tags: genre codes of each row; only for genre weights.
    num_codes: number of genre codes.
    contrast: (anchors, positives, weights, excluded) -> loss.
    excluded: rows that are not negatives of each other, if there are any.

  Returns:
    Value of each term in nats, by its published name, and their sum `total`.
  """
  audio = projections["audio"]
  half = audio.shape[0] // 2
  # Two modes of the same songs.
  twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), excluded)
  terms = {}
  for first, second in strategy.combos:
    if second == "audio_self":
      value = contrast(audio[:half], audio[half:], None, excluded)
    else:
      value = contrast(projections[first], projections[second], None, twice)
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
