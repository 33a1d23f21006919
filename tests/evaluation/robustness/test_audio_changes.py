"""Tests of pcl_jax.evaluation.robustness.audio_changes."""

import numpy as np
import pytest

from pcl_jax.evaluation.robustness import audio_changes

RATE_HZ = audio_changes.RATE_HZ


def _rng() -> np.random.Generator:
  return np.random.default_rng(0)


def _tone(hz: float, seconds: float = 2.0) -> np.ndarray:
  time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
  return (0.3 * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def _peak_hz(samples: np.ndarray) -> float:
  """Returns the strongest frequency, to a fraction of a bin."""
  middle = samples[len(samples) // 4 : -len(samples) // 4]
  strength = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 1 << 18))
  return float(strength.argmax() * RATE_HZ / (1 << 18))


def _level(samples: np.ndarray) -> float:
  return float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64))))


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
@pytest.mark.parametrize("samples", [32_000, 31_111])
def test_tempo_changes_the_length_and_neither_pitch_nor_level(factor, samples):
  tone = _tone(440)[:samples]
  found = audio_changes.tempo(tone, factor, _rng())
  assert len(found) == round(samples / factor)
  assert _peak_hz(found) == pytest.approx(440, rel=2e-3)
  middle = found[2000:-2000]
  assert _level(middle) == pytest.approx(_level(tone), abs=0.3)


def test_a_beat_comes_as_much_earlier_as_it_is_faster():
  clicks = np.zeros(4 * RATE_HZ, np.float32)
  clicks[[RATE_HZ, 3 * RATE_HZ]] = 1.0
  found = np.abs(audio_changes.tempo(clicks, 1.25, _rng()))
  for at in (RATE_HZ, 3 * RATE_HZ):
    near = found[int(at / 1.25) - 3000 : int(at / 1.25) + 3000]
    centre = (near * np.arange(6000)).sum() / near.sum()
    assert centre == pytest.approx(3000, abs=256)


@pytest.mark.parametrize("semitones", [-4, 1, 12])
def test_pitch_moves_the_peak_as_asked_and_not_the_length(semitones):
  tone = _tone(500)
  found = audio_changes.pitch(tone, semitones, _rng())
  assert len(found) == len(tone)
  assert _peak_hz(found) == pytest.approx(500 * 2 ** (semitones / 12), rel=2e-3)
  middle = found[2000:-2000]
  assert _level(middle) == pytest.approx(_level(tone), abs=0.5)


def test_no_change_of_tempo_gives_the_recording_back():
  rng = np.random.default_rng(1)
  samples = (0.1 * rng.standard_normal(20_000)).astype(np.float32)
  found = audio_changes.tempo(samples, 1.0, _rng())
  np.testing.assert_allclose(found[1000:-1000], samples[1000:-1000], atol=1e-4)


@pytest.mark.parametrize("kind", ["white_noise", "pink_noise"])
@pytest.mark.parametrize("snr_db", [0, 20])
def test_noise_is_as_far_below_the_recording_as_asked(kind, snr_db):
  tone = _tone(440)
  noise = getattr(audio_changes, kind)(tone, snr_db, _rng()) - tone
  assert _level(tone) - _level(noise) == pytest.approx(snr_db, abs=0.01)
  again = getattr(audio_changes, kind)(tone, snr_db, _rng()) - tone
  np.testing.assert_array_equal(again, noise)


def test_pink_noise_has_as_much_power_in_each_octave_and_white_twice_as_much():
  tone = _tone(440, seconds=20)
  bins_hz = np.fft.rfftfreq(len(tone), 1 / RATE_HZ)
  for kind, expected in (("white_noise", 2.0), ("pink_noise", 1.0)):
    noise = getattr(audio_changes, kind)(tone, 0, _rng()) - tone
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = [
      power[(bins_hz >= low) & (bins_hz < 2 * low)].sum()
      for low in (250, 500, 1000, 2000)
    ]
    ratios = np.divide(octaves[1:], octaves[:-1])
    np.testing.assert_allclose(ratios, expected, rtol=0.1)


def test_gain_and_silence():
  tone = _tone(440)
  assert _level(audio_changes.gain(tone, -6, _rng())) == pytest.approx(
    _level(tone) - 6
  )
  silence = np.zeros(5000, np.float32)
  for change in audio_changes.CHANGES:
    found = change.apply(silence, change.strengths[0], _rng())
    assert np.abs(found).max() < 1e-3, change.name


def test_a_low_pass_keeps_what_is_below_and_takes_what_is_above():
  for hz, lost in ((500, 0.0), (1000, 3.0), (2000, 48.0)):
    tone = _tone(hz)
    found = audio_changes.low_pass(tone, 1000, _rng())
    fallen = _level(tone) - _level(found[4000:])
    assert fallen == pytest.approx(lost, abs=0.3 if lost < 10 else 6)


@pytest.mark.skipif(not audio_changes.has_mp3(), reason="libsndfile lacks MP3")
def test_mp3_changes_less_the_more_bits_it_has_and_does_not_move():
  rng = np.random.default_rng(2)
  noise = np.convolve(rng.standard_normal(32_000), np.ones(8) / 8, "same")
  samples = (0.1 * noise).astype(np.float32)
  rest = [
    _level(audio_changes.mp3(samples, kbps, _rng()) - samples)
    for kbps in (16, 64)
  ]
  assert _level(samples) > rest[0] > rest[1] + 3


@pytest.mark.parametrize("samples", [1, 100, 1500])
def test_a_recording_may_be_shorter_than_a_window(samples):
  short = _tone(440)[:samples]
  for change in audio_changes.CHANGES:
    if change.name == "mp3":
      continue
    found = change.apply(short, change.strengths[-1], _rng())
    wanted = round(samples / 1.25) if change.name == "tempo" else samples
    assert found.shape == (max(wanted, 1),)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
