"""Audio files to 16 kHz mono, and to the feature, in bounded memory.

Files are decoded by libsndfile, or by ffmpeg where libsndfile does not open
them, a block at a time; channels are averaged and soxr resamples the stream, so
that the result does not depend on the blocks.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import dataclasses
import os
import pathlib

from jaxtyping import Float16, Float32
import numpy as np
import soundfile
import soxr

from pcl_jax.audio import ffmpeg
from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors

FORMATS = (
  "WAV, FLAC, Ogg Vorbis, Opus, MP3, AIFF, AU and CAF; with ffmpeg on PATH "
  "also M4A, AAC, WMA and what else it knows"
)
ACCESS = "access"  # Needed by a file that may not be read.
BLOCK_SAMPLES = 1 << 16  # Of every channel, at the file's own rate.
_FEATURE_FRAMES = 1024  # Computed at a time; fixed, so that results are, too.
_LOWEST_RATE_HZ = 1_000  # A damaged header's 1 Hz would fill the memory.
_LARGEST_SAMPLE = 1e6  # Its mel power is far from float32's limit.
# Less may be missing: the length in an MP3's header is often a little off.
_MISSING_SHARE = 0.01
_MISSING_S = 1.0
_READ_ERRORS = (soundfile.SoundFileError, OSError, ffmpeg.DecodingError)

_Path = str | os.PathLike[str]


class UnreadableAudio(errors.InputError):
  """An audio file that cannot be used.

  Attributes:
    reason: what is wrong with it, without its name and without the remedy.
    needs: what it may be readable with and is not there: the name of a program
      or `ACCESS`; else empty.
  """

  def __init__(
    self, path: _Path, reason: str, *, remedy: str = "", needs: str = ""
  ):
    """Words the message.

    Args:
      path: the file.
      reason: what was found in it.
      remedy: what to do; by default, to leave the file out or convert it.
      needs: what it may be readable with and is not there.
    """
    remedy = remedy or (
      f"Readable are {FORMATS}: leave the file out or convert it, for instance "
      "with ffmpeg -i FILE FILE.flac"
    )
    super().__init__(f"{os.fspath(path)}: {reason}. {remedy}")
    self.reason = reason
    self.needs = needs


@dataclasses.dataclass(frozen=True)
class _Source:
  """Audio about to be decoded, from where the wanted part begins.

  Attributes:
    rate_hz: its own sample rate.
    read: returns the next samples, [n, channels]; none at the part's end.
    stated_s: how long the file says the part is, or None.
  """

  rate_hz: int
  read: Callable[[int], np.ndarray]
  stated_s: float | None


def _ends_before(
  path: _Path, from_s: float, length_s: float | None
) -> UnreadableAudio:
  ends = "it ends" if length_s is None else f"it ends at {length_s:.2f} s,"
  return UnreadableAudio(
    path,
    f"{ends} before the part wanted begins (from_s is {from_s:g} s)",
    remedy="Give a smaller from_s.",
  )


def _part_of(
  path: _Path, file: soundfile.SoundFile, from_s: float, to_s: float | None
) -> _Source:
  """Goes to the beginning of a part of a file that libsndfile opened."""
  rate_hz = file.samplerate
  start, end = round(from_s * rate_hz), file.frames
  if to_s is not None:
    end = min(end, max(round(to_s * rate_hz), start + 1))
  if start:
    if start >= file.frames:
      raise _ends_before(path, from_s, file.frames / rate_hz)
    try:
      file.seek(start)
    except _READ_ERRORS as error:
      raise UnreadableAudio(
        path, f"it is damaged: going to {from_s:g} s fails ({error})"
      ) from error
  # To the end, whatever the header says of it, unless an end is asked for.
  left = None if to_s is None else end - start

  def read(samples: int) -> np.ndarray:
    nonlocal left
    if left is not None:
      samples = min(samples, left)
      left -= samples
    return file.read(samples, dtype="float32", always_2d=True)

  return _Source(rate_hz, read, (end - start) / rate_hz)


@contextlib.contextmanager
def _open_with_ffmpeg(
  path: _Path, from_s: float, to_s: float | None, why: str
) -> Iterator[_Source]:
  """Opens a part of a file that libsndfile does not.

  Args:
    path: the file.
    from_s: where the part begins.
    to_s: where it ends, or None.
    why: what libsndfile said.
  """
  program = ffmpeg.find()
  if program is None:
    raise UnreadableAudio(
      path,
      f"it cannot be opened (libsndfile: {why}), and the decoder "
      f"{ffmpeg.NAME}, which may read it, is not on PATH: {ffmpeg.HOW_TO_GET}",
      needs=ffmpeg.NAME,
    )
  length_s = ffmpeg.stated_length_s(path)
  if from_s and length_s is not None and length_s <= from_s:
    raise _ends_before(path, from_s, length_s)
  try:
    stream = ffmpeg.Stream(program, path, from_s, to_s)
  except ffmpeg.NoAudioError as error:
    if from_s:
      raise _ends_before(path, from_s, length_s) from error
    raise UnreadableAudio(path, "no audio can be decoded from it") from error
  except ffmpeg.DecodingError as error:
    raise UnreadableAudio(
      path, f"it cannot be opened (libsndfile: {why}; {error})"
    ) from error
  with stream:
    if length_s is not None:
      length_s = min(length_s, to_s or length_s) - from_s
    yield _Source(stream.samplerate, stream.read, length_s)


@contextlib.contextmanager
def _open(path: _Path, from_s: float, to_s: float | None) -> Iterator[_Source]:
  """Opens a part of a file."""
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
    try:
      file = stack.enter_context(soundfile.SoundFile(os.fspath(path)))
    except (soundfile.SoundFileError, OSError) as error:
      why = str(getattr(error, "error_string", error)).rstrip(". ")
      source = stack.enter_context(_open_with_ffmpeg(path, from_s, to_s, why))
    except TypeError as error:  # What soundfile says of the suffix .raw.
      raise UnreadableAudio(path, "headerless audio is not read") from error
    else:
      source = _part_of(path, file, from_s, to_s)
    if source.rate_hz < _LOWEST_RATE_HZ:
      raise UnreadableAudio(
        path,
        f"its sample rate is {source.rate_hz} Hz, at least {_LOWEST_RATE_HZ} "
        "is needed",
      )
    yield source


def _decoded(
  path: _Path, source: _Source, block_samples: int, from_s: float
) -> Iterator[Float32[np.ndarray, " n"]]:
  """Yields the mean of the channels at the file's own rate."""
  decoded = 0
  while True:
    try:
      block = source.read(block_samples)
    except _READ_ERRORS as error:
      raise UnreadableAudio(
        path,
        f"it is damaged: decoding fails {decoded / source.rate_hz:.1f} s in "
        f"({error})",
      ) from error
    if not len(block):
      break
    # Written so that not-a-number counts as too large.
    if not -_LARGEST_SAMPLE <= block.min() <= block.max() <= _LARGEST_SAMPLE:
      raise UnreadableAudio(
        path,
        "it has samples that are not finite numbers, or beyond "
        f"{_LARGEST_SAMPLE:g} where full scale is 1",
      )
    decoded += len(block)
    mono = block[:, 0].copy()
    for channel in range(1, block.shape[1]):
      mono += block[:, channel]
    mono /= np.float32(block.shape[1])
    yield mono
  if decoded == 0 and source.stated_s is None and from_s:
    raise _ends_before(path, from_s, None)
  if decoded == 0:
    raise UnreadableAudio(path, "no audio can be decoded from it")
  decoded_s, stated_s = decoded / source.rate_hz, source.stated_s
  if stated_s is not None:
    if stated_s - decoded_s > max(_MISSING_S, _MISSING_SHARE * stated_s):
      raise UnreadableAudio(
        path,
        f"it is damaged or cut short: it says {stated_s:.1f} s and has "
        f"{decoded_s:.1f} s",
      )


