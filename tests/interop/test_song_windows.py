"""Tests of windows over a recording."""

import numpy as np
import pytest

import pcl_jax
from pcl_jax.audio import decode
from pcl_jax.audio import song_patches
from pcl_jax.interop import song_windows
from pcl_jax.models import compiled_encoder

RATE_HZ = 16_000
PATCH_S = song_patches.SECONDS


def noise(seconds: float) -> np.ndarray:
  samples = np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE_HZ))
  return samples.astype(np.float32)


def cut(samples, **windows):
  """Returns a function of an encoder: vectors and weights."""
  return lambda one: song_windows.Windows(**windows).embed(
    one, samples, RATE_HZ
  )


@pytest.mark.parametrize("seconds", [1.0, PATCH_S, 13.0, 50.0])
def test_without_arguments_windows_are_the_patches_of_the_paper(
  quick_encoder, seconds
):
  samples = noise(seconds)
  vectors, weights = cut(samples)(quick_encoder)
  expected = quick_encoder.embed(
    samples, sample_rate_hz=RATE_HZ, per_patch=True, batch_patches=8
  )
  np.testing.assert_array_equal(vectors, expected.vectors)
  assert len(weights) == 1 or (weights == 1.0).all()


def test_the_last_window_counts_by_its_length(quick_encoder):
  samples = noise(10.0)  # 625 frames: two patches and 113.
  vectors, weights = cut(samples, tail="weight")(quick_encoder)
  np.testing.assert_allclose(weights, [1.0, 1.0, 113 / 256])
  feature = np.concatenate(list(decode.sample_blocks(samples, RATE_HZ)))
  patches = song_patches.cut(feature[512:]).patches
  expected = compiled_encoder.make_embedder(quick_encoder.network)(patches)
  np.testing.assert_allclose(vectors[2:], expected, rtol=1e-5)


@pytest.mark.parametrize("seconds", [0.5, 4.08, PATCH_S, 4.2, 9.0, 30.0])
def test_weighted_windows_end_to_end_are_as_long_as_the_sound(
  quick_encoder, seconds
):
  _, weights = cut(noise(seconds), tail="weight")(quick_encoder)
  assert weights.sum() * PATCH_S == pytest.approx(seconds, abs=0.017)
  assert (weights > 0).all()


def test_a_hop_lays_windows_over_one_another(quick_encoder):
  samples = noise(13.0)
  dense, _ = cut(samples, hop_s=PATCH_S / 2)(quick_encoder)
  whole, _ = cut(samples)(quick_encoder)
  assert len(dense) == 5
  np.testing.assert_allclose(dense[::2], whole, rtol=1e-5)
  _, weights = cut(samples, hop_s=PATCH_S / 2, tail="weight")(quick_encoder)
  assert len(weights) == 6 and 0.5 < weights[5] < 1.0


def test_long_windows_are_means_of_patches_and_short_ones_are_padded(
  quick_encoder,
):
  samples = noise(13.0)
  patches, _ = cut(samples)(quick_encoder)
  long, _ = cut(samples, window_s=2 * PATCH_S)(quick_encoder)
  np.testing.assert_allclose(long[0], patches[:2].mean(0), rtol=1e-5)
  short, _ = cut(samples, window_s=1.024)(quick_encoder)
  assert len(short) == 12
  feature = np.concatenate(list(decode.sample_blocks(samples, RATE_HZ)))
  expected = compiled_encoder.make_embedder(quick_encoder.network)(
    song_patches.cut(feature[64:128]).patches
  )
  np.testing.assert_allclose(short[1:2], expected, rtol=1e-5)


@pytest.mark.parametrize(
  "windows, message",
  [
    ({"tail": "pad"}, "tail is 'pad': give one of drop, weight"),
    ({"layer": "mean"}, "layer is 'mean'"),
    ({"window_s": 0.0}, "window_s is 0.0 and hop_s 0.0: .*0.016"),
    ({"hop_s": float("nan")}, "hop_s nan"),
    ({"batch_patches": 0}, "batch_patches is 0"),
  ],
)
def test_what_windows_cannot_be_is_refused(quick_encoder, windows, message):
  with pytest.raises(pcl_jax.InputError, match=message):
    cut(noise(1.0), **windows)(quick_encoder)
