"""Audio files to 16 kHz mono, and to the feature, in bounded memory.

Files are decoded by libsndfile, a block at a time; channels are averaged and
soxr resamples the stream, so that the result does not depend on the blocks.
"""

from collections.abc import Iterable, Iterator
import itertools
import os
import pathlib

from jaxtyping import Float16, Float32
import numpy as np
import soundfile
import soxr

from pcl_jax import errors
from pcl_jax import melspectrogram

FORMATS = "WAV, FLAC, Ogg Vorbis, Opus, MP3, AIFF, AU and CAF"
BLOCK_SAMPLES = 1 << 16  # Of every channel, at the file's own rate.
_FEATURE_FRAMES = 1024  # Computed at a time; fixed, so that results are, too.
_LOWEST_RATE_HZ = 1_000  # A damaged header's 1 Hz would fill the memory.
_LARGEST_SAMPLE = 1e6  # Its mel power is far from float32's limit.
# Less may be missing: the length in an MP3's header is often a little off.
_MISSING_SHARE = 0.01
_MISSING_S = 1.0

_Path = str | os.PathLike[str]


class UnreadableAudio(errors.InputError):
  """An audio file that cannot be used.

  Attributes:
    reason: what is wrong with it, without its name and without the remedy.
  """

  def __init__(self, path: _Path, reason: str):
    """Words the message.

    Args:
      path: the file.
      reason: what was found in it.
    """
    super().__init__(
      f"{os.fspath(path)}: {reason}. Readable are {FORMATS}: leave the file "
      "out or convert it, for instance with ffmpeg -i FILE FILE.flac"
    )
    self.reason = reason


def _open(path: _Path) -> soundfile.SoundFile:
  if not pathlib.Path(path).is_file():
    raise UnreadableAudio(path, "there is no such file")
  if os.path.getsize(path) == 0:
    raise UnreadableAudio(path, "the file is empty (0 bytes)")
  try:
    file = soundfile.SoundFile(os.fspath(path))
  except (soundfile.SoundFileError, OSError) as error:
    raise UnreadableAudio(path, f"it cannot be opened ({error})") from error
  except TypeError as error:  # What soundfile says of the suffix .raw.
    raise UnreadableAudio(path, "headerless audio is not read") from error
  if file.samplerate < _LOWEST_RATE_HZ:
    rate_hz = file.samplerate
    file.close()
    raise UnreadableAudio(
      path,
      f"its sample rate is {rate_hz} Hz, at least {_LOWEST_RATE_HZ} is needed",
    )
  return file


def _decoded(
  path: _Path, file: soundfile.SoundFile, block_samples: int
) -> Iterator[Float32[np.ndarray, " n"]]:
  """Yields the mean of the channels at the file's own rate."""
  decoded = 0
  while True:
    try:
      block = file.read(block_samples, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
      raise UnreadableAudio(
        path,
        f"it is damaged: decoding fails {decoded / file.samplerate:.1f} s in "
        f"({error})",
      ) from error
    if not len(block):
      break
    # Written so that not-a-number counts as too large.
    if not np.abs(block).max() <= _LARGEST_SAMPLE:
      raise UnreadableAudio(
        path,
        "it has samples that are not finite numbers, or beyond "
        f"{_LARGEST_SAMPLE:g} where full scale is 1",
      )
    decoded += len(block)
    mono = block[:, 0].copy()
    for channel in range(1, block.shape[1]):
      mono += block[:, channel]
    yield mono / np.float32(block.shape[1])
  length_s = file.frames / file.samplerate
  missing_s = length_s - decoded / file.samplerate
  if decoded == 0:
    raise UnreadableAudio(path, "no audio can be decoded from it")
  if missing_s > max(_MISSING_S, _MISSING_SHARE * length_s):
    raise UnreadableAudio(
      path,
      f"it is damaged or cut short: it says {file.frames} samples and has "
      f"{decoded}",
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


def audio_blocks(
  path: _Path, block_samples: int = BLOCK_SAMPLES
) -> Iterator[Float32[np.ndarray, " n"]]:
  """Yields a file's audio piece by piece, mono at 16 kHz.

  The pieces laid end to end are the same, bit by bit, for any size of block.

  Args:
    path: an audio file of any format libsndfile reads, any sample rate from
      1 kHz and any number of channels.
    block_samples: how many samples of each channel are decoded at a time.

  Yields:
    Pieces of float32 audio, none of them empty.

  Raises:
    UnreadableAudio: the file is absent, empty, not audio, damaged, cut short
      or has samples that are not finite.
  """
  with _open(path) as file:
    decoded = _decoded(path, file, block_samples)
    yield from _resampled(decoded, file.samplerate)


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


def _cut(
  blocks: Iterable[Float32[np.ndarray, " n"]], start: int, end: int | None
) -> Iterator[Float32[np.ndarray, " m"]]:
  """Yields samples start..end of a stream; reads no further than its end."""
  position = 0
  for block in blocks:
    piece = block[
      max(start - position, 0) : None if end is None else end - position
    ]
    position += len(block)
    if len(piece):
      yield piece
    if end is not None and position >= end:
      return


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
    from_s: where the part begins, in seconds. What lies before is decoded and
      left out, so that the part is exact in every format.
    to_s: where it ends, in seconds; by default, and at most, at the file's end.
    block_samples: how many samples of each channel are decoded at a time; the
      result is the same for any.

  Returns:
    The log-mel feature of the part as if it were a file of its own, float16
    [ceil(samples / 256) + 1, 48].

  Raises:
    InputError: the file is not readable (`UnreadableAudio`), or the part is
      empty or begins behind the file's end.
  """
  if from_s < 0 or (to_s is not None and to_s <= from_s):
    raise errors.InputError(
      f"the part from {from_s} s to {to_s} s of {os.fspath(path)} is empty: "
      "from_s is at least 0 and to_s is greater."
    )
  rate_hz = melspectrogram.SETTINGS.sample_rate_hz
  start = round(from_s * rate_hz)
  end = None if to_s is None else max(round(to_s * rate_hz), start + 1)
  pieces = _cut(audio_blocks(path, block_samples), start, end)
  first = next(pieces, None)
  if first is None:
    raise errors.InputError(
      f"{os.fspath(path)} ends before the part wanted begins, at {from_s} s: "
      "give a smaller from_s."
    )
  return np.concatenate(list(_features(itertools.chain([first], pieces))))
