"""Audio files and samples to 16 kHz mono, and to the feature.

Files are decoded a block at a time, in bounded memory; channels are averaged
and soxr resamples the stream, so that the result does not depend on the blocks.
"""

from collections.abc import Iterator
import os
from typing import Any

from jaxtyping import Float16
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
probe = containers.probe
_Path = containers.Path
_Features = Iterator[Float16[np.ndarray, "frames bands"]]


def _decoded(
  path: _Path, source: containers.Source, from_s: float
) -> containers.Blocks:
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
  stated_s = stated_s or 0.0
  if stated_s - decoded_s > max(_MISSING_S, _MISSING_SHARE * stated_s):
    raise UnreadableAudio(
      path,
      f"it is damaged or cut short: it says {stated_s:.1f} s and has "
      f"{decoded_s:.1f} s",
    )


def _resampled(blocks: containers.Blocks, rate_hz: int) -> containers.Blocks:
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
    piece = stream.resample_chunk(block)
    if len(piece):
      empty = False
      yield piece
  last = stream.resample_chunk(np.zeros(0, np.float32), last=True)
  # One sample at 48 kHz is a third of one here, which soxr rounds to none.
  if empty and not len(last) and first is not None:
    last = first
  if len(last):
    yield last


def audio_blocks(
  path: _Path, from_s: float = 0.0, to_s: float | None = None
) -> containers.Blocks:
  """Yields a file's audio, or a part of it, piece by piece, mono at 16 kHz.

  Laid end to end, the pieces do not depend on `BLOCK_SAMPLES`; n samples at r
  Hz become n * 16000 / r, rounded, and at least one.

  Args:
    path: an audio file of any format that libsndfile or FFmpeg reads, with any
      sample rate from 1 kHz and any number of channels.
    from_s: where the part begins, in seconds, exact to the sample.
    to_s: where it ends, in seconds; by default, and at most, at the file's end.

  Yields:
    Pieces of float32 audio of full scale 1, none of them empty.

  Raises:
    UnreadableAudio: the file is absent, empty, not audio, damaged, cut short,
      has samples that are not finite or ends before the part begins.
    InputError: the part is empty whatever the file is.
  """
  # Written so that not-a-number is refused.
  if not 0 <= from_s < np.inf or not (to_s is None or from_s < to_s < np.inf):
    raise errors.InputError(
      f"the part from {from_s} s to {to_s} s of {os.fspath(path)} is empty: "
      "from_s is at least 0 and to_s is greater."
    )
  with containers.open_part(path, from_s, to_s, BLOCK_SAMPLES) as source:
    yield from _resampled(_decoded(path, source, from_s), source.rate_hz)


def _features_of(blocks: containers.Blocks) -> _Features:
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
  path: _Path, from_s: float = 0.0, to_s: float | None = None
) -> _Features:
  """Yields what `read_feature` returns, some frames at a time."""
  return _features_of(audio_blocks(path, from_s, to_s))


def read_feature(
  path: _Path, from_s: float = 0.0, to_s: float | None = None
) -> Float16[np.ndarray, "frames bands"]:
  """Computes the feature of a file, or of a part of it, as a song store has it.

  Besides the result, a few megabytes are held, however long the file is. The
  arguments and errors are those of `audio_blocks`.

  Returns:
    The log-mel feature of the part as if it were a file of its own, float16
    [ceil(samples / 256) + 1, 48].
  """
  return np.concatenate(list(feature_blocks(path, from_s, to_s)))


def sample_blocks(
  samples: Any, sample_rate_hz: int | float | None
) -> _Features:
  """Returns what `feature_blocks` yields of a file with these samples.

  Args:
    samples: floating-point numbers of full scale 1, [samples] or [samples,
      channels], of which the mean over the channels is taken.
    sample_rate_hz: how many samples a second there are.

  Raises:
    InputError: they are not of this type or shape, none, too large or not
      finite; or the rate is missing or too low.
  """
  samples = _checked(np.asarray(samples), sample_rate_hz)
  blocks = (
    containers.mean_of_channels(
      samples[begin : begin + BLOCK_SAMPLES].astype(np.float32)
    )
    for begin in range(0, len(samples), BLOCK_SAMPLES)
  )
  return _features_of(_resampled(blocks, sample_rate_hz))


def _checked(samples, sample_rate_hz):
  """Returns the samples as [samples, channels]."""
  if sample_rate_hz is None:
    raise errors.InputError(
      "samples were given without sample_rate_hz: give it, for example "
      "sample_rate_hz=44_100."
    )
  if not containers.LOWEST_RATE_HZ <= sample_rate_hz < np.inf:
    raise errors.InputError(
      f"sample_rate_hz is {sample_rate_hz}: give how many samples a second "
      f"there are, at least {containers.LOWEST_RATE_HZ}."
    )
  if not np.issubdtype(samples.dtype, np.floating):
    raise errors.InputError(
      f"the samples are of type {samples.dtype}: give floating-point numbers "
      "of full scale 1, for int16 by samples / 32768."
    )
  shape = samples.shape
  if samples.ndim not in (1, 2) or not samples.size:
    raise errors.InputError(
      f"the samples have shape {shape}: give [samples] or [samples, channels], "
      "with at least one sample."
    )
  if samples.ndim == 2 and shape[1] > shape[0]:
    raise errors.InputError(
      f"the samples have shape {shape}, more channels than samples: give "
      "[samples, channels], perhaps by samples.T."
    )
  most = containers.LARGEST_SAMPLE
  # Written so that NaN is refused.
  if not -most <= samples.min() <= samples.max() <= most:
    raise errors.InputError(
      f"some samples are not finite numbers, or beyond {most:g} where full "
      "scale is 1: leave them out, or scale them."
    )
  return samples.reshape(len(samples), -1)
