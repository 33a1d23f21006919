"""Audio files and samples to 16 kHz mono, and to the feature.

Files are decoded a block at a time, in bounded memory; channels are averaged
and soxr resamples the stream, so that the result does not depend on the blocks.
"""

from collections.abc import Callable, Iterable, Iterator
import itertools
import operator
import os
from typing import Any

from jaxtyping import Float16, Float32
import numpy as np
import soxr

from pcl_jax.audio import channel_mix
from pcl_jax.audio import containers
from pcl_jax.audio import melspectrogram
from pcl_jax.audio import sample_reader
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import file_names

BLOCK_SAMPLES = 1 << 16  # Of every channel, at the file's own rate.
_FEATURE_FRAMES = 1024  # Computed at a time; fixed, so that results are, too.
_REFUSED_SHARE, _REFUSED_S = 0.01, 1.0  # More must not be damaged.
_TOLD_S = 0.1  # Less is not worth a warning.

FORMATS = containers.FORMATS
UnreadableAudio = containers.UnreadableAudio
probe = containers.probe
Warn = Callable[[containers.Path, str], None]
_Path = containers.Path
_Blocks = Iterator[Float32[np.ndarray, " n"]]
_Features = Iterator[Float16[np.ndarray, "frames bands"]]


def _warn(path: _Path, reason: str) -> None:
  console.warn(f"{file_names.shown(os.fspath(path))}: {reason}")


def _check_loss(path: _Path, loss: sample_reader.Loss, decoded_s: float) -> str:
  """Returns what to tell of what is missing; refuses a file that lacks much."""
  if decoded_s == 0:
    why = f" ({'; '.join(loss.doubts[:1])})" if loss.doubts else ""
    raise UnreadableAudio(path, f"no audio can be decoded from it{why}")
  missing_s = loss.missing_s + loss.cut_s
  whole_s = decoded_s + missing_s
  if loss.missing_s > max(_REFUSED_S, _REFUSED_SHARE * whole_s):
    raise UnreadableAudio(
      path,
      f"it is damaged: {missing_s:.1f} s of {whole_s:.1f} s are missing "
      f"({'; '.join(loss.reasons)})",
    )
  if missing_s > _TOLD_S:
    return (
      f"{missing_s:.1f} s of {whole_s:.1f} s are missing "
      f"({'; '.join(loss.reasons)}); the rest is used"
    )
  if loss.doubts:
    return f"it may be damaged or cut short ({loss.doubts[0]}); it is used"
  return ""


def _resampled(
  blocks: Iterable[tuple[int, Float32[np.ndarray, " n"]]],
) -> _Blocks:
  """Yields blocks of any sample rates at 16 kHz."""
  for rate_hz, run in itertools.groupby(blocks, operator.itemgetter(0)):
    yield from _resampled_run((samples for _, samples in run), rate_hz)


def _resampled_run(blocks: _Blocks, rate_hz: int | float) -> _Blocks:
  """Yields a stream at 16 kHz; at least one sample if there was any."""
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


def _counted(
  path: _Path,
  blocks: Iterator[sample_reader.Block],
  loss: sample_reader.Loss,
  warn: Warn,
) -> Iterator[sample_reader.Block]:
  """Yields blocks; then judges what is missing."""
  decoded_s = 0.0
  for block in blocks:
    decoded_s += len(block.samples) / block.rate_hz
    yield block
  told = _check_loss(path, loss, decoded_s)
  if told:
    warn(path, told)


def audio_blocks(
  path: _Path,
  from_s: float = 0.0,
  to_s: float | None = None,
  warn: Warn = _warn,
  channels: str = channel_mix.MEAN,
) -> _Blocks:
  """Yields a file's audio, or a part of it, piece by piece, mono at 16 kHz.

  Laid end to end, the pieces do not depend on `BLOCK_SAMPLES`; n samples at r
  Hz become n * 16000 / r, rounded, and at least one.

  Args:
    path: an audio file of any format that FFmpeg reads, with any sample rate
      from 1 kHz and any number of channels; both may change.
    from_s: where the part begins, in seconds of decoded sound, exact to the
      sample.
    to_s: where it ends, in seconds; by default, and at most, at the file's end.
    warn: called with the path and the reason where a little is missing of a
      file; by default it prints them.
    channels: what is taken of several channels, one of `channel_mix.CHOICES`:
      the mean, the first, or the one with the most energy in the part, for
      which the file is decoded twice.

  Yields:
    Pieces of float32 audio of full scale 1, none of them empty.

  Raises:
    UnreadableAudio: the file is absent, empty or not audio; more than 1 s and
      1 % of it cannot be decoded (a file that is cut short is used, and told);
      it has samples that are not finite, or ends before the part begins.
    InputError: the part is empty whatever the file is.
  """
  # Written so that not-a-number is refused.
  if not 0 <= from_s < np.inf or not (to_s is None or from_s < to_s < np.inf):
    raise errors.InputError(
      f"the part from {from_s} s to {to_s} s of {os.fspath(path)} is empty: "
      "from_s is at least 0 and to_s is greater."
    )
  loss, part = sample_reader.Loss(), (path, from_s, to_s, BLOCK_SAMPLES)
  channel_mix.check(channels)
  mix = channel_mix.Mix(None if channels == channel_mix.MEAN else 0)
  if channels == channel_mix.LOUDEST:  # Which one it is, the end tells.
    energies = channel_mix.Energies()
    for _ in sample_reader.read_blocks(*part, sample_reader.Loss(), energies):
      pass
    mix = channel_mix.Mix(energies.loudest())
  blocks = sample_reader.read_blocks(*part, loss, mix)
  yield from _resampled(_counted(path, blocks, loss, warn))


