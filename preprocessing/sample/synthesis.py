"""Sound of the sample: notes, drums, effects and mastering, at 16 kHz mono.

Notes are read from single-cycle wave tables whose harmonics stop below half
the sample rate.
"""

import dataclasses
import functools

import numpy as np

from pcl_jax.audio import melspectrogram
from preprocessing.sample import sample_styles

RATE_HZ = melspectrogram.SETTINGS.sample_rate_hz
_TABLE_SAMPLES = 2048
_FILTER_SAMPLES = 1024
_BLOCK_SAMPLES = 8192
_HIGHEST_HZ = 7_600.0
_CURVES = 6
_TURN_S = 10.0  # After it the equaliser is the opposite of what it was.


@dataclasses.dataclass(frozen=True)
class Instrument:
  """How a pitched instrument sounds."""

  harmonics: tuple[float, ...]  # Strength of harmonics 1, 2, ...
  envelope: sample_styles.Envelope
  vibrato_hz: float = 5.0
  vibrato_semitones: float = 0.0
  tremolo_hz: float = 5.0
  tremolo_depth: float = 0.0  # 0 to 1.


def pitch_hz(midi: float) -> float:
  """Returns the frequency of a pitch; 69 is 440 Hz, 12 an octave."""
  return 440.0 * 2.0 ** ((midi - 69.0) / 12.0)


