"""Strategies: which modes enter the batch and which terms the loss has.

A strategy is `contrast_combos`, a list of pairs of modes, and a
`pair_generation_method`; `losses.loss_terms` computes its terms.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

from pcl_jax.common import errors
from pcl_jax.data import catalogues

COMBOS = (
  ("audio", "audio_self"),
  ("audio", "cf"),
  ("audio", "genre_w2v"),
  ("cf", "genre_w2v"),
)


def _in_words(combos: Sequence[tuple[str, str]]) -> str:
  return ", ".join(f"[{a}, {b}]" for a, b in combos)


def _parse_combo(combo: Any) -> tuple[str, str]:
  modes = tuple(combo) if isinstance(combo, list | tuple) else (combo,)
  for known in COMBOS:
    if modes in (known, known[::-1]):
      return known
  raise errors.InputError(
    f"contrast_combos has the pair {list(modes)}; a pair is one of "
    f"{_in_words(COMBOS)}, in either order."
  )


@dataclasses.dataclass(frozen=True)
class Strategy:
  """What is contrasted with what."""

  combos: tuple[tuple[str, str], ...]  # In the spelling of `COMBOS`.
  pair_method: str  # One of `catalogues.PAIR_METHODS`, or empty.

  @property
  def two_patches(self) -> bool:
    """Whether a batch holds two patches of each song (self-supervised)."""
    return ("audio", "audio_self") in self.combos

  @property
  def paired(self) -> bool:
    """Whether the two halves of a batch belong together, row by row."""
    return self.two_patches or bool(self.pair_method)

  @property
  def modes(self) -> tuple[str, ...]:
    """Modes besides audio that enter the batch through an encoder."""
    used = {mode for combo in self.combos for mode in combo}
    return tuple(mode for mode in ("cf", "genre_w2v") if mode in used)

  @property
  def needs_tags(self) -> bool:
    """Whether genre codes enter the batch: for mode G or genre weights."""
    return "genre_w2v" in self.modes or self.pair_method == "Genre"

  @property
  def name(self) -> str:
    """Returns the paper's name of it, such as `CM A,G,P`."""
    if self.two_patches:
      return "SS"
    letters = {"audio": "A", "genre_w2v": "G", "cf": "P"}
    used = {mode for combo in self.combos for mode in combo}
    cross = ",".join(letters[mode] for mode in letters if mode in used)
    if not self.pair_method:
      return f"CM {cross}"
    if not self.combos:
      return f"A-IM {self.pair_method}"
    return f"Hybrid {self.pair_method} + {cross}"


def parse(contrast_combos: Any, pair_generation_method: str | None) -> Strategy:
  """Reads a strategy as config files write it.

  The published README also writes a single pair without the outer list.

  Raises:
    InputError: an unknown mode, pair or method, or nothing to train.
  """
  listed = tuple(contrast_combos or ())
  if len(listed) == 2 and all(isinstance(mode, str) for mode in listed):
    listed = (listed,)
  combos = tuple(dict.fromkeys(_parse_combo(combo) for combo in listed))
  method = pair_generation_method or ""
  if method and method not in catalogues.PAIR_METHODS:
    raise errors.InputError(
      f"pair_generation_method is {method!r}; it is one of "
      f"{', '.join(catalogues.PAIR_METHODS)}, or empty for none."
    )
  strategy = Strategy(combos, method)
  if not method and not any("audio" in combo for combo in combos):
    raise errors.InputError(
      f"contrast_combos is [{_in_words(combos)}] and pair_generation_method is "
      "empty: nothing would train the audio encoder. Give a pair with audio in "
      "it, or a pair method."
    )
  if strategy.two_patches and (len(combos) > 1 or method):
    raise errors.InputError(
      "contrast_combos pairs audio with audio_self (strategy SS), which stands "
      "alone: remove the other pairs and the pair method, or audio_self."
    )
  return strategy
