"""Tests of pcl_jax.audio.containers.probe: files are judged by content."""

import numpy as np
import pytest
import soundfile

from pcl_jax.audio import decode
from tests.support.audio_files import encoded_audio

RATE_HZ = 44_100


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
  """Path of half a second of noise in each format, and the codec's name."""
  folder = tmp_path_factory.mktemp("sounds")
  noise = np.random.default_rng(0).normal(0, 0.1, (RATE_HZ // 2, 2))
  codecs = {
    "wav": "pcm_s16le",
    "flac": "flac",
    "ogg": "vorbis",
    "mp3": "mp3float",
    "m4a": "aac",
    "aac": "aac",
    "ac3": "ac3",
    "wma": "wmav2",
    "mka": "aac",
    "wv": "wavpack",
  }
  found = {}
  for suffix, codec in codecs.items():
    path = folder / f"a.{suffix}"
    if suffix in encoded_audio.FORMATS:
      encoded_audio.write(path, noise.astype(np.float32), RATE_HZ)
    else:
      soundfile.write(path, noise, RATE_HZ)
    found[path] = codec
  return found


def test_sound_is_known_by_its_content_whatever_its_name(sounds, tmp_path):
  for number, (path, codec) in enumerate(sounds.items()):
    other = tmp_path / f"{number}.txt"
    other.write_bytes(path.read_bytes())
    assert decode.probe(path) == decode.probe(other) == codec


@pytest.mark.parametrize(
  "content",
  [
    b"",
    b"#EXTM3U\na.wav\n" * 20,
    b"Artist: Somebody\nAlbum: Something\n" * 500,
    bytes(100_000),
    np.random.default_rng(1).bytes(300_000),
    b"\x89PNG\r\n\x1a\n" + np.random.default_rng(2).bytes(50_000),
    b"\xff\xd8\xff\xe0\0\x10JFIF\0" + np.random.default_rng(3).bytes(50_000),
    b"%PDF-1.7\n" + np.random.default_rng(4).bytes(50_000),
    b"PK\x03\x04" + np.random.default_rng(5).bytes(50_000),
    b"\0\0\0\x20ftypM4A " + bytes(1000),
  ],
)
def test_what_is_no_sound_is_told(tmp_path, content):
  for suffix in ("mp3", "jpg"):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    assert decode.probe(path) == ""


def test_what_is_not_there_or_a_folder_is_no_sound(tmp_path):
  assert decode.probe(tmp_path / "absent.mp3") == ""
  assert decode.probe(tmp_path) == ""
