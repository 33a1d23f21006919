"""Tests of pcl_jax.audio.feature_augmentation, many by way of the audio."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcl_jax.audio import feature_augmentation
from pcl_jax.audio import melspectrogram

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROWS, FRAMES, BANDS = 8, 64, 48
SAMPLES = (FRAMES - 1) * 256
Strengths = feature_augmentation.Strengths
ALL_ON = Strengths(
  gain_db=6.0,
  slope_db=12.0,
  equaliser_db=4.0,
  noise_db=20.0,
  time_masks=2,
  time_mask_frames=16,
  band_masks=1,
  band_mask_bands=6,
  stretch=0.1,
)
_augment = jax.jit(feature_augmentation.augment, static_argnums=2)
_draw_noise = jax.jit(feature_augmentation.draw_noise, static_argnums=2)
_stretched = jax.jit(feature_augmentation.stretched)


@functools.cache
def _audio() -> np.ndarray:
  """Draws noise in bursts over a chord, one recording a row."""
  rng = np.random.default_rng(0)
  time_s = np.arange(SAMPLES) / 16_000
  noise = rng.standard_normal((ROWS, SAMPLES)) * (1.1 + np.sin(9 * time_s))
  pitches = rng.uniform(100, 4000, (ROWS, 3, 1))
  chords = np.sin(2 * np.pi * pitches * time_s).sum(axis=1)
  return (0.1 * noise + 0.1 * chords).astype(np.float32)


@functools.cache
def _patches() -> np.ndarray:
  return melspectrogram.log_mel(_audio())


@jax.jit
def _amplified(patches, gains_db):
  power = feature_augmentation.to_power(patches)
  return feature_augmentation.to_feature(
    feature_augmentation.amplified(power, gains_db)
  )


@pytest.mark.parametrize("gain_db", [-40.0, -6.0, 0.0, 12.0])
def test_a_gain_on_the_feature_is_that_gain_on_the_audio(gain_db):
  expected = melspectrogram.log_mel(_audio() * 10 ** (gain_db / 20))
  found = _amplified(_patches(), np.full((ROWS, BANDS), gain_db))
  np.testing.assert_allclose(found, expected, atol=2e-4)


def test_silence_stays_silence_at_any_gain():
  silence = np.full((ROWS, FRAMES, BANDS), melspectrogram.SILENCE)
  found = _amplified(silence, np.full((ROWS, BANDS), 60.0))
  np.testing.assert_allclose(found, -2.0, atol=1e-5)


def _band_hz() -> np.ndarray:
  """Returns the middle frequency of each band."""
  filters = melspectrogram.mel_filters()
  bins_hz = np.fft.rfftfreq(512, 1 / 16_000)
  return bins_hz @ filters / filters.sum(axis=0)


@pytest.mark.parametrize(
  "strengths",
  [
    pytest.param(Strengths(slope_db=20.0), marks=pytest.mark.long),
    Strengths(equaliser_db=4.0),
  ],
)
def test_gains_of_bands_are_those_of_a_filter_on_the_audio(strengths):
  gains_db = np.asarray(
    feature_augmentation.draw_gains_db(
      jax.random.key(0), ROWS, BANDS, strengths
    )
  )
  assert np.ptp(gains_db, axis=1).max() > 6
  hz = np.fft.rfftfreq(SAMPLES, 1 / 16_000)
  spectrum = np.fft.rfft(_audio())
  factors = [10 ** (np.interp(hz, _band_hz(), g) / 20) for g in gains_db]
  filtered = np.fft.irfft(spectrum * factors, SAMPLES).astype(np.float32)
  expected = melspectrogram.log_mel(filtered)
  error = np.abs(_amplified(_patches(), gains_db) - expected)
  # A band is not one frequency. A tenth is a decibel.
  assert np.median(error) < 0.02 and np.quantile(error, 0.99) < 0.2


@pytest.mark.long
def test_a_slope_is_linear_in_the_bands_and_a_gain_is_alike_in_all():
  draw = functools.partial(
    feature_augmentation.draw_gains_db, jax.random.key(1), 2_000, BANDS
  )
  slopes = np.asarray(draw(Strengths(slope_db=12.0)))
  np.testing.assert_allclose(np.diff(slopes, 2), 0.0, atol=1e-5)
  np.testing.assert_allclose(slopes.mean(axis=1), 0.0, atol=1e-5)
  ends = slopes[:, -1] - slopes[:, 0]
  assert -12 <= ends.min() < -11 and 11 < ends.max() <= 12
  levels = np.asarray(draw(Strengths(gain_db=6.0)))
  assert np.ptp(levels, axis=1).max() == 0
  assert -6 <= levels.min() < -5.9 and 5.9 < levels.max() <= 6
  curves = np.asarray(draw(Strengths(equaliser_db=4.0)))
  np.testing.assert_allclose(curves.std(), 4.0, rtol=0.05)
  np.testing.assert_allclose(curves.mean(axis=1), 0.0, atol=1e-4)


@pytest.mark.long
def test_noise_fills_a_range_of_bands_at_a_level_below_the_patch():
  power = jnp.full((200, 32, BANDS), 3.0)
  noise = np.asarray(_draw_noise(jax.random.key(0), power, 20.0))
  assert noise.min() >= 0
  inside = (noise > 0).any(axis=1)
  edges = np.abs(np.diff(inside.astype(int), axis=1)).sum(axis=1)
  assert {1, 2} <= set(edges) <= {0, 1, 2}  # One range.
  assert inside.sum(axis=1).min() >= 1
  means = noise.sum(axis=(1, 2)) / (32 * inside.sum(axis=1)) / 3.0
  below_db = -10 * np.log10(means)
  assert 18 < below_db.min() < 22 and 48 < below_db.max() < 52


@pytest.mark.long
def test_noise_varies_from_frame_to_frame_as_white_noise_does():
  rng = np.random.default_rng(0)
  real = melspectrogram.mel_power(rng.standard_normal(1_000_000))[2:-2]
  power = jnp.ones((64, 256, BANDS))
  noise = np.asarray(_draw_noise(jax.random.key(3), power, 0.0))
  scaled = noise / np.maximum(noise.mean(axis=1, keepdims=True), 1e-30)
  drawn = [
    scaled[:, :, band][noise[:, 0, band] > 0].std() for band in range(BANDS)
  ]
  expected = real.std(axis=0) / real.mean(axis=0)
  np.testing.assert_allclose(drawn[1:], expected[1:], rtol=0.1)


def test_gaps_are_where_and_as_wide_as_they_say():
  starts, widths = np.array([[0, 7], [5, 2]]), np.array([[2, 3], [0, 4]])
  found = feature_augmentation.in_gaps(
    jnp.asarray(starts), jnp.asarray(widths), 10
  )
  expected = [
    [1, 1, 0, 0, 0, 0, 0, 1, 1, 1],
    [0, 0, 1, 1, 1, 1, 0, 0, 0, 0],
  ]
  np.testing.assert_array_equal(found, np.array(expected, bool))


@pytest.mark.long
def test_drawn_gaps_have_every_width_up_to_the_largest_and_reach_both_ends():
  gaps = np.asarray(
    feature_augmentation.draw_gaps(jax.random.key(0), (3_000, 1), 12, 4)
  )
  assert set(gaps.sum(axis=1)) == {0, 1, 2, 3, 4}
  rises = np.diff(np.pad(gaps, ((0, 0), (1, 1))).astype(int), axis=1) > 0
  assert rises.sum(axis=1).max() == 1  # One piece.
  assert gaps[:, 0].any() and gaps[:, -1].any()


def test_a_patch_is_silent_in_its_gaps_and_nowhere_else():
  strengths = Strengths(
    time_masks=1, time_mask_frames=9, band_masks=1, band_mask_bands=5
  )
  found = np.asarray(_augment(jax.random.key(0), _patches(), strengths))
  changed = found != _patches()
  assert (found[changed] == melspectrogram.SILENCE).all()
  frames, bands = changed.all(axis=2), changed.all(axis=1)
  covered = frames[:, :, None] | bands[:, None, :]
  np.testing.assert_array_equal(changed, covered)
  assert 0 < frames.sum(axis=1).max() <= 9 and 0 < bands.sum(axis=1).max() <= 5


def test_the_same_tempo_changes_no_bit():
  found = _stretched(_patches(), jnp.ones(ROWS))
  np.testing.assert_array_equal(found, _patches())


@pytest.mark.parametrize("rate", [0.8, 0.95, 1.1])
def test_a_stretched_patch_is_read_at_the_other_tempo_from_its_middle(rate):
  middle = (FRAMES - 1) / 2
  places = middle + (np.arange(FRAMES) - middle) * rate
  places = np.where(places < 0, -places, places)
  last = FRAMES - 1
  places = np.where(places > last, 2 * last - places, places)
  expected = [
    [np.interp(places, np.arange(FRAMES), band) for band in patch.T]
    for patch in _patches()
  ]
  found = _stretched(_patches(), jnp.full(ROWS, rate))
  np.testing.assert_allclose(
    found, np.swapaxes(expected, 1, 2), rtol=1e-5, atol=1e-4
  )


def test_a_strength_of_0_is_left_out_and_without_any_nothing_changes():
  assert ALL_ON.is_on and not Strengths().is_on
  assert not Strengths(time_mask_frames=9, band_mask_bands=2).is_on
  found = _augment(jax.random.key(0), _patches(), Strengths())
  np.testing.assert_array_equal(found, _patches())


@pytest.mark.long
def test_each_patch_is_changed_by_strengths_of_its_own():
  same = np.repeat(_patches()[:1], ROWS, axis=0)
  first, again, other = (
    np.asarray(_augment(jax.random.key(seed), same, ALL_ON))
    for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(first, again)
  rows = np.concatenate([first, other, same[:1]])
  assert len(np.unique(rows, axis=0)) == 2 * ROWS + 1
  assert rows.min() == melspectrogram.SILENCE and np.isfinite(rows).all()


@pytest.mark.long
def test_a_batch_over_8_devices_is_changed_as_on_1():
  auto = (jax.sharding.AxisType.Auto,)
  mesh = jax.make_mesh((8,), ("data",), auto)
  split = jax.NamedSharding(mesh, jax.P("data"))
  patches = jax.device_put(_patches(), split)
  one = _augment(jax.random.key(5), _patches(), ALL_ON)
  eight = _augment(jax.random.key(5), patches, ALL_ON)
  np.testing.assert_allclose(eight, one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  "platform", ["cuda", pytest.param("tpu", marks=pytest.mark.long)]
)
def test_it_is_a_program_without_loops_for_accelerators(platform):
  shape = jax.ShapeDtypeStruct((ROWS, 256, BANDS), jnp.float32)
  traced = _augment.trace(jax.random.key(0), shape, ALL_ON)
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  assert "stablehlo.while" not in text and "f64" not in text
  assert "callback" not in text
