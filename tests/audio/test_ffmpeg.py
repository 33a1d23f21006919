"""Tests of pcl_jax.ffmpeg, with the program itself or a fake in its place."""

import shutil
import struct
import subprocess

import numpy as np
import pytest
import soundfile

from pcl_jax.audio import decode
from pcl_jax.audio import ffmpeg
from tests.support import tiny_library

REAL = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(
  REAL is None, reason="needs the program ffmpeg on PATH, which is not there"
)
# Nothing that libsndfile opens.
CONTENT = b"\0\0\0\x20ftypM4A " + bytes(1000)


def _noise(seconds=2.0, rate_hz=22_050, channels=1):
  rng = np.random.default_rng(0)
  audio = rng.normal(0, 0.1, (round(seconds * rate_hz), channels))
  smooth = np.apply_along_axis(np.convolve, 0, audio, np.ones(9) / 9, "same")
  return smooth.astype(np.float32)


def _au(audio, rate_hz):
  """Returns what ffmpeg is asked for: an AU file of big-endian floats."""
  header = struct.pack(
    ">4s5I", b".snd", 32, 2**32 - 1, 6, rate_hz, audio.shape[1]
  )
  return header + bytes(8) + audio.astype(">f4").tobytes()


@pytest.fixture
def fake(tmp_path, monkeypatch):
  """Puts a shell script in ffmpeg's place; returns a song for it to read."""

  def put(script, answer=b""):
    (tmp_path / "answer").write_bytes(answer)
    script = script.replace("ANSWER", f"'{tmp_path}/answer'")
    folder = tiny_library.put_program(tmp_path / "bin", "ffmpeg", script)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    song = tmp_path / "-i a song; $(x).m4a"
    song.write_bytes(CONTENT)
    return song

  return put


def _reason(path, *part):
  with pytest.raises(decode.UnreadableAudio) as caught:
    decode.read_feature(path, *part)
  return caught.value.reason


def test_what_the_program_says_is_resampled_and_averaged(fake):
  audio = _noise(channels=2)
  song = fake("exec cat ANSWER", _au(audio, 22_050))
  other = song.with_suffix(".wav")
  soundfile.write(other, audio, 22_050, subtype="FLOAT")
  expected = decode.read_audio(other)
  np.testing.assert_array_equal(decode.read_audio(song), expected)
  pieces = list(decode.audio_blocks(song, 777))
  np.testing.assert_array_equal(np.concatenate(pieces), expected)


def test_the_name_is_one_argument_and_the_part_is_asked_for(fake, tmp_path):
  log = tmp_path / "log"
  song = fake(
    f"printf '%s\\n' \"$@\" > '{log}'; exec cat ANSWER", _au(_noise(), 22_050)
  )
  decode.read_feature(song, 1.5, 3.5)
  options = log.read_text().splitlines()
  assert options[options.index("-i") + 1] == f"file:{song}"
  # What stands before the name seeks; what stands behind drops and ends.
  before, after = " ".join(options).split(f" file:{song} ")
  assert "-ss 0.500000 -i" in before
  assert "-ss 1.000000 -t 2.000000" in after
  assert options[options.index("-protocol_whitelist") + 1] == "file"
  assert "-nostdin" in options and options[1:3] == ["-v", "error"]


def test_without_the_program_the_reason_says_how_to_get_it(
  tmp_path, monkeypatch
):
  monkeypatch.setenv("PATH", str(tmp_path))
  song = tmp_path / "a.m4a"
  song.write_bytes(CONTENT)
  with pytest.raises(decode.UnreadableAudio) as caught:
    decode.read_audio(song)
  assert caught.value.needs == "ffmpeg"
  for text in ("ffmpeg", "not on PATH", "apt install ffmpeg", "ffmpeg.org"):
    assert text in caught.value.reason


