"""Lays two songs over each other: are they one recording?

Features of one recording correlate nearly completely where they are laid over
each other rightly, whatever its codec, level and equaliser.
"""

from typing import NamedTuple

from jaxtyping import Float, Int
import numpy as np
from scipy import ndimage
import scipy.fft

_MOST_SHIFT = 1250  # Frames: 20 s.
_TRIED = 3  # Shifts at which the features are compared.
_APART = 3  # Frames between these.
_GROUPS = 8  # Of bands, by which they are found.
_SLOW = 63  # Frames, 1 s: what takes longer is no detail of these.


class Alignment(NamedTuple):
  """How well two songs go over each other.

  Attributes:
    correlation: of their features at the best shift, at most 1.
    shift: how many frames later the second song begins in the first.
  """

  correlation: float
  shift: int


def _curves(
  feature: Float[np.ndarray, "frames bands"],
) -> Float[np.ndarray, "frames groups"]:
  """Returns the course of a few groups of bands, each without its slow part.

  With that, the loudest parts of two songs would agree before the right ones.
  """
  parts = np.array_split(feature, _GROUPS, axis=1)
  curves = np.stack([one.mean(axis=1) for one in parts], axis=1)
  return curves - ndimage.uniform_filter1d(curves, _SLOW, axis=0)


def _powers(
  curves: Float[np.ndarray, "frames groups"],
  begin: Int[np.ndarray, " shifts"],
  both: Int[np.ndarray, " shifts"],
) -> Float[np.ndarray, " shifts"]:
  """Returns the power of the part of a song that lies over the other one."""
  sums = np.append(0.0, np.cumsum((curves.astype(np.float64) ** 2).sum(axis=1)))
  return sums[begin + both] - sums[begin]


def _shifts(
  first: Float[np.ndarray, "frames bands"],
  second: Float[np.ndarray, "others bands"],
) -> Int[np.ndarray, " tried"]:
  """Returns the shifts at which groups of bands correlate best.

  They are such that the songs overlap by half of the shorter one at least.
  """
  mine, other = _curves(first), _curves(second)
  n, m = len(mine), len(other)
  size = scipy.fft.next_fast_len(n + m - 1, real=True)
  spectra = [scipy.fft.rfft(one, size, axis=0) for one in (mine, other)]
  products = (spectra[0] * np.conj(spectra[1])).sum(axis=1)
  shifts = np.arange(-min(m - 1, _MOST_SHIFT), min(n, _MOST_SHIFT))
  before, after = np.maximum(shifts, 0), np.maximum(-shifts, 0)
  both = np.minimum(n - before, m - after)
  powers = _powers(mine, before, both) * _powers(other, after, both)
  matches = scipy.fft.irfft(products, size)[shifts]
  matches = matches / np.sqrt(np.maximum(powers, 1e-12))
  matches[2 * both < min(n, m)] = -np.inf
  found = []
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

  It is one of the three at which eight groups of bands correlate best, up to
  20 s, where the songs overlap by half of the shorter one at least. Each band
  is taken without its mean over time, so that levels and equalisers do not
  count. The correlation is 0 if one of the songs does not change.
  """
  first, second = first.astype(np.float32), second.astype(np.float32)
  shifts = _shifts(first, second)
  found = (
    Alignment(_correlation(first, second, int(one)), int(one)) for one in shifts
  )
  return max(found, key=lambda one: one.correlation)
