"""The feature of `melspectrogram` in jax.numpy, for programs from samples on.

Its constants are that module's. It computes in single precision, since TPUs
have no other: of audio up to full scale, features differ from that module's
by at most 3e-6, wherever that was measured (on a CPU), and of audio ten times
as loud by 2e-5.
"""

from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from pcl_jax.audio import melspectrogram

_HOP = melspectrogram.SETTINGS.hop_samples
_FRAME = melspectrogram.SETTINGS.frame_samples


def log_mel(
  samples: Float[Array, "*batch n"],
) -> Float[Array, "*batch frames bands"]:
  """Computes the feature, log10(0.01 + mel power), of 16 kHz audio.

  Args:
    samples: audio in [-1, 1] at 16 kHz, [..., samples]; at least one sample.

  Returns:
    Feature, float32 [..., ceil(samples / 256) + 1, 48], -2 for silence.
  """
  count = samples.shape[-1]
  after = melspectrogram.num_frames(count) * _HOP - count
  pad = [(0, 0)] * (samples.ndim - 1) + [(_HOP, after)]
  return inner_log_mel(jnp.pad(samples, pad))


def inner_log_mel(
  samples: Float[Array, "*batch n"],
) -> Float[Array, "*batch frames bands"]:
  """Computes the feature of the frames that lie in a part of a recording.

  Args:
    samples: as `log_mel` has them, [..., 256 * (frames + 1)]; they begin 256
      samples before the centre of the first frame.

  Returns:
    Feature, float32 [..., frames, 48].
  """
  hops = samples.astype(jnp.float32).reshape(*samples.shape[:-1], -1, _HOP)
  # A frame is two hops long.
  frames = jnp.concatenate([hops[..., :-1, :], hops[..., 1:, :]], axis=-1)
  window = melspectrogram.window().reshape((1,) * (frames.ndim - 1) + (-1,))
  # A TPU's FFT takes no precision, and is not known to have that of float32.
  power = lax.platform_dependent(
    frames * window, tpu=_power_by_products, default=_power_by_fft
  )
  bands = _product(power, melspectrogram.mel_filters())
  feature = jnp.log10(melspectrogram.POWER_OFFSET + bands)
  return jnp.maximum(feature, melspectrogram.SILENCE)


def _power_by_fft(
  frames: Float[Array, "*batch n"],
) -> Float[Array, "*batch bins"]:
  spectrum = jnp.fft.rfft(frames)
  return spectrum.real**2 + spectrum.imag**2


def _power_by_products(
  frames: Float[Array, "*batch n"],
) -> Float[Array, "*batch bins"]:
  """Returns the power spectrum by two matrix products of full precision."""
  half = _FRAME // 2
  angles = 2 * np.pi / _FRAME * np.outer(np.arange(half + 1), range(half + 1))
  cosines, sines = np.cos(angles), np.sin(angles)
  # Cosines are even and sines odd, so that frames are folded to half of them.
  first, last = frames[..., 1:half], frames[..., :half:-1]
  ends = frames[..., :1], frames[..., half : half + 1]
  even = jnp.concatenate([ends[0], first + last, ends[1]], axis=-1)
  real = _product(even, cosines.astype(np.float32))
  imaginary = _product(first - last, sines[1:half].astype(np.float32))
  return real**2 + imaginary**2


def _product(rows: Array, matrix: np.ndarray) -> Array:
  return jnp.matmul(rows, matrix, precision=lax.Precision.HIGHEST)
