"""A small library of real music, for tests: recordings cut into pieces."""

import pathlib

import soundfile


def cut_recordings(
  audio_dir: pathlib.Path, out: pathlib.Path, seconds: float = 8.0
) -> int:
  """Cuts every Ogg recording of a folder into pieces that do not overlap.

  A recording becomes the folder out/NAME with the files 00.wav, 01.wav, ...,
  at its own sample rate. What is left at its end is left out, unless the whole
  recording is shorter than a piece: then it is one piece.

  Args:
    audio_dir: folder of the recordings, *.ogg.
    out: the library's folder.
    seconds: length of a piece.

  Returns:
    The number of pieces written.
  """
  written = 0
  for path in sorted(audio_dir.glob("*.ogg")):
    audio, rate_hz = soundfile.read(path, dtype="float32")
    length = min(round(seconds * rate_hz), len(audio))
    folder = out / path.stem
    folder.mkdir(parents=True)
    for i in range(len(audio) // length):
      piece = audio[i * length : (i + 1) * length]
      soundfile.write(folder / f"{i:02d}.wav", piece, rate_hz)
      written += 1
  return written
