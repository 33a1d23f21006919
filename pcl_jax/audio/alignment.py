"""Lays two songs over each other: are they one recording?

Features of one recording correlate nearly completely where they are laid over
each other rightly, whatever its codec, level and equaliser.
"""

from typing import NamedTuple

from jaxtyping import Float, Int
import numpy as np
import scipy.fft

_MOST_SHIFT = 1250  # Frames: 20 s.
_TRIED = 3  # Shifts at which the features are compared.
_APART = 3  # Frames between these.


class Alignment(NamedTuple):
  """How well two songs go over each other.

  Attributes:
    correlation: of their features at the best shift, at most 1.
    shift: how many frames later the second song begins in the first.
  """

  correlation: float
  shift: int


def _shifts(
  first: Float[np.ndarray, " frames"], second: Float[np.ndarray, " others"]
) -> Int[np.ndarray, " tried"]:
  """Returns the shifts at which two curves agree best."""
  size = scipy.fft.next_fast_len(len(first) + len(second) - 1, real=True)
  curves = [scipy.fft.rfft(one - one.mean(), size) for one in (first, second)]
  matches = scipy.fft.irfft(curves[0] * np.conj(curves[1]), size)
  shifts = np.arange(
    -min(len(second) - 1, _MOST_SHIFT), min(len(first), _MOST_SHIFT)
  )
  matches, found = matches[shifts], []
  for _ in range(_TRIED):
    best = int(matches.argmax())
    found.append(shifts[best])
    matches[max(best - _APART, 0) : best + _APART + 1] = -np.inf
  return np.array(found)


def _correlation(
  first: Float[np.ndarray, "frames bands"],
  second: Float[np.ndarray, "others bands"],
  shift: int,
) -> float:
  mine, other = first[max(shift, 0) :], second[max(-shift, 0) :]
  both = min(len(mine), len(other))
  if 2 * both < min(len(first), len(second)):
    return 0.0
  mine, other = (one[:both] - one[:both].mean(axis=0) for one in (mine, other))
  power = float((mine**2).sum()) * float((other**2).sum())
  return float((mine * other).sum()) / power**0.5 if power else 0.0


def align(
  first: Float[np.ndarray, "frames bands"],
  second: Float[np.ndarray, "others bands"],
) -> Alignment:
  """Finds the shift at which two songs' features correlate best.

  It is one of the three at which their loudness agrees best, up to 20 s. Each
  band is taken without its mean over time, so that levels and equalisers do not
  count. The correlation is 0 if the songs overlap by less than half of the
  shorter one, or if one of them does not change.
  """
  first, second = first.astype(np.float32), second.astype(np.float32)
  shifts = _shifts(first.mean(axis=1), second.mean(axis=1))
  found = (
    Alignment(_correlation(first, second, int(one)), int(one)) for one in shifts
  )
  return max(found, key=lambda one: one.correlation)
