"""Tests of pcl_jax.audio.melspectrogram."""

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from pcl_jax.audio import channel_mix
from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors

RECORDINGS = ("chirp", "silence", "trumpet", "sugar_plum")


@pytest.fixture(params=RECORDINGS)
def recording(request, golden_dir):
  """Samples, mel power and Melon's dB of a recording, measured."""
  with np.load(golden_dir / "melspectrogram.npz") as golden:
    pcm16 = golden[f"{request.param}/pcm16"]
    power = golden[f"{request.param}/mel_power"]
    db = golden[f"{request.param}/mel_db"]
  return pcm16.astype(np.float32) / 32768, power, db


def test_feature_agrees_with_the_data_sets_own(recording):
  samples, _, db = recording
  actual = melspectrogram.log_mel(samples)
  expected = np.log10(0.01 + 10 ** (db.T.astype(np.float64) / 20))
  assert actual.shape == expected.shape  # Frame counts are exact.
  assert actual.dtype == np.float32
  np.testing.assert_allclose(actual, expected, atol=1e-3, rtol=0)


def test_mel_power_agrees_with_the_data_sets_own(recording):
  samples, power, _ = recording
  actual = melspectrogram.mel_power(samples)
  np.testing.assert_allclose(actual, power.T, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("shape", [(1,), (50_000,), (2, 3, 700)])
def test_mel_power_has_the_bits_of_numpys_transform(shape, monkeypatch):
  samples = np.random.default_rng(len(shape)).normal(size=shape)
  found = melspectrogram.mel_power(samples)
  monkeypatch.setattr(
    melspectrogram.scipy.fft,
    "rfft",
    lambda windowed: np.fft.rfft(windowed.astype(np.float32)),
  )
  np.testing.assert_array_equal(melspectrogram.mel_power(samples), found)


def test_db_agrees_with_the_data_sets_own(recording):
  _, power, db = recording
  actual = melspectrogram.power_to_db(power)
  np.testing.assert_allclose(actual, db, atol=1e-3)


@settings(deadline=None)
@given(samples=st.integers(1, 5000))
def test_there_are_ceil_n_over_hop_plus_one_frames(samples):
  frames = melspectrogram.num_frames(samples)
  assert frames == int(np.ceil(samples / 256)) + 1
  audio = np.ones(samples, np.float32)
  assert melspectrogram.log_mel(audio).shape == (frames, 48)


@settings(deadline=None, max_examples=30)
@given(samples=st.integers(1, 9999), seed=st.integers(0, 99))
def test_a_frame_has_the_same_bits_however_many_follow(samples, seed):
  audio = np.random.default_rng(seed).normal(size=10_000).astype(np.float32)
  whole = melspectrogram.mel_power(audio)
  begun = melspectrogram.mel_power(audio[:samples])
  inside = samples // 256  # Frames whose samples are all there.
  np.testing.assert_array_equal(begun[:inside], whole[:inside])


def test_a_batch_equals_its_recordings_one_by_one():
  rng = np.random.default_rng(0)
  audio = rng.uniform(-1, 1, (2, 3, 3001)).astype(np.float32)
  together = melspectrogram.log_mel(audio)
  for i in np.ndindex(2, 3):
    np.testing.assert_allclose(
      together[i], melspectrogram.log_mel(audio[i]), rtol=0, atol=1e-5
    )


def test_silence_is_the_value_that_pads_short_songs():
  feature = melspectrogram.log_mel(np.zeros(1000, np.float32))
  np.testing.assert_array_equal(feature, melspectrogram.SILENCE)
  assert pytest.approx(-2) == melspectrogram.SILENCE


def test_filters_are_triangles_of_unit_area():
  filters = melspectrogram.mel_filters()
  bin_hz = 16_000 / 512
  # Wide triangles only: low ones are about as narrow as a bin.
  np.testing.assert_allclose(filters.sum(axis=0)[30:] * bin_hz, 1, atol=0.01)
  assert (filters >= 0).all() and (filters.max(axis=0) > 0).all()


def test_feature_of_db_is_the_formula():
  db = np.array([-200.0, -40.0, 0.0, 20.0, 60.0])
  expected = np.log10(0.01 + np.array([1e-10, 0.01, 1.0, 10.0, 1000.0]))
  np.testing.assert_allclose(
    melspectrogram.db_to_feature(db), expected, rtol=1e-5
  )


def test_equal_settings_are_accepted():
  for channels in channel_mix.CHOICES:
    found = melspectrogram.SETTINGS.as_dict(channels)
    melspectrogram.check_settings(found, "there")
    assert channel_mix.of(found) == channels
  with pytest.raises(errors.InputError, match="channels: there 'right'"):
    melspectrogram.check_settings(found | {"channels": "right"}, "there")


def test_other_settings_are_refused_with_both_values():
  found = melspectrogram.SETTINGS.as_dict() | {"mel_bands": 96, "pad": "edge"}
  del found["window"]
  with pytest.raises(errors.InputError) as caught:
    melspectrogram.check_settings(found, "data/x/songs.lmdb")
  message = str(caught.value)
  for part in (
    "data/x/songs.lmdb",
    "mel_bands: there 96, here 48",
    "pad: there 'edge', here None",
    "window: there None, here 'symmetric hann'",
  ):
    assert part in message
  assert "hop_samples" not in message