def _resampled(
  blocks: Iterable[Float32[np.ndarray, " n"]], rate_hz: int
) -> Iterator[Float32[np.ndarray, " m"]]:
  """Yields the stream at 16 kHz; at least one sample if there was any."""
  target_hz = melspectrogram.SETTINGS.sample_rate_hz
  if rate_hz == target_hz:
    yield from blocks
    return
  stream = soxr.ResampleStream(
    rate_hz, target_hz, 1, dtype="float32", quality="HQ"
  )
  first, empty = None, True
  for block in blocks:
    first = block[:1] if first is None else first
    resampled = stream.resample_chunk(block)
    if len(resampled):
      empty = False
      yield resampled
  last = stream.resample_chunk(np.zeros(0, np.float32), last=True)
  # One sample at 48 kHz is a third of one here, which soxr rounds to none.
  if empty and not len(last) and first is not None:
    last = first
  if len(last):
    yield last


def _check_part(path: _Path, from_s: float, to_s: float | None) -> None:
  # Written so that not-a-number is refused.
  if not 0 <= from_s < np.inf or not (to_s is None or from_s < to_s < np.inf):
    raise errors.InputError(
      f"the part from {from_s} s to {to_s} s of {os.fspath(path)} is empty: "
      "from_s is at least 0 and to_s is greater."
    )


