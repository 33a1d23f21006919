"""Features of songs, and the same as a codec leaves them."""

import numpy as np


def music(seed: int, frames: int = 600) -> np.ndarray:
  """A feature whose bands rise and fall, with a spectrum of its own."""
  rng = np.random.default_rng(seed)
  steps = rng.standard_normal((frames, 48)) + rng.standard_normal((frames, 1))
  smooth = np.apply_along_axis(np.convolve, 0, steps, np.ones(9) / 9, "same")
  return 2 + rng.uniform(0, 1, 48) + smooth


def coded(feature: np.ndarray) -> np.ndarray:
  """The same music, cut, quieter, with other bands and the noise of a codec."""
  rng = np.random.default_rng(99)
  noise = 0.05 * rng.standard_normal(feature[37:].shape)
  return feature[37:] - 0.4 + rng.uniform(-0.2, 0.2, 48) + noise