@functools.lru_cache(maxsize=1024)
def _wave_table(
  harmonics: tuple[float, ...], count: int, darkness: float
) -> np.ndarray:
  """Returns a cycle of the first `count` harmonics, float32 [samples]."""
  number = np.arange(1, count + 1)
  strength = np.array(harmonics[:count]) * number**-darkness
  # Fixed phases spread the energy over the cycle; as sines it would peak.
  phase = 2.0 * np.pi * (0.618 * number**2 % 1.0)
  spectrum = np.zeros(_TABLE_SAMPLES // 2 + 1, np.complex128)
  spectrum[1 : count + 1] = strength * np.exp(1j * phase)
  wave = np.fft.irfft(spectrum / np.linalg.norm(strength), _TABLE_SAMPLES)
  return (wave * _TABLE_SAMPLES / 2).astype(np.float32)


def _level(envelope: sample_styles.Envelope, time_s: np.ndarray, held_s: float):
  """Returns the loudness of a note that is let go after `held_s`."""
  rise = np.minimum(time_s / envelope.attack_s, 1.0)
  fade = np.exp(-np.minimum(time_s, held_s) / envelope.decay_s)
  after = np.maximum(time_s - held_s, 0.0)
  return rise * fade * np.exp(-3.0 * after / envelope.release_s)


def note(
  instrument: Instrument, midi: float, held_s: float, *, darkness: float = 0.0
) -> np.ndarray:
  """Synthesises one note, with its release, float32 [samples].

  Args:
    instrument: the instrument that plays it.
    midi: pitch, 69 is 440 Hz.
    held_s: time until it is let go.
    darkness: harmonic k is weakened by k ** -darkness.
  """
  envelope = instrument.envelope
  held_s = max(held_s, envelope.attack_s)
  length_s = min(held_s, 4.0 * envelope.decay_s) + envelope.release_s
  time_s = np.arange(int(length_s * RATE_HZ)) / RATE_HZ
  hz = pitch_hz(midi)
  count = max(1, min(len(instrument.harmonics), int(_HIGHEST_HZ / hz)))
  table = _wave_table(instrument.harmonics, count, darkness)
  cycles = hz * time_s
  if instrument.vibrato_semitones:
    swing_hz = hz * (2.0 ** (instrument.vibrato_semitones / 12.0) - 1.0)
    turn = 2.0 * np.pi * instrument.vibrato_hz
    cycles += swing_hz / turn * np.sin(turn * time_s)
  index = (cycles * _TABLE_SAMPLES).astype(np.int32) & (_TABLE_SAMPLES - 1)
  time_s = time_s.astype(np.float32)
  wave = table[index] * _level(envelope, time_s, held_s)
  if instrument.tremolo_depth:
    swing = 0.5 + 0.5 * np.sin(2 * np.pi * instrument.tremolo_hz * time_s)
    wave *= 1.0 - instrument.tremolo_depth * swing
  return wave.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class DrumKit:
  """How drums sound; times in seconds, frequencies in Hz."""

  kick_hz: float
  kick_decay_s: float
  snare_hz: float
  snare_decay_s: float
  hat_decay_s: float
  ghost_hz: float
  ghost_decay_s: float


def _fading(decay_s: float) -> np.ndarray:
  return np.arange(int(5.0 * decay_s * RATE_HZ), dtype=np.float32) / RATE_HZ


def drum(kit: DrumKit, name: str, rng: np.random.Generator) -> np.ndarray:
  """Synthesises a stroke of a kick, snare, hat, ghost (pitched) or shaker."""
  decay_s = {
    "kick": kit.kick_decay_s,
    "snare": kit.snare_decay_s,
    "hat": kit.hat_decay_s,
    "ghost": kit.ghost_decay_s,
    "shaker": 0.03,
  }[name]
  time_s = _fading(decay_s)
  fade = np.exp(-time_s / decay_s)
  noise = rng.standard_normal(len(time_s), np.float32)
  if name == "kick":
    sweep = 3.0 * kit.kick_hz * 0.03 * (1.0 - np.exp(-time_s / 0.03))
    wave = np.sin(2 * np.pi * (kit.kick_hz * time_s + sweep))
    wave = 1.6 * wave + 0.4 * noise * np.exp(-time_s / 0.004)
  elif name == "snare":
    tone = np.sin(2 * np.pi * kit.snare_hz * time_s)
    wave = 0.6 * noise + 0.5 * tone * np.exp(-time_s / 0.05)
  elif name == "ghost":
    bend = kit.ghost_hz * (time_s + 0.01 * (1.0 - np.exp(-time_s / 0.02)))
    wave = 1.2 * np.sin(2 * np.pi * bend) + 0.15 * noise
  else:  # Noise without its low part.
    wave = 0.5 * np.diff(noise, prepend=np.float32(0.0))
  return (wave * fade).astype(np.float32)


def add_at(track: np.ndarray, sound: np.ndarray, time_s: float, level: float):
  """Adds a sound to a track in place; what lies outside is cut off."""
  start = round(time_s * RATE_HZ)
  first = max(0, -start)
  last = min(len(sound), len(track) - start)
  if first < last:
    track[start + first : start + last] += np.float32(level) * sound[first:last]


def random_equaliser(
  strength_db: float, rng: np.random.Generator
) -> np.ndarray:
  """Draws the gain of each frequency of a filter in dB, [bins].

  It is a smooth curve over the octaves from 40 Hz on, of standard deviation
  `strength_db`: cosines, the finest of which turns every 1.5 octaves.
  """
  bins_hz = np.fft.rfftfreq(_FILTER_SAMPLES, 1.0 / RATE_HZ)
  octaves = np.log2(np.maximum(bins_hz, 40.0) / 40.0)
  number = np.arange(_CURVES)[:, None]
  curves = np.cos(np.pi * number * octaves / octaves[-1])
  size = strength_db * np.sqrt(2.0 / _CURVES)
  return size * rng.standard_normal(_CURVES) @ curves


def filtered(mix: np.ndarray, gains_db: np.ndarray) -> np.ndarray:
  """Returns a recording through an equaliser that changes.

  Args:
    mix: the recording, [samples].
    gains_db: at its beginning and `_TURN_S` / 2 later, of each frequency of a
      filter, [2, bins]. Half a turn later each is the opposite, and so on.
  """
  half = _FILTER_SAMPLES // 2
  step = _BLOCK_SAMPLES - _FILTER_SAMPLES
  blocks = -(-len(mix) // step)
  angle = np.pi / _TURN_S * step / RATE_HZ * np.arange(blocks)[:, None]
  gain_db = np.cos(angle) * gains_db[0] + np.sin(angle) * gains_db[1]
  response = np.fft.irfft((10.0 ** (gain_db / 20.0)).astype(np.float32))
  response = np.roll(response, half, axis=1) * np.hanning(_FILTER_SAMPLES)
  padded = np.pad(mix, (0, blocks * step - len(mix))).reshape(blocks, step)
  spectrum = np.fft.rfft(padded, _BLOCK_SAMPLES)
  spectrum *= np.fft.rfft(response.astype(np.float32), _BLOCK_SAMPLES)
  parts = np.fft.irfft(spectrum, _BLOCK_SAMPLES)
  out = np.zeros((blocks + 1, step), np.float32)
  out[:-1] += parts[:, :step]
  out[1:, :_FILTER_SAMPLES] += parts[:, step:]  # Each block rings on.
  return out.reshape(-1)[half : half + len(mix)]


def master(
  mix: np.ndarray, strength_db: float, rng: np.random.Generator
) -> np.ndarray:
  """Gives a song an equaliser that changes, and a loudness, in [-1, 1]."""
  mix = filtered(
    mix, np.stack([random_equaliser(strength_db, rng) for _ in range(2)])
  )
  loudness = 10.0 ** rng.uniform(-0.85, -0.4)
  mix *= loudness / (np.sqrt(np.mean(mix**2)) + 1e-6)
  return np.tanh(mix).astype(np.float32)
