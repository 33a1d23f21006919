"""Tests of pcl_jax.audio.decode."""

import os
import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr

from pcl_jax.audio import containers
from pcl_jax.audio import decode
from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from tests.support.audio_files import encoded_audio

RATE_HZ = 16_000


def _tone(rate_hz, seconds=1.0, hz=440.0, level=0.5):
  time_s = np.arange(round(rate_hz * seconds)) / rate_hz
  return (level * np.sin(2 * np.pi * hz * time_s)).astype(np.float32)


def _write(path, audio, rate_hz=RATE_HZ, **kwargs):
  soundfile.write(path, audio, rate_hz, **kwargs)
  return path


def _peak_hz(audio):
  spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
  return spectrum.argmax() * RATE_HZ / len(audio)


@pytest.mark.parametrize("rate_hz", [8000, 22050, 44100, 48000, 96000, 7919])
def test_resampling_keeps_frequency_level_and_length(tmp_path, rate_hz):
  tone = _tone(rate_hz, seconds=1.5)
  path = _write(tmp_path / "a.wav", tone, rate_hz, subtype="FLOAT")
  audio = encoded_audio.read(path)
  assert abs(len(audio) - 1.5 * RATE_HZ) <= 1
  assert abs(_peak_hz(audio) - 440.0) < 1.0
  inner = audio[2000:-2000]
  exact = _tone(RATE_HZ, seconds=1.5)[: len(audio)][2000:-2000]
  np.testing.assert_allclose(inner, exact, atol=1e-3)


def test_audio_above_the_new_nyquist_frequency_is_removed(tmp_path):
  path = _write(tmp_path / "a.wav", _tone(48000, hz=12_000), 48000)
  assert np.abs(encoded_audio.read(path)[1000:-1000]).max() < 1e-4


@pytest.mark.parametrize(
  "suffix, kwargs, atol",
  [
    ("wav", {"subtype": "FLOAT"}, 0.0),
    ("flac", {"subtype": "PCM_24"}, 1e-6),
    ("aiff", {"subtype": "PCM_16"}, 1e-4),
    ("ogg", {}, 0.02),
    ("mp3", {}, 0.02),
    # Decoded at 48 kHz; resampling moves it by half a sample.
    ("opus", {"format": "OGG", "subtype": "OPUS"}, 0.08),
  ],
)
def test_every_format_is_read(tmp_path, suffix, kwargs, atol):
  tone = _tone(RATE_HZ)
  path = _write(tmp_path / f"a.{suffix}", tone, **kwargs)
  audio = encoded_audio.read(path)
  # The end of the one page of a Vorbis second is not cut to the sample.
  assert 0 <= len(audio) - len(tone) <= (128 if suffix == "ogg" else 0)
  audio = audio[: len(tone)]
  np.testing.assert_allclose(audio[999:-999], tone[999:-999], atol=atol)


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_are_averaged(tmp_path, channels):
  rng = np.random.default_rng(channels)
  audio = rng.uniform(-1, 1, (5000, channels)).astype(np.float32)
  path = _write(tmp_path / "a.wav", audio, subtype="FLOAT")
  expected = audio.mean(axis=1)
  np.testing.assert_allclose(encoded_audio.read(path), expected, atol=1e-6)


@pytest.mark.parametrize("channels", [7, 8, 9, 29])
def test_planes_of_many_channels_are_averaged(tmp_path, channels):
  """Whose list PyAV does not end, which has ended the process."""
  tones = [_tone(RATE_HZ, hz=100.0 * k, level=0.2) for k in range(channels)]
  path = _write(tmp_path / "a.ogg", np.stack(tones, axis=1))
  audio = encoded_audio.read(path)[: len(tones[0])]
  expected = np.mean(tones, axis=0)
  np.testing.assert_allclose(audio[999:-999], expected[999:-999], atol=0.02)


@pytest.mark.parametrize("rate_hz", [16000, 22050, 48000])
def test_the_result_does_not_depend_on_the_blocks(tmp_path, rate_hz):
  rng = np.random.default_rng(0)
  audio = rng.uniform(-1, 1, (30_000, 2)).astype(np.float32)
  path = _write(tmp_path / "a.flac", audio, rate_hz)
  whole = encoded_audio.read(path)
  for block in (97, 4096, 10**6):
    audio = encoded_audio.read(path, block_samples=block)
    np.testing.assert_array_equal(audio, whole)


