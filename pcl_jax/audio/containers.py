"""Audio files opened for decoding, at the beginning of the part that is wanted.

libsndfile reads its formats several times as fast as FFmpeg does through PyAV,
so FFmpeg gets only the files that libsndfile does not open.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
from fractions import Fraction
import itertools
import os
import pathlib

import av
from jaxtyping import Float32
import mutagen
import numpy as np
import soundfile

from pcl_jax.common import errors

FORMATS = (
  "WAV, FLAC, Ogg Vorbis, Opus, MP3, AIFF, AU, CAF, M4A, AAC, WMA, WavPack, "
  "Matroska and others that libsndfile or FFmpeg know"
)
ACCESS = "access"  # Needed by a file that may not be read.
# Containers of sound, and of video with sound. What plays other files or
# addresses (HLS, concat) is not among them.
_CONTAINERS = (
  "aac,ac3,adx,aiff,amr,ape,asf,asf_o,ast,au,avi,bonk,caf,dsf,dts,dtshd,eac3,"
  "flac,flv,iff,ircam,loas,matroska,webm,mlp,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpc,"
  "mpc8,mpeg,mpegts,mxf,nut,ogg,oma,osq,qcp,qoa,rm,sds,shn,sox,tak,truehd,tta,"
  "voc,vqf,w64,wav,wsd,wtv,wv,xwma"
)
LOWEST_RATE_HZ = 1_000  # A damaged header's 1 Hz would fill the memory.
_BEFORE_S = 1.0  # Decoded before the part begins, until the decoder is right.
_PROBED_PACKETS = 16
# PyAV 19 keeps the bytes of a broken tag; before, they have to be passed over.
_METADATA = (
  {}
  if int(av.__version__.split(".")[0]) >= 19
  else {"metadata_errors": "ignore"}
)
_FULL_SCALE = {"s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}
LARGEST_SAMPLE = 1e6  # Its mel power is far from float32's limit.

Path = str | os.PathLike[str]
Blocks = Iterator[Float32[np.ndarray, " n"]]
_Samples = Float32[np.ndarray, "n channels"]


class UnreadableAudio(errors.InputError):
  """An audio file that cannot be used.

  Attributes:
    reason: what is wrong with it, without its name and without the remedy.
    needs: `ACCESS` if it may be readable once permission is given; else empty.
  """

  def __init__(
    self, path: Path, reason: str, *, remedy: str = "", needs: str = ""
  ):
    """Writes the message; the remedy is by default to leave the file out."""
    remedy = remedy or (
      f"Readable are {FORMATS}: leave the file out or convert it to FLAC."
    )
    super().__init__(f"{os.fspath(path)}: {reason}. {remedy}")
    self.reason = reason
    self.needs = needs


@dataclasses.dataclass(frozen=True)
class Source:
  """Audio about to be decoded, from the beginning of the wanted part.

  Attributes:
    rate_hz: its own sample rate.
    blocks: the mean of its channels, float32, piece by piece.
    stated_s: how long the file says the part is, or None.
  """

  rate_hz: int
  blocks: Blocks
  stated_s: float | None


def ends_before(
  path: Path, from_s: float, length_s: float | None
) -> UnreadableAudio:
  """Returns the error of a file that ends before the part begins."""
  ends = "it ends" if length_s is None else f"it ends at {length_s:.2f} s,"
  reason = f"{ends} before the part wanted begins (from_s is {from_s:g} s)"
  return UnreadableAudio(path, reason, remedy="Give a smaller from_s.")


def _mono(path: Path, samples: _Samples) -> Float32[np.ndarray, " n"]:
  # Written so that not-a-number counts as too large.
  if not (-LARGEST_SAMPLE <= samples.min() <= samples.max() <= LARGEST_SAMPLE):
    raise UnreadableAudio(
      path,
      "it has samples that are not finite numbers, or beyond "
      f"{LARGEST_SAMPLE:g} where full scale is 1",
    )
  return mean_of_channels(samples)


def mean_of_channels(samples: _Samples) -> Float32[np.ndarray, " n"]:
  """Returns the mean of the channels, added in their order."""
  mono = samples[:, 0].copy()
  for channel in range(1, samples.shape[1]):
    mono += samples[:, channel]
  mono /= np.float32(samples.shape[1])
  return mono


def _failure(path: Path, at_s: float, error: Exception) -> UnreadableAudio:
  return UnreadableAudio(
    path, f"it is damaged: decoding fails {at_s:.1f} s in ({error})"
  )


class _ReadOn(soundfile.SoundFile):
  """A file that is read on without the seek that soundfile adds to each read.

  After that seek libsndfile decodes the next 60 ms of an MP3 wrongly.
  """

  reads_on = False

  def seekable(self) -> bool:
    return not self.reads_on and super().seekable()


def _sndfile_source(path, file, from_s, to_s, block_samples) -> Source:
  """Goes to the beginning of a part of a file that libsndfile opened."""
  rate_hz = file.samplerate
  start, end = round(from_s * rate_hz), file.frames
  if to_s is not None:
    end = min(end, max(round(to_s * rate_hz), start + 1))
  if start:
    if start >= file.frames:
      raise ends_before(path, from_s, file.frames / rate_hz)
    try:
      file.seek(start)
    except (soundfile.SoundFileError, OSError) as error:
      raise UnreadableAudio(
        path, f"it is damaged: going to {from_s:g} s fails ({error})"
      ) from error

  file.reads_on = True

  def blocks() -> Blocks:
    done = 0
    # To the end, whatever the header says of it, unless an end is asked for.
    while to_s is None or done < end - start:
      count = min(block_samples, end - start - done) if to_s else block_samples
      try:
        samples = file.read(count, dtype="float32", always_2d=True)
      except (soundfile.SoundFileError, OSError) as error:
        raise _failure(path, done / rate_hz, error) from error
      if not len(samples):
        return
      done += len(samples)
      yield _mono(path, samples)

  return Source(rate_hz, blocks(), (end - start) / rate_hz)


def _stated_length_s(path: Path) -> float | None:
  """Returns how long a file says its audio is, or None if it does not."""
  try:
    length_s = float(mutagen.File(path).info.length)
  # The file may hold anything, and mutagen lets more than its own errors out.
  except Exception:  # noqa: BLE001
    return None
  return length_s if 0 < length_s < float("inf") else None


def _samples(frame: av.AudioFrame) -> _Samples:
  array = frame.to_ndarray().astype(np.float32)
  if frame.format.is_planar:
    array = array.T
  else:
    array = array.reshape(-1, frame.layout.nb_channels)
  kind = frame.format.name.rstrip("p")
  if kind == "u8":
    return (array - 128) / np.float32(128)
  return array / np.float32(_FULL_SCALE.get(kind, 1))


def _mono_frames(path, container, stream, start) -> Blocks:
  """Yields the audio from sample `start` on, a frame of the codec at a time."""
  rate_hz = stream.codec_context.sample_rate
  place: int | None = 0  # Of the next sample.
  # Time stamps of whole milliseconds (WMA, Matroska) do not say which sample a
  # frame begins with: such files are decoded from their beginning.
  if start > _BEFORE_S * rate_hz and stream.time_base <= Fraction(1, rate_hz):
    origin = container.start_time or 0
    container.seek(origin + int((start / rate_hz - _BEFORE_S) * av.time_base))
    place = None
  for packet in container.demux(stream):
    try:
      frames = packet.decode()
    except av.FFmpegError:  # The length that is missing in the end tells.
      continue
    for frame in frames:
      if frame.sample_rate != rate_hz:
        raise ValueError(f"its sample rate becomes {frame.sample_rate} Hz")
      if place is None:
        time_s = frame.pts * frame.time_base - Fraction(origin, av.time_base)
        place = round(time_s * rate_hz)
        if place > start:
          raise ValueError("the beginning of the part is not found")
      samples = _samples(frame)[max(start - place, 0) :]
      place += frame.samples
      if len(samples):
        yield _mono(path, samples)


def _open(path: Path) -> av.container.InputContainer:
  """Opens a file with FFmpeg, which is given this file and no network."""
  # With its protocol and absolute, so that no name is taken for an address.
  return av.open(
    "file:" + os.path.abspath(path),
    options={"protocol_whitelist": "file", "format_whitelist": _CONTAINERS},
    **_METADATA,
  )


def probe(path: Path) -> str:
  """Returns the codec of a file's audio by its content, such as "mp3".

  It takes milliseconds: some packets are decoded from the beginning, since
  nearly any bytes look like some raw stream (MP3, AAC, AC-3) to a demuxer.

  Returns:
    FFmpeg's name of the codec; empty if no audio can be decoded from the file,
    whatever the reason is.
  """
  try:
    with _open(path) as container:
      stream = container.streams.best("audio")
      if stream is None or stream.codec_context is None:
        return ""
      good = bad = 0
      for packet in itertools.islice(container.demux(stream), _PROBED_PACKETS):
        try:
          good += sum(frame.samples > 0 for frame in packet.decode())
        except av.FFmpegError:
          bad += 1
      return stream.codec_context.name if good > bad else ""
  except (av.FFmpegError, ValueError, OSError):
    return ""


def header_tags(path: Path) -> dict[str, str]:
  """Returns what FFmpeg reads of a file's tags: name -> text.

  Returns:
    The tags of its audio and of its container; none if it cannot be opened.
  """
  found: dict[str, str] = {}
  try:
    with _open(path) as container:
      for part in (*container.streams.audio, container):
        found |= part.metadata
  except (av.FFmpegError, ValueError, OSError):
    return {}
  return found


@contextlib.contextmanager
def _av_source(path, from_s, to_s, block_samples, why) -> Iterator[Source]:
  """Opens a part of a file with FFmpeg; `why` is what libsndfile said."""
  with contextlib.ExitStack() as stack:
    try:
      container = stack.enter_context(_open(path))
    except (av.FFmpegError, ValueError) as error:
      raise UnreadableAudio(
        path, f"it cannot be opened (libsndfile: {why}; FFmpeg: {error})"
      ) from error
    stream = next(iter(container.streams.audio), None)
    if stream is None or not stream.codec_context:  # None of a known kind.
      raise UnreadableAudio(path, "no audio can be decoded from it")
    rate_hz = stream.codec_context.sample_rate
    start, length_s = round(from_s * rate_hz), _stated_length_s(path)
    if from_s and length_s is not None and length_s <= from_s:
      raise ends_before(path, from_s, length_s)
    left = max(round(to_s * rate_hz) - start, 1) if to_s else None

    def blocks() -> Blocks:
      held, done = [], 0
      try:
        for frame in _mono_frames(path, container, stream, start):
          held.append(frame[: None if left is None else left - done])
          done += len(held[-1])
          if sum(map(len, held)) >= block_samples:
            yield np.concatenate(held)
            held = []
          if done == left:
            break
      except UnreadableAudio:
        raise
      except (av.FFmpegError, ValueError, TypeError) as error:
        raise _failure(path, done / rate_hz, error) from error
      if held:
        yield np.concatenate(held)

    if length_s is not None:
      length_s = min(length_s, to_s or length_s) - from_s
    yield Source(rate_hz, blocks(), length_s)


@contextlib.contextmanager
def open_part(
  path: Path, from_s: float, to_s: float | None, block_samples: int
) -> Iterator[Source]:
  """Opens a part of a file.

  Args:
    path: the file.
    from_s: where the part begins, in seconds.
    to_s: where it ends; None for the file's end.
    block_samples: about how many samples a block has.

  Raises:
    UnreadableAudio: the file cannot be opened, or ends before the part begins;
      or, while its blocks are read, it is damaged.
  """
  if not pathlib.Path(path).is_file():
    raise UnreadableAudio(path, "there is no such file")
  if os.path.getsize(path) == 0:
    raise UnreadableAudio(path, "the file is empty (0 bytes)")
  try:
    open(path, "rb").close()  # libsndfile calls all of this "System error".
  except OSError as error:
    raise UnreadableAudio(
      path, f"it cannot be read ({error.strerror})", needs=ACCESS
    ) from error
  with contextlib.ExitStack() as stack:
    part = from_s, to_s, block_samples
    try:
      file = stack.enter_context(_ReadOn(os.fsencode(path)))
      source = _sndfile_source(path, file, *part)
    except (soundfile.SoundFileError, OSError) as error:
      why = str(getattr(error, "error_string", error)).rstrip(". ")
      source = stack.enter_context(_av_source(path, *part, why))
    except TypeError as error:  # What soundfile says of the suffix .raw.
      raise UnreadableAudio(path, "headerless audio is not read") from error
    if source.rate_hz < LOWEST_RATE_HZ:
      raise UnreadableAudio(
        path,
        f"its sample rate is {source.rate_hz} Hz, at least {LOWEST_RATE_HZ} "
        "is needed",
      )
    yield source