def _features_of(blocks: _Blocks) -> _Features:
  """Yields the feature of a stream, some frames at a time."""
  # A frame is centred at its hop and reaches one hop to either side. `held`
  # begins one hop before the next frame's centre, so frame 0 of `held` is done.
  hop = melspectrogram.SETTINGS.hop_samples
  full = (_FEATURE_FRAMES + 1) * hop
  held, count = [np.zeros(hop, np.float32)], hop
  for block in blocks:
    held.append(block)
    count += len(block)
    if count < full:
      continue
    joined = np.concatenate(held)
    while len(joined) >= full:
      feature = melspectrogram.log_mel(joined[:full])[1 : _FEATURE_FRAMES + 1]
      yield feature.astype(np.float16)
      joined = joined[_FEATURE_FRAMES * hop :]
    held, count = [joined], len(joined)
  yield melspectrogram.log_mel(np.concatenate(held))[1:].astype(np.float16)


def feature_blocks(
  path: _Path,
  from_s: float = 0.0,
  to_s: float | None = None,
  warn: Warn = _warn,
  channels: str = channel_mix.MEAN,
) -> _Features:
  """Yields what `read_feature` returns, some frames at a time."""
  return _features_of(audio_blocks(path, from_s, to_s, warn, channels))


def read_feature(
  path: _Path,
  from_s: float = 0.0,
  to_s: float | None = None,
  warn: Warn = _warn,
  channels: str = channel_mix.MEAN,
) -> Float16[np.ndarray, "frames bands"]:
  """Computes the feature of a file, or of a part of it, as a song store has it.

  Besides the result, a few megabytes are held, however long the file is. The
  arguments and errors are those of `audio_blocks`.

  Returns:
    The log-mel feature of the part as if it were a file of its own, float16
    [ceil(samples / 256) + 1, 48].
  """
  blocks = feature_blocks(path, from_s, to_s, warn, channels)
  return np.concatenate(list(blocks))


def sample_blocks(
  samples: Any,
  sample_rate_hz: int | float | None,
  channels: str = channel_mix.MEAN,
) -> _Features:
  """Returns what `feature_blocks` yields of a file with these samples.

  Args:
    samples: floating-point numbers of full scale 1, [samples] or [samples,
      channels].
    sample_rate_hz: how many samples a second there are.
    channels: what is taken of several, as `audio_blocks` has it.

  Raises:
    InputError: they are not of this type or shape, none, too large or not
      finite; or the rate is missing or too low.
  """
  samples = _checked(np.asarray(samples), sample_rate_hz)
  channel_mix.check(channels)
  mix = channel_mix.Mix(None if channels == channel_mix.MEAN else 0)
  parts = [
    list(samples[begin : begin + BLOCK_SAMPLES].T)
    for begin in range(0, len(samples), BLOCK_SAMPLES)
  ]
  if channels == channel_mix.LOUDEST:
    energies = channel_mix.Energies()
    for part in parts:
      energies(part)
    mix = channel_mix.Mix(energies.loudest())
  blocks = map(mix, parts)
  return _features_of(_resampled_run(blocks, sample_rate_hz))


def _checked(samples, sample_rate_hz):
  """Returns the samples as [samples, channels]."""
  if sample_rate_hz is None:
    raise errors.InputError(
      "samples were given without sample_rate_hz: give it, for example "
      "sample_rate_hz=44_100."
    )
  if not sample_reader.LOWEST_RATE_HZ <= sample_rate_hz < np.inf:
    raise errors.InputError(
      f"sample_rate_hz is {sample_rate_hz}: give how many samples a second "
      f"there are, at least {sample_reader.LOWEST_RATE_HZ}."
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
  most = sample_reader.LARGEST_SAMPLE
  # Written so that NaN is refused.
  if not -most <= samples.min() <= samples.max() <= most:
    raise errors.InputError(
      f"some samples are not finite numbers, or beyond {most:g} where full "
      "scale is 1: leave them out, or scale them."
    )
  return samples.reshape(len(samples), -1)