def test_an_mp3_read_in_blocks_is_the_mp3_read_at_once(tmp_path):
  """A seek between two reads would break 60 ms of sound after it."""
  tone = _tone(44_100, seconds=6.0, hz=330.0)
  path = _write(tmp_path / "a.mp3", tone, 44_100)
  whole, _ = soundfile.read(path, dtype="float32")
  expected = soxr.resample(whole, 44_100, RATE_HZ)
  for block in (5_000, 65_536):
    audio = encoded_audio.read(path, block_samples=block)
    np.testing.assert_allclose(audio, expected, atol=1e-3)


def test_resampling_in_blocks_is_that_of_the_whole(tmp_path):
  audio = np.random.default_rng(1).uniform(-1, 1, 200_000).astype(np.float32)
  path = _write(tmp_path / "a.wav", audio, 44100, subtype="FLOAT")
  expected = soxr.resample(audio, 44100, RATE_HZ, quality="HQ")
  np.testing.assert_array_equal(encoded_audio.read(path), expected)


@pytest.mark.parametrize(
  "rate_hz, samples", [(8000, 2), (16000, 1), (48000, 1)]
)
def test_one_sample_is_enough(tmp_path, rate_hz, samples):
  path = _write(tmp_path / "a.wav", np.float32([0.5]), rate_hz, subtype="FLOAT")
  assert len(encoded_audio.read(path)) == samples
  assert len(decode.read_feature(path)) == 2


@pytest.mark.parametrize(
  "samples", [1, 255, 256, 257, 40_000, 1024 * 256, 1025 * 256, 300_001]
)
def test_the_feature_of_a_stream_is_that_of_the_whole(
  tmp_path, samples, monkeypatch
):
  audio = np.random.default_rng(samples).uniform(-1, 1, samples)
  path = _write(tmp_path / "a.wav", audio, subtype="FLOAT")
  whole = melspectrogram.log_mel(encoded_audio.read(path))
  feature = decode.read_feature(path)
  assert feature.dtype == np.float16
  np.testing.assert_allclose(feature, whole, atol=2e-3)  # Half precision.
  monkeypatch.setattr(decode, "BLOCK_SAMPLES", 1777)
  np.testing.assert_array_equal(decode.read_feature(path), feature)


def test_memory_does_not_grow_with_the_length(tmp_path):
  path = tmp_path / "a.wav"
  minute = _tone(RATE_HZ, seconds=60.0)
  with soundfile.SoundFile(path, "w", RATE_HZ, 1) as file:
    for _ in range(10):
      file.write(minute)
  tracemalloc.start()
  samples = sum(map(len, decode.audio_blocks(path)))
  _, peak_bytes = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert samples == 10 * len(minute)
  assert peak_bytes < minute.nbytes / 2


def test_a_part_has_the_feature_of_a_file_of_its_own(tmp_path, monkeypatch):
  monkeypatch.setattr(decode, "BLOCK_SAMPLES", 1000)
  audio = np.random.default_rng(2).uniform(-1, 1, 100_000).astype(np.float32)
  path = _write(tmp_path / "a.wav", audio, subtype="FLOAT")
  part = _write(tmp_path / "b.wav", audio[8000:56_000], subtype="FLOAT")
  np.testing.assert_array_equal(
    decode.read_feature(path, 0.5, 3.5),
    decode.read_feature(part),
  )
  to_end = decode.read_feature(path, 6.0, 99.0)
  assert len(to_end) == melspectrogram.num_frames(4000)


@pytest.mark.parametrize("part", [(-1.0, None), (0.5, 0.5), (2.0, None)])
def test_a_part_that_holds_nothing_is_refused(tmp_path, part):
  path = _write(tmp_path / "a.wav", _tone(RATE_HZ))
  with pytest.raises(errors.InputError, match="from_s"):
    decode.read_feature(path, *part)


