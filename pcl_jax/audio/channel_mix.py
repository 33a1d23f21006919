"""Which of the channels of a recording are taken for its one.

The mean of channels that cancel each other out is silence, where one of them
is music. The choice travels with the settings of the feature, under the key
`channels`; without it, it is the mean.
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float32
import numpy as np

from pcl_jax.common import errors

MEAN, LEFT, LOUDEST = CHOICES = ("mean", "left", "loudest")
_WORDS = {MEAN: "their mean", LEFT: "the left one", LOUDEST: "the loudest one"}


def check(channels: str) -> None:
  """Raises InputError where channels are none of `CHOICES`."""
  if channels not in CHOICES:
    raise errors.InputError(
      f"channels is {channels!r}: give one of {', '.join(CHOICES)}."
    )


def of(feature: Mapping[str, Any]) -> str:
  """Returns the choice that settings of the feature name."""
  return feature.get("channels", MEAN)


def in_words(feature: Mapping[str, Any]) -> str:
  """Returns what is taken of several channels, as in `the left one`."""
  return _WORDS[of(feature)]


def check_same(
  there: Mapping[str, Any], where: str, learned: Mapping[str, Any]
) -> None:
  """Refuses songs of other channels than an encoder has learned from.

  Args:
    there: settings of the songs' feature.
    where: where they lie, for the message.
    learned: settings of the feature that the encoder has learned from.

  Raises:
    InputError: with both choices.
  """
  ours = of(learned)
  if of(there) != ours:
    raise errors.InputError(
      f"{where} holds a feature of other settings (channels: there "
      f"{of(there)!r}, the encoder's {ours!r}), and the two are not to be "
      f"mixed: give a data set that own_library has made with "
      f"--channels={ours}, or train on this one in a new --workdir."
    )


class Mix:
  """Takes one channel of blocks, or the mean of all."""

  def __init__(self, channel: int | None = None):
    """Takes a channel, from 0, or the last where there are fewer."""
    self._channel = channel

  def __call__(
    self, channels: list[np.ndarray], scale: float = 1.0
  ) -> Float32[np.ndarray, " n"]:
    """Returns the mean of channels, added in their order, as float32.

    Args:
      channels: samples of any type.
      scale: the number that is full scale.
    """
    if self._channel is not None:
      channels = [channels[min(self._channel, len(channels) - 1)]]
    first, *others = channels
    if others:  # Passes over memory are what this takes.
      mono = np.add(first, others[0], dtype=np.float32, casting="unsafe")
    else:
      mono = first.astype(np.float32)
    for channel in others[1:]:
      np.add(mono, channel, out=mono, dtype=np.float32, casting="unsafe")
    if scale * len(channels) != 1.0:
      mono /= np.float32(scale * len(channels))
    return mono


class Energies(Mix):
  """Finds the channel with the most energy of all blocks."""

  def __init__(self):
    """Begins without any block."""
    super().__init__()
    self._energies = np.zeros(0)

  def __call__(
    self, channels: list[np.ndarray], scale: float = 1.0
  ) -> Float32[np.ndarray, " n"]:
    """Adds blocks of channels; returns their mean, as `Mix` does."""
    more = max(len(channels) - len(self._energies), 0)
    self._energies = np.pad(self._energies, (0, more))
    for number, channel in enumerate(channels):
      energy = np.square(channel, dtype=np.float64).sum()
      self._energies[number] += energy / scale**2
    return super().__call__(channels, scale)

  def loudest(self) -> int:
    """Returns the channel; of several alike, the first."""
    return int(np.argmax(self._energies)) if len(self._energies) else 0
