"""Changes of a recording that leave it recognisable: gain, noise, ...

Each takes 16 kHz mono audio, a strength and a generator of random numbers, and
returns audio; none clips.
"""

from collections.abc import Callable
import dataclasses
import io

from jaxtyping import Float
import numpy as np
from scipy import signal
import soundfile
import soxr

from pcl_jax.audio import melspectrogram

RATE_HZ = melspectrogram.SETTINGS.sample_rate_hz
_WINDOW = 1024  # Samples of a frame when the tempo changes: 64 ms.
_HOP = 512
_REACH = 256  # Largest shift of a frame; a period of 62 Hz.
_FILTER_ORDER = 8
_LEAST_KBPS, _MOST_KBPS = 8, 160  # Rates of MP3 at 16 kHz.
_MP3_DELAY = 576 + 529  # Samples that encoder and decoder add.
_AUDIBLE_HZ = 20.0  # Pink noise is flat below.

Samples = Float[np.ndarray, " samples"]
Changed = Float[np.ndarray, " changed"]  # Of another length.
Strength = int | float


def gain(samples: Samples, db: Strength, rng: np.random.Generator) -> Samples:
  """Makes a recording louder by `db` decibels."""
  del rng
  return (samples * 10 ** (db / 20)).astype(np.float32)


def _add_noise(samples: Samples, noise: Samples, snr_db: Strength) -> Samples:
  power = np.mean(np.square(samples, dtype=np.float64))
  noise_power = np.mean(np.square(noise, dtype=np.float64))
  factor = np.sqrt(power / max(noise_power, 1e-30) * 10 ** (-snr_db / 10))
  return (samples + factor * noise).astype(np.float32)


def white_noise(
  samples: Samples, snr_db: Strength, rng: np.random.Generator
) -> Samples:
  """Adds white noise of `snr_db` decibels below the recording's mean power."""
  return _add_noise(samples, rng.standard_normal(len(samples)), snr_db)


def pink_noise(
  samples: Samples, snr_db: Strength, rng: np.random.Generator
) -> Samples:
  """Adds noise whose power falls by 3 dB an octave; `snr_db` as for white."""
  spectrum = np.fft.rfft(rng.standard_normal(len(samples)))
  frequency = np.fft.rfftfreq(len(samples), 1 / RATE_HZ)
  spectrum /= np.sqrt(np.maximum(frequency, _AUDIBLE_HZ))
  return _add_noise(samples, np.fft.irfft(spectrum, len(samples)), snr_db)


def low_pass(
  samples: Samples, cutoff_hz: Strength, rng: np.random.Generator
) -> Samples:
  """Removes frequencies above `cutoff_hz` (Butterworth, order 8)."""
  del rng
  sections = signal.butter(_FILTER_ORDER, cutoff_hz, fs=RATE_HZ, output="sos")
  return signal.sosfilt(sections, samples).astype(np.float32)


