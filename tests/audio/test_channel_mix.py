"""Tests of pcl_jax.audio.channel_mix, and of files that are decoded with it."""

import numpy as np
import pytest
import soundfile

from pcl_jax.audio import channel_mix
from pcl_jax.audio import decode
from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors

RATE_HZ = 16_000


def _sound(seed: int, seconds: float = 5.0) -> np.ndarray:
  drawn = np.random.default_rng(seed).uniform(-0.3, 0.3, int(seconds * RATE_HZ))
  return drawn.astype(np.float32)


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_16", "PCM_U8"])
def test_a_file_gives_the_channels_that_are_asked_for(tmp_path, subtype):
  quiet, loud = 0.1 * _sound(0), _sound(1)
  path = tmp_path / "song.wav"
  rows = np.stack([quiet, loud, -0.9 * loud], axis=1)
  soundfile.write(path, rows, RATE_HZ, subtype=subtype)
  written, _ = soundfile.read(path, dtype="float32")
  for channels, expected in (
    ("mean", written.mean(axis=1)),
    ("left", written[:, 0]),
    ("loudest", written[:, 1]),
  ):
    found = np.concatenate(list(decode.audio_blocks(path, channels=channels)))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    part = decode.audio_blocks(path, 1.0, 2.0, channels=channels)
    np.testing.assert_allclose(
      np.concatenate(list(part)), expected[RATE_HZ : 2 * RATE_HZ], atol=1e-6
    )


def test_channels_that_cancel_are_silent_by_their_mean_only(tmp_path):
  path, sound = tmp_path / "song.flac", _sound(0)
  soundfile.write(path, np.stack([sound, -sound], axis=1), RATE_HZ)
  silent = {
    channels: melspectrogram.is_silent(
      decode.read_feature(path, channels=channels)
    )
    for channels in channel_mix.CHOICES
  }
  assert silent == {"mean": True, "left": False, "loudest": False}


def test_the_loudest_channel_is_that_of_all_blocks_the_first_of_equals():
  energies = channel_mix.Energies()
  blocks = [np.ones(10), 2 * np.ones(10)], [5 * np.ones(10), np.zeros(10)]
  for block in blocks:
    np.testing.assert_array_equal(energies(block), np.mean(block, axis=0))
  assert energies.loudest() == 0
  energies([np.zeros(10), 10 * np.ones(10)])
  assert energies.loudest() == 1
  equal = channel_mix.Energies()
  equal([np.ones(3), -np.ones(3)])
  assert equal.loudest() == 0


def test_other_channels_are_refused(tmp_path):
  path = tmp_path / "song.wav"
  soundfile.write(path, _sound(0), RATE_HZ)
  with pytest.raises(errors.InputError, match="channels is 'right'"):
    decode.read_feature(path, channels="right")
