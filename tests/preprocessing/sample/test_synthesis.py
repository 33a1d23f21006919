"""Tests of sample.synthesis: notes, tracks, the equaliser."""

import numpy as np

from preprocessing.sample import sample_styles
from preprocessing.sample import synthesis

HOLD = sample_styles.ENVELOPES["hold"]


def test_a_note_has_the_frequency_of_its_pitch():
  instrument = synthesis.Instrument((1.0, 0.5, 0.3), HOLD)
  wave = synthesis.note(instrument, 69, 1.0)
  spectrum = np.abs(np.fft.rfft(wave, synthesis.RATE_HZ))
  assert abs(int(np.argmax(spectrum)) - 440) <= 1


def test_a_note_has_no_harmonic_above_half_the_sample_rate():
  instrument = synthesis.Instrument((1.0,) * 20, HOLD)
  wave = synthesis.note(instrument, 93, 1.0)  # 1760 Hz: four harmonics fit.
  spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
  bins_hz = np.fft.rfftfreq(len(wave), 1.0 / synthesis.RATE_HZ)
  away = np.abs((bins_hz + 880.0) % 1760.0 - 880.0) > 60.0
  assert spectrum[away].sum() < 1e-3 * spectrum.sum()


def test_what_lies_outside_a_track_is_cut_off():
  track = np.zeros(10, np.float32)
  step_s = 1.0 / synthesis.RATE_HZ
  synthesis.add_at(track, np.ones(4, np.float32), -2 * step_s, 1.0)
  synthesis.add_at(track, np.ones(4, np.float32), 8 * step_s, 0.5)
  synthesis.add_at(track, np.ones(4, np.float32), 99 * step_s, 1.0)
  np.testing.assert_array_equal(track, [1, 1, 0, 0, 0, 0, 0, 0, 0.5, 0.5])


def test_the_equaliser_is_a_delay_free_filter_that_changes():
  """At the time of each gain, short bursts of noise have that gain."""
  rng = np.random.default_rng(3)
  gains_db = np.stack([synthesis.random_equaliser(4.0, rng) for _ in range(2)])
  bins_hz = np.linspace(0.0, synthesis.RATE_HZ / 2, gains_db.shape[1])
  noise = rng.standard_normal(15 * synthesis.RATE_HZ).astype(np.float32)
  actual = synthesis.filtered(noise, gains_db)
  assert actual.shape == noise.shape
  expected_db = [gains_db[0], gains_db[1], -gains_db[0]]
  for time_s, gain_db in zip((0.1, 5.1, 10.1), expected_db, strict=True):
    start = int(time_s * synthesis.RATE_HZ)
    burst = noise[start : start + 4_000]
    spectrum = np.fft.rfft(burst)
    at_hz = np.fft.rfftfreq(len(burst), 1.0 / synthesis.RATE_HZ)
    gain = 10.0 ** (np.interp(at_hz, bins_hz, gain_db) / 20.0)
    expected = np.fft.irfft(spectrum * gain)[1000:-1000]
    error = actual[start : start + 4_000][1000:-1000] - expected
    assert np.std(error) < 0.15 * np.std(expected), time_s
