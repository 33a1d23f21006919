"""Audio files to 16 kHz mono, and to the feature, in bounded memory.

Files are decoded a block at a time; channels are averaged and soxr resamples
the stream, so that the result does not depend on the blocks.
"""

from collections.abc import Iterable, Iterator
import os

from jaxtyping import Float16, Float32
import numpy as np
import soxr

from pcl_jax.audio import containers
from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors

BLOCK_SAMPLES = 1 << 16  # Of every channel, at the file's own rate.
_FEATURE_FRAMES = 1024  # Computed at a time; fixed, so that results are, too.
# Less may be missing: the length in an MP3's header is often a little off.
_MISSING_SHARE = 0.01
_MISSING_S = 1.0

FORMATS = containers.FORMATS
UnreadableAudio = containers.UnreadableAudio
_Path = containers.Path


def _decoded(
  path: _Path, source: containers.Source, from_s: float
) -> Iterator[Float32[np.ndarray, " n"]]:
  """Yields the audio of a source; checks that it is all there."""
  decoded = 0
  for block in source.blocks:
    decoded += len(block)
    yield block
  stated_s, decoded_s = source.stated_s, decoded / source.rate_hz
  if decoded == 0 and stated_s is None and from_s:
    raise containers.ends_before(path, from_s, None)
  if decoded == 0:
    raise UnreadableAudio(path, "no audio can be decoded from it")
  if stated_s is not None:
    if stated_s - decoded_s > max(_MISSING_S, _MISSING_SHARE * stated_s):
      raise UnreadableAudio(
        path,
        f"it is damaged or cut short: it says {stated_s:.1f} s and has "
        f"{decoded_s:.1f} s",
      )


def resampled(
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
    path: an audio file of any format that libsndfile or FFmpeg reads, with any
      sample rate from 1 kHz and any number of channels.
    block_samples: how many samples of each channel are decoded at a time.
    from_s: where the part begins, in seconds, exact to the sample. The decoder
      goes there at once where the format says at which sample it then is.
    to_s: where it ends, in seconds; by default, and at most, at the file's end.

  Yields:
    Pieces of float32 audio, none of them empty.

  Raises:
    UnreadableAudio: the file is absent, empty, not audio, damaged, cut short,
      has samples that are not finite or ends before the part begins.
    InputError: the part is empty whatever the file is.
  """
  _check_part(path, from_s, to_s)
  with containers.open_part(path, from_s, to_s, block_samples) as source:
    yield from resampled(_decoded(path, source, from_s), source.rate_hz)


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


def features_of(
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
  yield from features_of(
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