def _stretched(samples: Samples, factor: Strength) -> Changed:
  """Plays audio `factor` times as fast at the same pitch, by WSOLA.

  Overlapping frames are taken from the recording at `factor` times their
  distance, each shifted a little so that it continues the one before.

  References:
    Verhelst and Roelands, An Overlap-Add Technique Based on Waveform
    Similarity (WSOLA), ICASSP 1993.
  """
  wanted = max(round(len(samples) / factor), 1)
  count = -(-wanted // _HOP) + 1
  before = _HOP + _REACH
  after = round(_HOP * factor) + 2 * _WINDOW + _REACH
  padded = np.pad(samples.astype(np.float32), (before, after))
  energy = np.cumsum(np.append(0.0, np.square(padded, dtype=np.float64)))
  window = signal.get_window("hann", _WINDOW)
  out = np.zeros((count + 1) * _HOP)
  taken = _REACH  # Frame 0 is centred at sample 0.
  for frame in range(count):
    centre = round(_REACH + frame * _HOP * factor)
    if frame:
      goes_on = padded[taken + _HOP : taken + _HOP + _WINDOW]
      taken = centre + _best_shift(padded, energy, centre, goes_on)
    piece = padded[taken : taken + _WINDOW]
    out[frame * _HOP : frame * _HOP + _WINDOW] += window * piece
  return out[_HOP : _HOP + wanted].astype(np.float32)


def _best_shift(
  padded: np.ndarray, energy: np.ndarray, centre: int, goes_on: np.ndarray
) -> int:
  """Returns the shift of a frame; 0 where nothing is similar."""
  size = _WINDOW + 2 * _REACH
  region = padded[centre - _REACH : centre - _REACH + size]
  spectrum = np.fft.rfft(region, size) * np.conj(np.fft.rfft(goes_on, size))
  alike = np.fft.irfft(spectrum, size)[: 2 * _REACH + 1]
  begins = np.arange(centre - _REACH, centre + _REACH + 1)
  strength = energy[begins + _WINDOW] - energy[begins]
  alike = alike / np.sqrt(np.maximum(strength, 1e-12))
  if alike.max() <= 1e-9:
    return 0
  return int(alike.argmax()) - _REACH


def tempo(
  samples: Samples, factor: Strength, rng: np.random.Generator
) -> Changed:
  """Plays `factor` times as fast; the pitch stays.

  Returns:
    Audio, float32 [round(samples / factor)].
  """
  del rng
  return _stretched(samples, factor)


def pitch(
  samples: Samples, semitones: Strength, rng: np.random.Generator
) -> Samples:
  """Moves the pitch up by `semitones`; the length stays."""
  del rng
  ratio = 2 ** (semitones / 12)
  slower = _stretched(samples, 1 / ratio)
  moved = soxr.resample(slower, RATE_HZ * ratio, RATE_HZ)
  out = np.zeros(len(samples), np.float32)
  out[: len(moved)] = moved[: len(out)]
  return out


def has_mp3() -> bool:
  """Returns whether this libsndfile writes MP3."""
  return "MP3" in soundfile.available_formats()


def mp3(samples: Samples, kbps: Strength, rng: np.random.Generator) -> Samples:
  """Encodes as MP3 of a constant rate, by libsndfile, and decodes it again."""
  del rng
  level = (_MOST_KBPS - kbps) / (_MOST_KBPS - _LEAST_KBPS)
  file = io.BytesIO()
  soundfile.write(
    file,
    np.clip(samples, -1, 1),
    RATE_HZ,
    format="MP3",
    compression_level=level,
    bitrate_mode="CONSTANT",
  )
  file.seek(0)
  decoded, _ = soundfile.read(file, dtype="float32")
  if len(decoded) > len(samples):  # Low rates have no room to note the delay.
    decoded = decoded[_MP3_DELAY:]
  out = np.zeros(len(samples), np.float32)
  out[: len(decoded)] = decoded[: len(out)]
  return out


@dataclasses.dataclass(frozen=True)
class Change:
  """A kind of change and its strengths.

  Attributes:
    name: name of the kind.
    unit: unit of the strengths.
    apply: (samples, strength, generator) -> samples.
    strengths: the strengths to try, ascending.
  """

  name: str
  unit: str
  apply: Callable[..., Changed]
  strengths: tuple[Strength, ...]


CHANGES = (
  Change("gain", "dB", gain, (-20, -12, -6, -3, 3, 6, 12)),
  Change("white noise", "dB SNR", white_noise, (0, 10, 20, 30, 40)),
  Change("pink noise", "dB SNR", pink_noise, (0, 10, 20, 30, 40)),
  Change("low-pass", "Hz", low_pass, (500, 1000, 2000, 4000, 6000)),
  Change("tempo", "times", tempo, (0.8, 0.9, 0.95, 1.05, 1.1, 1.25)),
  Change("pitch", "semitones", pitch, (-4, -2, -1, 1, 2, 4)),
  Change("mp3", "kbit/s", mp3, (16, 32, 64)),
)
