"""The terms of a strategy's loss, and the pairs of rows that they weight."""

from collections.abc import Callable, Sequence
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pcl_jax.data import strategies
from pcl_jax.losses import pair_tiles


class Shared(NamedTuple):
  """How much of their sets two rows share; a `pair_tiles.Pairs`.

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


def shared_lists(entries: Int[Array, "2 n"], rows: int) -> Shared:
  """Spreads out the rows and lists of `SharedLists.entries`.

  Entries with a row too large are padding.
  """
  sets = jnp.zeros((rows, entries.shape[1] // 2), bool)
  return Shared(sets.at[entries[0], entries[1]].set(True, mode="drop"))


class NoNegatives(NamedTuple):
  """Whether two rows are of one song, or share a list; a `pair_tiles.Pairs`."""

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


class Positives(NamedTuple):
  """Whether two rows are positives of each other; a `pair_tiles.Pairs`.

  They are if they are of one group, or share a list and are not of one song.
  """

  groups: Int[Array, " rows"]  # Numbers.
  songs: Int[Array, " rows"] | None = None  # Given with `shared`.
  shared: Shared | None = None

  def tile(self, columns: "Positives") -> Bool[Array, "r c"]:
    """Computes the flags of some rows and some columns."""
    flags = self.groups[:, None] == columns.groups[None, :]
    if self.shared is not None:
      others = self.songs[:, None] != columns.songs[None, :]
      flags |= others & (self.shared.tile(columns.shared) > 0)
    return flags


def no_negatives(
  songs: Int[Array, " rows"] | None, lists: Sequence[Shared]
) -> NoNegatives | None:
  """Returns pairs of one song, or that share any lists; None if none can be."""
  if songs is None and not lists:
    return None
  shared = None
  if lists:
    shared = Shared(jnp.concatenate([one.sets for one in lists], axis=1))
  return NoNegatives(songs, shared)


def all_positives(
  strategy: strategies.Strategy,
  rows: int,
  songs: Int[Array, " rows"] | None,
  shared: Shared | None,
) -> Positives | None:
  """Returns all that are positives of one another in a batch.

  In SS they are the rows of one song; with pairs, the partners and rows of
  other songs that share a list. None where each row has its partner alone.
  """
  if strategy.two_patches:
    return None if songs is None else Positives(songs)
  partners = jnp.arange(rows) % (rows // 2)
  return Positives(partners, songs, shared)


def loss_terms(
  strategy: strategies.Strategy,
  projections: dict[str, Float[Array, "rows d"]],
  tags: Int[Array, "rows tags"] | None,
  *,
  num_codes: int,
  contrast: Callable[..., Float[Array, ""]],
  excluded: pair_tiles.Pairs | None = None,
  positives: pair_tiles.Pairs | None = None,
) -> dict[str, Float[Array, ""]]:
  """Computes the terms of a strategy's loss, which are added without weights.

  Args:
    strategy: decides which terms there are.
    projections: the modes' embeddings of each row. Where the strategy is
      paired, the first half of the audio rows are the anchors.
    tags: genre codes of each row; only for genre weights.
    num_codes: number of genre codes.
    contrast: (anchors, positives, weights, excluded, rivals=) -> loss.
    excluded: rows that are not negatives of each other, if there are any.
    positives: of the audio rows, where they are not the partners alone; they
      take the place of genre weights, and are no rivals.

  Returns:
    Value of each term in nats, by its published name, and their sum `total`.
  """
  audio = projections["audio"]
  half = audio.shape[0] // 2
  # Two modes of the same songs.
  twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), excluded)
  paired = functools.partial(contrast, rivals=positives is None)
  terms = {}
  for first, second in strategy.combos:
    if second == "audio_self":
      value = paired(audio[:half], audio[half:], positives, excluded)
    else:
      value = contrast(projections[first], projections[second], None, twice)
    terms[f"{first}+{second}"] = value
  if strategy.pair_method:
    weights = positives
    if weights is None and strategy.pair_method == "Genre":
      weights = shared_genres(tags, num_codes)
    terms[f"audio_{strategy.pair_method}_CO"] = paired(
      audio[:half], audio[half:], weights, excluded
    )
  terms["total"] = sum(terms.values())
  return terms