@pytest.mark.parametrize(
  "script, reason",
  [
    ("echo bad >&2; exit 1", "ffmpeg: bad"),
    ("exit 3", "exit status 3"),
    ("echo no audio at all, but words", "something else than audio"),
    ("exit 0", "no audio can be decoded"),
    ("head -c 32 ANSWER", "no audio can be decoded"),
    ("head -c 9999 ANSWER; echo broken >&2; exit 1", "decoding fails 0.0 s in"),
    ("kill -9 $$", "exit status -9"),
  ],
)
def test_a_program_that_fails_is_a_reason(fake, script, reason):
  song = fake(script, _au(_noise(), 22_050))
  assert reason in _reason(song)


@pytest.mark.parametrize(
  "script",
  [
    "sleep 1000",
    "sleep 1000 & wait",
    "head -c 5000 ANSWER; sleep 1000",
    "cat ANSWER; exec 1>&-; sleep 1000",
  ],
)
def test_a_program_that_hangs_is_stopped_with_all_it_started(
  fake, script, monkeypatch
):
  monkeypatch.setattr(ffmpeg, "STALL_S", 0.2)
  reason = _reason(fake(script, _au(_noise(), 22_050)))
  assert "was stopped" in reason


def test_a_program_that_talks_much_does_not_block(fake):
  song = fake(
    "head -c 1000000 /dev/zero >&2; exec cat ANSWER", _au(_noise(), 22_050)
  )
  assert len(decode.read_audio(song)) == 32_000


def test_a_program_that_cannot_be_started_is_a_reason(fake, tmp_path):
  song = fake("exit 0")
  (tmp_path / "bin" / "ffmpeg").write_bytes(b"\x7fELF no program")
  assert "does not start" in _reason(song)


def test_a_reader_that_stops_early_stops_the_program(fake, monkeypatch):
  started, popen = [], subprocess.Popen
  monkeypatch.setattr(
    ffmpeg.subprocess,
    "Popen",
    lambda *args, **kwargs: (
      started.append(popen(*args, **kwargs)) or started[-1]
    ),
  )
  song = fake("cat ANSWER; sleep 1000", _au(_noise(), 22_050))
  blocks = decode.audio_blocks(song, 100)
  next(blocks)
  blocks.close()
  assert started[0].returncode == -9


def test_a_part_behind_the_end_is_said_to_be_so(fake):
  song = fake("exit 0")
  assert "it ends before the part wanted begins" in _reason(song, 5.0, 6.0)


@pytest.fixture
def recording(tmp_path):
  path = tmp_path / "a.wav"
  soundfile.write(path, _noise(20.0), 22_050)
  return path


def _convert(source, suffix, *options):
  path = source.with_suffix(suffix)
  command = [REAL, "-nostdin", "-v", "error", "-i", str(source), *options]
  subprocess.run([*command, str(path)], check=True)
  return path


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".m4a", ".aac", ".wma", ".wv", ".mka"])
def test_other_formats_are_read(recording, suffix):
  path = _convert(recording, suffix)
  whole = decode.read_audio(path)
  assert abs(len(whole) - 320_000) < 3200
  feature = decode.read_feature(path).astype(np.float32)
  expected = decode.read_feature(recording).astype(np.float32)
  frames = min(len(feature), len(expected))
  gap = np.abs(feature[5 : frames - 5, :30] - expected[5 : frames - 5, :30])
  assert gap.mean() < 0.3
  part = decode.read_feature(path, 8.0, 11.0).astype(np.float32)
  assert abs(len(part) - 189) <= 4
  assert np.abs(part[5:180] - feature[505:680]).mean() < 0.3
  reason = _reason(path, 25.0)
  assert "before the part wanted begins" in reason
  if suffix not in (".aac", ".mka"):  # The others say how long they are.
    assert "it ends at 20.0" in reason


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".m4a", ".wma", ".wv"])
def test_other_formats_cut_short_are_refused(recording, suffix):
  path = _convert(recording, suffix, "-movflags", "+faststart")
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 2])
  assert "damaged" in _reason(path)


@needs_ffmpeg
def test_a_list_of_addresses_called_audio_is_not_followed(recording):
  path = recording.with_suffix(".m4a")
  path.write_text(f"#EXTM3U\n#EXTINF:10,\n{recording}\n#EXT-X-ENDLIST\n")
  assert "cannot be opened" in _reason(path)
