"""Audio to log-mel feature: the one definition the project has.

The numbers are those of the Melon Playlist Dataset: 16 kHz mono, frames of 512
samples every 256, the first centred at sample 0 with zeros outside; symmetric
Hann window; power spectrum; 48 Slaney mel bands of unit area from 0 to 8 kHz.
"""

import dataclasses
import functools
from typing import Any

from jaxtyping import Float, Float16, Num
import numpy as np
import scipy.fft

from pcl_jax.audio import channel_mix
from pcl_jax.common import errors
from pcl_jax.common import storage


@dataclasses.dataclass(frozen=True)
class MelSettings:
  """Settings of the feature; they travel with song stores and checkpoints."""

  sample_rate_hz: int = 16_000
  frame_samples: int = 512
  hop_samples: int = 256
  mel_bands: int = 48
  low_hz: float = 0.0
  high_hz: float = 8_000.0
  window: str = "symmetric hann"
  mel_scale: str = "slaney, unit area"
  stored_as: str = "log10(0.01 + mel power)"

  def as_dict(self, channels: str = channel_mix.MEAN) -> dict[str, Any]:
    """Returns plain values, fit for json.

    What is taken of several channels is named unless it is the mean, which
    features of earlier versions are of.
    """
    said = {} if channels == channel_mix.MEAN else {"channels": channels}
    return dataclasses.asdict(self) | said


SETTINGS = MelSettings()
POWER_OFFSET = 0.01  # Added to the mel power before the logarithm.
SILENCE = np.float32(np.log10(POWER_OFFSET))  # The feature of digital silence.
_DB_FLOOR = -200.0
_POWER_FLOOR = 1e-10
_ROWS = 16  # Of one matrix product.
_FRAMES = 128  # That are transformed at a time.


def check_settings(found: dict[str, Any], where: str) -> None:
  """Refuses a feature made with other settings than this code's.

  Of several channels, any choice of `channel_mix.CHOICES` is accepted.

  Args:
    found: settings read from a song store or a checkpoint.
    where: the file they were read from, for the message.

  Raises:
    InputError: with every differing setting and both values.
  """
  channels = channel_mix.of(found)
  if channels not in channel_mix.CHOICES:
    channels = channel_mix.MEAN
  differing = storage.differences(found, SETTINGS.as_dict(channels))
  if differing:
    raise errors.InputError(
      f"{where} holds a feature of other settings ({'; '.join(differing)}). "
      "Features of different settings cannot be mixed: make the song store "
      "again with this version, or use the version that made it."
    )


def is_silent(feature: Float16[np.ndarray, "*shape"]) -> bool:
  """Returns whether a stored feature is that of silence throughout."""
  silence = np.float16(SILENCE).view(np.uint16)
  # Bits are compared many times as fast as halves.
  return bool((feature.view(np.uint16) == silence).all())


