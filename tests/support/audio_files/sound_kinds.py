"""Files as they are in real libraries: formats, and what becomes of them.

A kind is a method of `Kinds`: it makes a file out of encoded songs and says
what should be read of it.
"""

import dataclasses
import pathlib
import struct

import av
from jaxtyping import Float32
import numpy as np
import soundfile
import soxr

RATE_HZ = 44_100
SECONDS = (1.8, 1.0)  # Of the song, and of the one that is joined to it.


@dataclasses.dataclass(frozen=True)
class Format:
  """How a song is encoded.

  Attributes:
    encoder: FFmpeg's name of the encoder.
    container: and of the container.
    options: of the container.
    own_length: whether the container states a length for certain.
  """

  encoder: str
  container: str
  options: dict[str, str] = dataclasses.field(default_factory=dict)
  own_length: bool = False


FORMATS = {
  "wav": Format("pcm_s16le", "wav", own_length=True),
  "flac": Format("flac", "flac", own_length=True),
  "mp3": Format("libmp3lame", "mp3", own_length=True),
  "ogg": Format("vorbis", "ogg", own_length=True),
  "opus": Format("libopus", "ogg", own_length=True),
  "m4a": Format("aac", "ipod", {"movflags": "+faststart"}, own_length=True),
  "aac": Format("aac", "adts"),
  "aiff": Format("pcm_s16be", "aiff", own_length=True),
  "au": Format("pcm_s16be", "au", own_length=True),
  "caf": Format("pcm_s16be", "caf", own_length=True),
  "w64": Format("pcm_s16le", "w64", own_length=True),
  "wv": Format("wavpack", "wv", own_length=True),
  "tta": Format("tta", "tta", own_length=True),
  "wma": Format("wmav2", "asf", own_length=True),
  "mka": Format("aac", "matroska", own_length=True),
  "webm": Format("libopus", "webm", own_length=True),
  "ac3": Format("ac3", "ac3"),
  "mp2": Format("mp2", "mp2"),
}


def song(number: int, seconds: float) -> np.ndarray:
  """Returns smooth noise with a rhythm, [samples, 2], another each number."""
  rng = np.random.default_rng(number)
  noise = rng.normal(0, 0.12, round(seconds * RATE_HZ))
  smooth = np.convolve(noise, np.ones(24) / 5, "same")
  time_s = np.arange(len(smooth)) / RATE_HZ
  smooth *= 0.6 + 0.4 * np.sin(2 * np.pi * (1 + number % 5) * time_s)
  return (smooth[:, None] * [1.0, 0.7]).astype(np.float32)


def encode(
  path: pathlib.Path,
  samples: Float32[np.ndarray, "n channels"],
  form: Format,
  rate_hz: int = RATE_HZ,
  streamed: bool = False,
) -> bytes:
  """Encodes samples; `streamed` as into a pipe, that nobody can go back in."""
  if form.encoder == "vorbis":  # Which PyAV does not bring.
    soundfile.write(path, samples, rate_hz)
    return path.read_bytes()
  layout = ("mono", "stereo")[samples.shape[1] - 1]
  target: object = path.open("wb")
  options = form.options
  if streamed:
    target = _Pipe(target)
    options = {key: "empty_moov+frag_keyframe" for key in options}
  with av.open(target, "w", format=form.container, options=options) as out:
    coded_hz = 48_000 if form.encoder == "libopus" else rate_hz
    stream = out.add_stream(form.encoder, rate=coded_hz, layout=layout)
    if form.encoder not in ("flac", "wavpack", "tta"):
      stream.bit_rate = 160_000
    if form.encoder == "aac":  # Its decoder draws noise.
      stream.options = {"aac_pns": "0"}
    resampler = av.AudioResampler(
      format=stream.codec_context.format.name,
      layout=layout,
      rate=coded_hz,
      frame_size=stream.codec_context.frame_size or 1024,
    )
    frame = av.AudioFrame.from_ndarray(
      np.ascontiguousarray(samples.T), "fltp", layout
    )
    frame.sample_rate, frame.pts = rate_hz, 0
    for one in (*resampler.resample(frame), *resampler.resample(None)):
      out.mux(stream.encode(one))
    out.mux(stream.encode(None))
  target.close()
  return path.read_bytes()


class _Pipe:
  """A file that is written from the beginning to the end."""

  def __init__(self, file):
    self._file = file
    self.write, self.close = file.write, file.close

  def seekable(self) -> bool:
    return False


Song = tuple[int, float, float]  # Number, and the part of it.


@dataclasses.dataclass
class Case:
  """A file and what should become of it.

  Attributes:
    content: its bytes.
    holds: the parts of songs that it holds, in order; none if it is refused.
    is_told: whether a loss has to be told, by refusing it or by a warning.
  """

  content: bytes
  holds: list[Song]
  is_told: bool = False