def audio_blocks(
  path: _Path,
  block_samples: int = BLOCK_SAMPLES,
  *,
  from_s: float = 0.0,
  to_s: float | None = None,
) -> Iterator[Float32[np.ndarray, " n"]]:
  """Yields a file's audio, or a part of it, piece by piece, mono at 16 kHz.

  The pieces laid end to end are the same, bit by bit, for any size of block.

  Args:
    path: an audio file of any format libsndfile or, if it is there, ffmpeg
      reads; any sample rate from 1 kHz and any number of channels.
    block_samples: how many samples of each channel are decoded at a time.
    from_s: where the part begins, in seconds. It is gone to, so that what lies
      before is not decoded.
    to_s: where it ends, in seconds; by default, and at most, at the file's end.

  Yields:
    Pieces of float32 audio, none of them empty.

  Raises:
    UnreadableAudio: the file is absent, empty, not audio, damaged, cut short,
      has samples that are not finite or ends before the part begins.
    InputError: the part is empty whatever the file is.
  """
  _check_part(path, from_s, to_s)
  with _open(path, from_s, to_s) as source:
    decoded = _decoded(path, source, block_samples, from_s)
    yield from _resampled(decoded, source.rate_hz)


def read_audio(path: _Path) -> Float32[np.ndarray, " samples"]:
  """Reads a file's audio, mono at 16 kHz: the mean of the channels, resampled.

  Args:
    path: an audio file; see `audio_blocks`.

  Returns:
    Audio, full scale 1, float32 [samples], at least one sample; n samples at
    r Hz become n * 16000 / r, rounded.

  Raises:
    UnreadableAudio: an InputError; see `audio_blocks`.
  """
  return np.concatenate(list(audio_blocks(path)))


def _features(
  blocks: Iterable[Float32[np.ndarray, " n"]],
) -> Iterator[Float16[np.ndarray, "frames bands"]]:
  """Yields the feature of a stream, some frames at a time."""
  # A frame is centred at its hop and reaches one hop to either side. `held`
  # begins one hop before the next frame's centre, so frame 0 of `held` is done.
  hop = melspectrogram.SETTINGS.hop_samples
  full = (_FEATURE_FRAMES + 1) * hop
  held = np.zeros(hop, np.float32)
  for block in blocks:
    held = np.concatenate([held, block])
    while len(held) >= full:
      feature = melspectrogram.log_mel(held[:full])[1 : _FEATURE_FRAMES + 1]
      yield feature.astype(np.float16)
      held = held[_FEATURE_FRAMES * hop :]
  yield melspectrogram.log_mel(held)[1:].astype(np.float16)


def feature_blocks(
  path: _Path,
  from_s: float = 0.0,
  to_s: float | None = None,
  *,
  block_samples: int = BLOCK_SAMPLES,
) -> Iterator[Float16[np.ndarray, "frames bands"]]:
  """Yields what `read_feature` returns, some frames at a time.

  Args:
    path: an audio file; see `audio_blocks`.
    from_s: where the part begins, in seconds.
    to_s: where it ends, in seconds.
    block_samples: how many samples of each channel are decoded at a time.

  Raises:
    InputError: as `read_feature`, at any moment.
  """
  yield from _features(
    audio_blocks(path, block_samples, from_s=from_s, to_s=to_s)
  )


def read_feature(
  path: _Path,
  from_s: float = 0.0,
  to_s: float | None = None,
  *,
  block_samples: int = BLOCK_SAMPLES,
) -> Float16[np.ndarray, "frames bands"]:
  """Computes the feature of a file, or of a part of it, as a song store has it.

  Beside the result itself, a few megabytes are held, however long the file is.

  Args:
    path: an audio file; see `audio_blocks`.
    from_s: where the part begins, in seconds.
    to_s: where it ends, in seconds; by default, and at most, at the file's end.
    block_samples: how many samples of each channel are decoded at a time; the
      result is the same for any.

  Returns:
    The log-mel feature of the part as if it were a file of its own, float16
    [ceil(samples / 256) + 1, 48].

  Raises:
    InputError: the file is not readable or begins behind its end
      (`UnreadableAudio`), or the part is empty.
  """
  blocks = feature_blocks(path, from_s, to_s, block_samples=block_samples)
  return np.concatenate(list(blocks))