def num_frames(num_samples: int) -> int:
  """Returns the number of frames of a recording, ceil(n / hop) + 1."""
  return -(-num_samples // SETTINGS.hop_samples) + 1


def _hz_to_slaney(hz: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
  """Slaney's mel scale: linear to 1 kHz (15 mel), logarithmic above."""
  logarithmic = 15.0 + 27.0 * np.log(np.maximum(hz, 1e-9) / 1e3) / np.log(6.4)
  return np.where(hz < 1e3, hz * 3.0 / 200.0, logarithmic)


def _slaney_to_hz(mel: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
  logarithmic = 1e3 * np.exp((mel - 15.0) * np.log(6.4) / 27.0)
  return np.where(mel < 15.0, mel * 200.0 / 3.0, logarithmic)


@functools.cache
def mel_filters(
  bands: int = SETTINGS.mel_bands,
) -> Float[np.ndarray, "bins bands"]:
  """Returns the mel filter bank, [257, bands], triangles of unit area in Hz.

  It is float32, and the caller leaves it as it is.
  """
  s = SETTINGS
  ends = _hz_to_slaney(np.array([s.low_hz, s.high_hz]))
  corners = _slaney_to_hz(np.linspace(ends[0], ends[1], bands + 2))
  bins_hz = np.fft.rfftfreq(s.frame_samples, 1.0 / s.sample_rate_hz)[:, None]
  low, centre, high = corners[:-2], corners[1:-1], corners[2:]
  rising = (bins_hz - low[None]) / (centre - low)[None]
  falling = (high[None] - bins_hz) / (high - centre)[None]
  triangles = np.maximum(0.0, np.minimum(rising, falling))
  return (triangles * (2.0 / (high - low))[None]).astype(np.float32)


@functools.cache
def window() -> Float[np.ndarray, " n"]:
  """Returns the window of a frame, [512], float32, not to be changed."""
  return np.hanning(SETTINGS.frame_samples).astype(np.float32)


def _to_bands(
  power: Float[np.ndarray, "*batch bins"],
) -> Float[np.ndarray, "*batch bands"]:
  """Returns power @ mel_filters(), computed by the calling thread alone."""
  # Larger products wake the threads of numpy's matrix library, which then spin
  # on cores that others compute on.
  filters = mel_filters()
  rows = power.reshape(-1, len(filters))
  slabs = np.zeros((-(-len(rows) // _ROWS), _ROWS, len(filters)), np.float32)
  slabs.reshape(-1, len(filters))[: len(rows)] = rows
  bands = (slabs @ filters).reshape(-1, filters.shape[1])[: len(rows)]
  return bands.reshape(*power.shape[:-1], filters.shape[1])


def _power(
  windows: Float[np.ndarray, "*batch frames n"],
) -> Float[np.ndarray, "*batch frames bins"]:
  """Returns the power spectrum of frames that are not windowed yet."""
  shape = (*windows.shape[:-1], windows.shape[-1] // 2 + 1)
  power = np.empty(shape, np.float32)
  # The bits of numpy's transform in a third of its time: several frames at a
  # time, and no more than the cache holds.
  for begin in range(0, shape[-2], _FRAMES):
    some = np.s_[..., begin : begin + _FRAMES, :]
    windowed = (windows[some] * window()).astype(np.float64)
    spectrum = scipy.fft.rfft(windowed).astype(np.complex64)
    power[some] = spectrum.real**2 + spectrum.imag**2
  return power


def mel_power(
  samples: Float[np.ndarray, "*batch n"],
) -> Float[np.ndarray, "*batch frames bands"]:
  """Computes mel power, [..., frames, 48]; see `log_mel`."""
  s = SETTINGS
  half = s.frame_samples // 2
  frames = num_frames(samples.shape[-1])
  padded_samples = (frames - 1) * s.hop_samples + s.frame_samples
  after = padded_samples - half - samples.shape[-1]
  pad = [(0, 0)] * (samples.ndim - 1) + [(half, after)]
  padded = np.pad(samples.astype(np.float32), pad)
  windows = np.lib.stride_tricks.sliding_window_view(
    padded, s.frame_samples, axis=-1
  )[..., :: s.hop_samples, :]
  return _to_bands(_power(windows))


def power_to_db(power: Num[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
  """Returns 20 log10(power), and -200 below 1e-10: what Melon's files hold."""
  db = 20.0 * np.log10(np.maximum(power, _POWER_FLOOR))
  return np.where(power < _POWER_FLOOR, _DB_FLOOR, db).astype(np.float32)


def db_to_feature(db: Num[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
  """Returns log10(0.01 + power) of values in Melon's dB (20 log10 of power)."""
  power = np.power(10.0, np.asarray(db, np.float32) / 20.0, dtype=np.float32)
  feature = np.log10(POWER_OFFSET + power).astype(np.float32)
  # Some processors' logarithm ends one rounding below that of silence.
  return np.maximum(feature, SILENCE)


def log_mel(
  samples: Float[np.ndarray, "*batch n"],
) -> Float[np.ndarray, "*batch frames bands"]:
  """Computes the stored feature, log10(0.01 + mel power), of 16 kHz audio.

  Args:
    samples: audio in [-1, 1] at 16 kHz, [..., samples]; at least one sample.

  Returns:
    Feature, float32 [..., ceil(samples / 256) + 1, 48], -2 for silence.
  """
  # Through dB, as the data set's own files go: powers under 1e-10 are floored.
  return db_to_feature(power_to_db(mel_power(samples)))