class Kinds:
  """Makes each kind of file out of two songs of a format."""

  def __init__(self, folder: pathlib.Path, suffix: str):
    """Encodes the songs."""
    self.suffix, self.form = suffix, FORMATS[suffix]
    self._path = folder / f"made.{suffix}"
    self.first = self._encode(song(0, SECONDS[0]))
    self.second = self._encode(song(1, SECONDS[1]))

  def _encode(self, samples, **kwargs) -> bytes:
    return encode(self._path, samples, self.form, **kwargs)

  @property
  def _whole(self) -> list[Song]:
    return [(0, 0.0, SECONDS[0])]

  @property
  def _both(self) -> list[Song]:
    return [(0, 0.0, SECONDS[0]), (1, 0.0, SECONDS[1])]

  def plain(self) -> Case:
    return Case(self.first, self._whole)

  def streamed(self) -> Case:
    return Case(self._encode(song(0, SECONDS[0]), streamed=True), self._whole)

  def mono(self) -> Case:
    return Case(self._encode(song(0, SECONDS[0])[:, :1]), self._whole)

  def quiet_beginning(self) -> Case:
    silence = np.zeros((RATE_HZ, 2), np.float32)
    samples = np.concatenate([silence, song(0, SECONDS[0])])
    return Case(self._encode(samples), [(-1, 0.0, 1.0), *self._whole])

  def quiet_end(self) -> Case:
    silence = np.zeros((RATE_HZ, 2), np.float32)
    samples = np.concatenate([song(0, SECONDS[0]), silence])
    return Case(self._encode(samples), [*self._whole, (-1, 0.0, 1.0)])

  def short(self) -> Case:
    return Case(self._encode(song(0, 0.6)), [(0, 0.0, 0.6)])

  def joined(self) -> Case:
    return Case(self.first + self.second, self._both)

  def joined_three(self) -> Case:
    content = self.second + self.first + self.second
    return Case(content, [self._both[1], *self._both])

  def joined_to_itself(self) -> Case:
    return Case(self.first * 2, self._whole * 2)

  def joined_mono(self) -> Case:
    mono = self._encode(song(1, SECONDS[1])[:, :1])
    return Case(self.first + mono, self._both)

  def mono_first(self) -> Case:
    mono = self._encode(song(0, SECONDS[0])[:, :1])
    return Case(mono + self.second, self._both)

  def joined_other_rate(self) -> Case:
    samples = soxr.resample(song(1, SECONDS[1]), RATE_HZ, 32_000)
    other = self._encode(samples, rate_hz=32_000)
    return Case(self.first + other, self._both)

  def streamed_joined(self) -> Case:
    first = self._encode(song(0, SECONDS[0]), streamed=True)
    return Case(first + self.second, self._both)

  def tag_behind(self) -> Case:
    return Case(self.first + b"TAG" + b"A song".ljust(125, b"\0"), self._whole)

  def tag_in_front(self) -> Case:
    return Case(_id3(b"A song") + self.first, self._whole)

  def zeros_behind(self) -> Case:
    return Case(self.first + bytes(5000), self._whole)

  def tags_between(self) -> Case:
    first = self.first + b"TAG" + b"A song".ljust(125, b"\0")
    return Case(first + _id3(b"Another song") + self.second, self._both)

  def cut_in_half(self) -> Case:
    half = self.first[: len(self.first) // 2]
    return Case(half, [(0, 0.0, SECONDS[0] / 2)], self.form.own_length)

  def cut_a_little(self) -> Case:
    most = self.first[: len(self.first) * 7 // 10]
    return Case(most, [(0, 0.0, SECONDS[0] * 0.7)], self.form.own_length)

  def hole(self) -> Case:
    content = bytearray(self.first)
    begin = len(content) // 2
    content[begin : begin + len(content) // 6] = bytes(len(content) // 6)
    return Case(bytes(content), self._whole, is_told=True)

  def taken_out(self) -> Case:
    content = self.first
    begin = len(content) // 2
    return Case(
      content[:begin] + content[begin + len(content) // 5 :],
      [(0, 0.0, SECONDS[0] * 0.8)],
      self.form.own_length,
    )

  def junk_put_in(self) -> Case:
    content, junk = self.first, np.random.default_rng(5).bytes(3000)
    half = len(content) // 2
    return Case(content[:half] + junk + content[half:], self._whole)

  def noise(self) -> Case:
    return Case(np.random.default_rng(6).bytes(20_000), [])

  def header_alone(self) -> Case:
    return Case(self.first[:20], [])

  def nothing(self) -> Case:
    return Case(b"", [])


KINDS = [name for name in vars(Kinds) if name[0] != "_"]


def _id3(title: bytes) -> bytes:
  frame = b"TIT2" + struct.pack(">IH", len(title) + 1, 0) + b"\0" + title
  return b"ID3\3\0\0" + bytes([0, 0, 0, len(frame)]) + frame
