"""Sound of the sample: notes, drums, effects and mastering, at 16 kHz mono.

Notes are read from single-cycle wave tables whose harmonics stop below half
the sample rate, a bright and a dark table blended as the note fades.
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
_DARK = 1.3  # The dark table's harmonic k is the bright one's / k ** 1.3.


@dataclasses.dataclass(frozen=True)
class Instrument:
  """How a pitched instrument sounds."""

  harmonics: tuple[float, ...]  # Strength of harmonics 1, 2, ...
  envelope: sample_styles.Envelope
  dulling_s: float = 0.3  # Time until a note has lost most of its brightness.
  vibrato_hz: float = 5.0  # It sets in after 0.1 s.
  vibrato_semitones: float = 0.0
  tremolo_hz: float = 5.0
  tremolo_depth: float = 0.0  # 0 to 1.
  scoop_s: float = 0.08  # Time in which a sliding note reaches its pitch.


def pitch_hz(midi: float) -> float:
  """Returns the frequency of a pitch; 69 is 440 Hz, 12 an octave."""
  return 440.0 * 2.0 ** ((midi - 69.0) / 12.0)


@functools.lru_cache(maxsize=1024)
def _wave_tables(
  harmonics: tuple[float, ...], count: int, darkness: float
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the bright and the dark table of the first `count` harmonics."""
  number = np.arange(1, count + 1)
  strength = np.array(harmonics[:count]) * number**-darkness
  # Fixed phases spread the energy over the cycle; as sines it would peak.
  phase = 2.0 * np.pi * (0.618 * number**2 % 1.0)
  tables = []
  for amplitude in (strength, strength * number**-_DARK):
    amplitude = amplitude / np.sqrt(np.sum(amplitude**2))
    spectrum = np.zeros(_TABLE_SAMPLES // 2 + 1, np.complex128)
    spectrum[1 : count + 1] = amplitude * np.exp(1j * phase)
    wave = np.fft.irfft(spectrum, _TABLE_SAMPLES) * _TABLE_SAMPLES / 2
    tables.append(wave.astype(np.float32))
  return tables[0], tables[1]


def _level(envelope: sample_styles.Envelope, time_s: np.ndarray, held_s: float):
  """Returns the loudness of a note that is let go after `held_s`."""
  rise = np.minimum(time_s / envelope.attack_s, 1.0)
  fade = np.exp(-np.minimum(time_s, held_s) / envelope.decay_s)
  after = np.maximum(time_s - held_s, 0.0)
  return rise * fade * np.exp(-3.0 * after / envelope.release_s)


def _bend(
  instrument: Instrument, time_s: np.ndarray, held_s: float, slide: float
) -> np.ndarray:
  """Returns the factor on the frequency at each moment of a note."""
  if not instrument.vibrato_semitones and not slide:
    return np.ones_like(time_s)
  depth = instrument.vibrato_semitones * np.minimum(time_s / 0.1, 1.0)
  semitones = depth * np.sin(2 * np.pi * instrument.vibrato_hz * time_s)
  if slide > 0.0:
    semitones -= slide * np.exp(-time_s / instrument.scoop_s)
  else:
    late = np.clip((time_s / held_s - 0.4) / 0.6, 0.0, 1.0)
    semitones += slide * late**2
  return np.exp2(semitones / 12.0)


def note(
  instrument: Instrument,
  midi: float,
  held_s: float,
  *,
  darkness: float = 0.0,
  slide: float = 0.0,
) -> np.ndarray:
  """Synthesises one note, with its release, float32 [samples].

  Args:
    instrument: the instrument that plays it.
    midi: pitch, 69 is 440 Hz.
    held_s: time until it is let go.
    darkness: harmonic k is weakened by k ** -darkness.
    slide: semitones from below at the start, or, if negative, down at the end.
  """
  envelope = instrument.envelope
  held_s = max(held_s, envelope.attack_s)
  length_s = min(held_s, 4.0 * envelope.decay_s) + envelope.release_s
  time_s = np.arange(int(length_s * RATE_HZ), dtype=np.float32) / RATE_HZ
  count = int(_HIGHEST_HZ / pitch_hz(midi + abs(slide)))
  count = max(1, min(len(instrument.harmonics), count))
  bright, dark = _wave_tables(instrument.harmonics, count, darkness)
  bend = _bend(instrument, time_s, held_s, slide)
  cycles = np.cumsum(bend * (pitch_hz(midi) / RATE_HZ), dtype=np.float64)
  index = (cycles * _TABLE_SAMPLES).astype(np.int32) & (_TABLE_SAMPLES - 1)
  brightness = np.exp(-time_s / instrument.dulling_s)
  wave = dark[index] + brightness * (bright[index] - dark[index])
  if instrument.tremolo_depth:
    swing = 0.5 + 0.5 * np.sin(2 * np.pi * instrument.tremolo_hz * time_s)
    wave *= 1.0 - instrument.tremolo_depth * swing
  return (wave * _level(envelope, time_s, held_s)).astype(np.float32)


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


def echo(track: np.ndarray, delay_s: float, level: float) -> np.ndarray:
  """Returns a track with three echoes, each weaker by `level`."""
  out = track.copy()
  delay = round(delay_s * RATE_HZ)
  for i in range(1, 4):
    if i * delay < len(track):
      out[i * delay :] += np.float32(level**i) * track[: -i * delay]
  return out


def pump(
  track: np.ndarray, times_s: list[float], depth: float, width_s: float
) -> np.ndarray:
  """Returns a track that ducks at some times, as under a compressor."""
  dip = depth * np.exp(-_fading(width_s) / width_s).astype(np.float32)
  gain = np.zeros_like(track)
  for time_s in times_s:
    add_at(gain, dip, time_s, 1.0)
  return track * (1.0 - np.minimum(gain, 0.95))


def random_equaliser(
  bins_hz: np.ndarray, strength_db: float, rng: np.random.Generator
) -> np.ndarray:
  """Draws a broad equaliser: tilt, shelves and five wide bumps.

  Returns:
    The gain at each frequency `bins_hz`, float32 [bins]; `strength_db` is the
    standard deviation of each of its parts.
  """
  octave = np.log2(np.maximum(bins_hz, 40.0) / 600.0)
  tilt, low, high = strength_db * rng.standard_normal(3)
  gain_db = tilt * octave / 3.5
  gain_db += low / (1.0 + np.exp(3.0 * (octave + 1.7)))
  gain_db += high / (1.0 + np.exp(-3.0 * (octave - 2.3)))
  for _ in range(5):
    centre, width = rng.uniform(-3.0, 3.6), rng.uniform(0.4, 1.1)
    bump = np.exp(-0.5 * ((octave - centre) / width) ** 2)
    gain_db += strength_db * rng.standard_normal() * bump
  return (10.0 ** (gain_db / 20.0)).astype(np.float32)


def _filtered(
  mix: np.ndarray, strength_db: float, rng: np.random.Generator
) -> np.ndarray:
  """Returns a recording through a random equaliser, block by block."""
  bins_hz = np.fft.rfftfreq(_FILTER_SAMPLES, 1.0 / RATE_HZ)
  gain = random_equaliser(bins_hz, strength_db, rng)
  half = _FILTER_SAMPLES // 2
  response = np.roll(np.fft.irfft(gain), half) * np.hanning(_FILTER_SAMPLES)
  step = _BLOCK_SAMPLES - _FILTER_SAMPLES
  blocks = -(-len(mix) // step)
  padded = np.pad(mix, (0, blocks * step - len(mix))).reshape(blocks, step)
  spectrum = np.fft.rfft(padded, _BLOCK_SAMPLES)
  response = np.fft.rfft(response.astype(np.float32), _BLOCK_SAMPLES)
  parts = np.fft.irfft(spectrum * response, _BLOCK_SAMPLES)
  out = np.zeros((blocks + 1, step), np.float32)
  out[:-1] += parts[:, :step]
  out[1:, :_FILTER_SAMPLES] += parts[:, step:]  # Each block rings on.
  return out.reshape(-1)[half : half + len(mix)]


def master(
  mix: np.ndarray, strength_db: float, rng: np.random.Generator
) -> np.ndarray:
  """Gives a song its own equaliser, noise and loudness, in [-1, 1]."""
  loudness = 10.0 ** rng.uniform(-0.85, -0.4)
  noise = 10.0 ** rng.uniform(-2.6, -1.3)
  mix = mix / np.float32(np.sqrt(np.mean(mix**2)) + 1e-6)
  mix = mix + noise * rng.standard_normal(len(mix), np.float32)
  mix = _filtered(mix, strength_db, rng)
  mix *= loudness / (np.sqrt(np.mean(mix**2)) + 1e-6)
  return np.tanh(mix).astype(np.float32)
