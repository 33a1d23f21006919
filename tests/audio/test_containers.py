"""Tests of pcl_jax.audio.containers: formats that need no libsndfile."""

import av
import mutagen.id3
import numpy as np
import pytest
import soundfile

from pcl_jax.audio import containers
from pcl_jax.audio import decode
from pcl_jax.audio import melspectrogram
from tests.support.audio_files import encoded_audio
from tests.support.audio_files import sound_kinds

RATE_HZ = 48_000


@pytest.fixture(scope="module")
def noise():
  """Twelve seconds of noise, in stereo, without the highest frequencies."""
  rng = np.random.default_rng(0)
  audio = rng.normal(0, 0.1, 12 * RATE_HZ)
  smooth = np.convolve(audio, np.ones(25) / 5, "same")
  return (smooth[:, None] * [1.0, 0.5]).astype(np.float32)


@pytest.fixture(scope="module")
def files(noise, tmp_path_factory):
  """Path of the noise in each format, and as WAV."""
  folder = tmp_path_factory.mktemp("noise")
  soundfile.write(folder / "a.wav", noise, RATE_HZ, subtype="FLOAT")
  return {"wav": folder / "a.wav"} | {
    suffix: encoded_audio.write(folder / f"a.{suffix}", noise, RATE_HZ)
    for suffix in encoded_audio.FORMATS
  }


def _reason(path, *part):
  with pytest.raises(decode.UnreadableAudio) as caught:
    decode.read_feature(path, *part)
  return caught.value.reason


@pytest.mark.parametrize("suffix", encoded_audio.FORMATS)
def test_other_formats_are_read(files, suffix):
  whole = encoded_audio.read(files[suffix])
  assert abs(len(whole) - 12 * 16_000) < 1600
  found = melspectrogram.log_mel(whole)
  expected = decode.read_feature(files["wav"]).astype(np.float32)
  inner = slice(5, min(len(found), len(expected)) - 5), slice(0, 30)
  assert np.abs(found[inner] - expected[inner]).mean() < 0.3
  again = encoded_audio.read(files[suffix], block_samples=777)
  np.testing.assert_array_equal(again, whole)


@pytest.mark.parametrize("suffix", encoded_audio.FORMATS)
def test_a_part_is_exact_to_the_sample(files, suffix):
  whole = encoded_audio.read(files[suffix])
  for from_s, to_s in ((0.25, 0.75), (7.5, 9.0), (11.5, None)):
    part = encoded_audio.read(files[suffix], from_s, to_s)
    end = None if to_s is None else round(to_s * 16_000)
    expected = whole[round(from_s * 16_000) : end]
    assert len(part) == len(expected)
    inner = slice(200, -200)  # Beyond the resampler's reach.
    # The decoder draws noise, from its beginning on.
    atol = 0.02 if suffix == "ac3" else 1e-5
    np.testing.assert_allclose(part[inner], expected[inner], atol=atol)
  assert "before the part wanted begins" in _reason(files[suffix], 25.0)


@pytest.mark.parametrize("suffix", ["m4a", "wma", "wv"])
def test_a_file_cut_in_half_is_used_and_told(files, tmp_path, suffix):
  content = files[suffix].read_bytes()
  path = tmp_path / f"a.{suffix}"
  path.write_bytes(content[: len(content) // 2])
  told = []
  blocks = decode.audio_blocks(path, warn=lambda _, why: told.append(why))
  assert abs(sum(map(len, blocks)) - 6 * 16_000) < 8000
  assert len(told) == 1 and "s are missing (" in told[0]


@pytest.mark.parametrize(
  "content",
  [
    b"\0\0\0\x20ftypM4A " + bytes(1000),
    b"#EXTM3U\n#EXTINF:10,\nPATH\n#EXT-X-ENDLIST\n",
    b"ffconcat version 1.0\nfile PATH\n",
  ],
)
def test_what_plays_other_files_is_not_followed(files, tmp_path, content):
  path = tmp_path / "http: a song.m4a"
  path.write_bytes(content.replace(b"PATH", bytes(files["wav"])))
  assert "it cannot be opened (Invalid " in _reason(path)


def test_a_cover_is_no_sound(tmp_path):
  path = tmp_path / "a.mp3"
  path.write_bytes(sound_kinds.Kinds(tmp_path, "mp3").first)
  expected = encoded_audio.read(path)
  picture = b"\xff\xd8\xff\xe0" + np.random.default_rng(0).bytes(20_000)
  tags = mutagen.id3.ID3()
  tags.add(mutagen.id3.APIC(mime="image/jpeg", type=3, data=picture))
  tags.save(path)
  np.testing.assert_array_equal(encoded_audio.read(path), expected)
  with containers.open_part(path) as container:
    assert container.streams.video


def test_of_several_tracks_the_first_is_read(tmp_path):
  path = tmp_path / "a.mka"
  tracks = [sound_kinds.song(number, 2.0 - number) for number in (0, 1)]
  with av.open(path, "w", format="matroska") as out:
    streams = [
      out.add_stream("pcm_s16le", rate=sound_kinds.RATE_HZ, layout="stereo")
      for _ in tracks
    ]
    for stream, track in zip(streams, tracks, strict=True):
      pcm16 = np.round(track * 32767).astype(np.int16).reshape(1, -1)
      frame = av.AudioFrame.from_ndarray(pcm16, "s16", "stereo")
      frame.sample_rate, frame.pts = sound_kinds.RATE_HZ, 0
      out.mux(stream.encode(frame))
      out.mux(stream.encode(None))
  found = encoded_audio.read(path)
  assert len(found) == 2 * 16_000
  expected = tmp_path / "a.wav"
  soundfile.write(expected, tracks[0], sound_kinds.RATE_HZ, subtype="FLOAT")
  np.testing.assert_allclose(found, encoded_audio.read(expected), atol=1e-3)


def test_amr_is_read(tmp_path):
  frame = b"\x3c" + np.random.default_rng(0).bytes(31)  # 20 ms at 12.2 kbit/s.
  path = tmp_path / "a.3ga"
  path.write_bytes(b"#!AMR\n" + 100 * frame)
  assert decode.probe(path) == "amrnb"
  assert len(encoded_audio.read(path)) == 2 * 16_000
