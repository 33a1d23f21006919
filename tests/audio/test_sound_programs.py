"""What other programs write is read as the ffmpeg program reads it."""

import shutil
import subprocess

import numpy as np
import pytest
import soundfile

from pcl_jax.audio import decode
from tests.support.audio_files import sound_kinds

pytestmark = pytest.mark.long
_HZ = 16_000
# The file that a shell command makes of a.wav and b.wav, and the command.
_COMMANDS = {
  "piped.mp3": "lame --quiet -V 2 a.wav - | cat > piped.mp3",
  "untagged.mp3": "lame --quiet -t --abr 160 a.wav untagged.mp3",
  "joined.mp3": "lame --quiet a.wav 1.mp3; lame --quiet b.wav 2.mp3;"
  " cat 1.mp3 2.mp3 > joined.mp3",
  "rates.mp3": "lame --quiet -t a.wav 1.mp3; lame --quiet -t --resample 32"
  " b.wav 2.mp3; cat 1.mp3 2.mp3 > rates.mp3",
  "front_cut.mp3": "lame --quiet -V 2 a.wav 1.mp3; tail -c +20000 1.mp3 >"
  " front_cut.mp3",
  "piped.flac": "flac -s -c a.wav | cat > piped.flac",
  "chained.ogg": "oggenc -Q -s 1 a.wav -o 1.ogg; oggenc -Q -s 2 b.wav -o 2.ogg;"
  " cat 1.ogg 2.ogg > chained.ogg",
  "chained.opus": "opusenc --quiet a.wav 1.opus; opusenc --quiet b.wav 2.opus;"
  " cat 1.opus 2.opus > chained.opus",
  "piped.m4a": "ffmpeg -nostdin -v error -i a.wav -c:a aac -f mp4 -movflags"
  " frag_keyframe+empty_moov - | cat > piped.m4a",
  "delayed.m4a": "ffmpeg -nostdin -v error -i a.wav -c:a aac 1.m4a; ffmpeg"
  " -nostdin -v error -itsoffset 5 -i 1.m4a -c copy delayed.m4a",
  "piped.mka": "ffmpeg -nostdin -v error -i a.wav -c:a libopus -f matroska - |"
  " cat > piped.mka",
  "piped.wv": "ffmpeg -nostdin -v error -i a.wav -f wv - | cat > piped.wv",
  "piped.wav": "sox a.wav -t wav - | cat > piped.wav",
  "adpcm.wav": "sox a.wav -e ms-adpcm adpcm.wav",
  "a.dts": "ffmpeg -nostdin -v error -i a.wav -strict -2 -c:a dca a.dts",
  "a.spx": "ffmpeg -nostdin -v error -i a.wav -ac 1 -ar 16000 a.spx",
  "a.voc": "sox a.wav a.voc",
}


@pytest.mark.parametrize("name", _COMMANDS)
def test_it_has_the_length_and_the_sound_that_ffmpeg_decodes(tmp_path, name):
  command = _COMMANDS[name]
  for program in {"ffmpeg", *(one.split()[0] for one in command.split(";"))}:
    if not shutil.which(program):
      pytest.skip(f"the program {program} is not installed")
  for number, stem in enumerate("ab"):
    samples = sound_kinds.song(number, 4.0 - number)
    soundfile.write(tmp_path / f"{stem}.wav", samples, sound_kinds.RATE_HZ)
  subprocess.run(command, shell=True, check=True, cwd=tmp_path)
  raw = subprocess.run(
    f"ffmpeg -nostdin -v error -i {name} -ac 1 -ar {_HZ} -f f32le -",
    shell=True,
    cwd=tmp_path,
    stdout=subprocess.PIPE,
  ).stdout
  expected = np.frombuffer(raw, np.float32).astype(np.float64)
  blocks = list(decode.audio_blocks(tmp_path / name))
  found = np.concatenate(blocks).astype(np.float64)
  assert abs(len(found) - len(expected)) < 0.1 * _HZ
  middle = expected[_HZ : 2 * _HZ]
  reach = _HZ // 10
  best = max(
    np.corrcoef(middle, found[begin : begin + _HZ])[0, 1]
    for begin in range(_HZ - reach, _HZ + reach)
  )
  assert best > 0.95
