"""Tests of pcl_jax.audio.traced_feature against the feature in numpy."""

import functools

import jax
import numpy as np
import pytest

from pcl_jax.audio import melspectrogram
from pcl_jax.audio import traced_feature

_RATE_HZ = 16_000
_time_s = np.arange(20_000) / _RATE_HZ
_noise = np.random.default_rng(0).normal(size=len(_time_s))
_log_mel = jax.jit(traced_feature.log_mel)


@functools.cache
def _sounds() -> np.ndarray:
  """Audio up to full scale, some of it hard: what is weak beside a loud tone.

  [sounds, samples], float32.
  """
  tones = [np.sin(2 * np.pi * hz * _time_s) for hz in (50.0, 440.0, 3_000.0)]
  found = [np.clip(0.3 * _noise, -1, 1), 1e-3 * _noise, 0.0 * _noise]
  for tone in tones:
    found += [tone, np.sign(tone)]
    found += [0.97 * tone + level * _noise for level in (1e-4, 1e-3, 5e-3)]
  found.append(0.95 + 0.01 * _noise)
  return np.array(found, np.float32)


@pytest.mark.parametrize("power", ["_power_by_fft", "_power_by_products"])
def test_the_feature_is_that_of_numpy(power, monkeypatch):
  """Products are what a TPU computes; here they are asked for."""
  sounds = _sounds()
  assert np.abs(sounds).max() <= 1.0
  monkeypatch.setattr(
    traced_feature.lax,
    "platform_dependent",
    lambda frames, **_: getattr(traced_feature, power)(frames),
  )
  found = np.asarray(jax.jit(lambda x: traced_feature.log_mel(x))(sounds))
  expected = melspectrogram.log_mel(sounds)
  assert found.dtype == np.float32 and found.shape == expected.shape
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["chirp", "silence", "trumpet", "sugar_plum"])
def test_the_feature_agrees_with_the_data_sets_own(name, golden_dir):
  with np.load(golden_dir / "melspectrogram.npz") as golden:
    samples = golden[f"{name}/pcm16"].astype(np.float32) / 32_768
    db = golden[f"{name}/mel_db"].astype(np.float64)
  found = np.asarray(_log_mel(samples))
  expected = np.log10(0.01 + 10 ** (db.T / 20))
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
  ours = melspectrogram.log_mel(samples)
  np.testing.assert_allclose(found, ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [1, 255, 256, 257, 513])
def test_there_are_as_many_frames_and_they_end_alike(count):
  samples = _sounds()[:2, :count]
  found = np.asarray(_log_mel(samples))
  expected = melspectrogram.log_mel(samples)
  assert found.shape == expected.shape
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_silence_is_exactly_the_value_of_silence():
  found = np.asarray(_log_mel(np.zeros((1, 700), np.float32)))
  np.testing.assert_array_equal(found, melspectrogram.SILENCE)


def test_a_part_gives_the_frames_of_the_whole():
  sounds = _sounds()
  whole = np.asarray(_log_mel(sounds))
  part = sounds[:, 512 : 512 + 2560]
  found = np.asarray(jax.jit(traced_feature.inner_log_mel)(part))
  np.testing.assert_allclose(found, whole[:, 3:12], rtol=0, atol=2e-6)