def _bad_file(tmp_path, kind):
  path = tmp_path / f"{kind}.wav"
  if kind == "empty":
    path.touch()
  elif kind == "junk":
    path.write_bytes(bytes(range(256)) * 20)
  elif kind == "samples":
    _write(path, np.zeros(0, np.float32))
  elif kind in ("nan", "inf", "huge"):
    value = {"nan": np.nan, "inf": -np.inf, "huge": 1e30}[kind]
    audio = _tone(RATE_HZ)
    audio[-1] = value
    _write(path, audio, subtype="FLOAT")
  elif kind == "rate":
    _write(path, _tone(RATE_HZ), 10)
  elif kind == "pipe":
    os.mkfifo(path)
  elif kind == "headerless":
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(1000))
  return path


@pytest.mark.parametrize(
  "kind, reason",
  [
    ("absent", "no such file"),
    ("pipe", "it is no regular file"),
    ("empty", "0 bytes"),
    ("junk", "cannot be opened"),
    ("samples", "no audio can be decoded"),
    ("nan", "not finite"),
    ("inf", "not finite"),
    ("huge", "not finite numbers, or beyond 1e"),
    ("rate", "10 Hz"),
    ("headerless", "cannot be opened"),
  ],
)
def test_a_bad_file_is_refused_with_name_reason_and_remedy(
  tmp_path, kind, reason
):
  path = _bad_file(tmp_path, kind)
  with pytest.raises(errors.InputError) as caught:
    encoded_audio.read(path)
  message = str(caught.value)
  assert path.name in message and reason in message
  assert decode.FORMATS in message and "convert it" in message


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_a_file_cut_in_half_is_used_and_told(tmp_path, suffix):
  path = _write(tmp_path / f"a.{suffix}", _tone(RATE_HZ, seconds=20.0))
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 2])
  told = []
  blocks = decode.audio_blocks(path, warn=lambda _, why: told.append(why))
  assert abs(sum(map(len, blocks)) - 10 * RATE_HZ) < RATE_HZ
  assert len(told) == 1 and "of 20.0 s are missing (" in told[0]


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_a_file_with_a_large_hole_is_refused(tmp_path, suffix):
  noise = np.random.default_rng(0).normal(0, 0.1, 20 * RATE_HZ)
  path = _write(tmp_path / f"a.{suffix}", noise)
  content = bytearray(path.read_bytes())
  tenth = len(content) // 10
  for place in range(3 * tenth, 7 * tenth, 100):
    content[place : place + 50] = bytes(50)
  path.write_bytes(content)
  with pytest.raises(decode.UnreadableAudio, match="it is damaged: "):
    encoded_audio.read(path)


def test_real_recordings_are_read_whole(shared_dir):
  paths = sorted((shared_dir / "audio").glob("*.ogg"))
  assert len(paths) == 6
  for path in paths[:3]:
    samples = soundfile.info(path).duration * RATE_HZ
    assert abs(len(encoded_audio.read(path)) - samples) <= 1


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_going_to_a_part_gives_what_decoding_up_to_it_gives(tmp_path, suffix):
  audio = np.random.default_rng(3).normal(0, 0.1, (12 * RATE_HZ, 2))
  path = _write(tmp_path / f"a.{suffix}", audio.astype(np.float32))
  whole = encoded_audio.read(path)
  for from_s, to_s in ((0.3, 0.9), (7.77, 9.0), (11.5, None)):
    part = encoded_audio.read(path, from_s, to_s, block_samples=1000)
    end = None if to_s is None else round(to_s * RATE_HZ)
    expected = whole[round(from_s * RATE_HZ) : end]
    np.testing.assert_allclose(part, expected, atol=1e-6)


def test_a_file_that_may_not_be_read_says_what_it_needs(tmp_path, monkeypatch):
  path = _write(tmp_path / "a.wav", _tone(RATE_HZ))

  def refused(*_):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr("builtins.open", refused)
  with pytest.raises(decode.UnreadableAudio) as caught:
    encoded_audio.read(path)
  monkeypatch.undo()
  assert caught.value.needs == containers.ACCESS
  assert "Permission denied" in caught.value.reason
