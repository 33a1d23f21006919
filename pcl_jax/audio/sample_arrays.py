"""Samples in memory to the feature, as decode has it of a file."""

from collections.abc import Iterator
from typing import Any

from jaxtyping import Float16
import numpy as np

from pcl_jax.audio import containers
from pcl_jax.audio import decode
from pcl_jax.common import errors


def feature_blocks(
  samples: Any, sample_rate_hz: int | float | None
) -> Iterator[Float16[np.ndarray, "frames bands"]]:
  """Returns what `decode.feature_blocks` yields of a file with these samples.

  Args:
    samples: floating-point numbers of full scale 1, [samples] or [samples,
      channels], of which the mean over the channels is taken.
    sample_rate_hz: how many samples a second there are.

  Raises:
    InputError: they are not of this type or shape, none, too large or not
      finite; or the rate is missing or too low.
  """
  samples = _checked(np.asarray(samples), sample_rate_hz)
  size = decode.BLOCK_SAMPLES
  blocks = (
    containers.mean_of_channels(samples[i : i + size].astype(np.float32))
    for i in range(0, len(samples), size)
  )
  return decode.features_of(decode.resampled(blocks, sample_rate_hz))


def _checked(samples, sample_rate_hz):
  """Returns the samples as [samples, channels]."""
  if sample_rate_hz is None:
    raise errors.InputError(
      "samples were given without sample_rate_hz: give it, for example "
      "sample_rate_hz=44_100."
    )
  if not containers.LOWEST_RATE_HZ <= sample_rate_hz < np.inf:
    raise errors.InputError(
      f"sample_rate_hz is {sample_rate_hz}: give how many samples a second "
      f"there are, at least {containers.LOWEST_RATE_HZ}."
    )
  if not np.issubdtype(samples.dtype, np.floating):
    raise errors.InputError(
      f"the samples are of type {samples.dtype}: give floating-point numbers "
      "of full scale 1, for int16 by samples / 32768."
    )
  shape = samples.shape
  if samples.ndim not in (1, 2) or not samples.size:
    raise errors.InputError(
      f"the samples have shape {shape}: give [samples] or [samples, channels], "
      "with at least one sample."
    )
  if samples.ndim == 2 and shape[1] > shape[0]:
    raise errors.InputError(
      f"the samples have shape {shape}, more channels than samples: give "
      "[samples, channels], perhaps by samples.T."
    )
  most = containers.LARGEST_SAMPLE
  # Written so that NaN is refused.
  if not -most <= samples.min() <= samples.max() <= most:
    raise errors.InputError(
      f"some samples are not finite numbers, or beyond {most:g} where full "
      "scale is 1: leave them out, or scale them."
    )
  return samples.reshape(len(samples), -1)
