"""Decodes a file to its end: a length is what was decoded, never a header's.

What is missing is counted from what the decoder refuses, from gaps between time
stamps, and from a length that the container knows for certain.
"""

from collections.abc import Iterator
import dataclasses
from fractions import Fraction
import sys
from typing import Any, NamedTuple

import av
from av.audio import plane
from jaxtyping import Float32
import numpy as np

from pcl_jax.audio import channel_mix
from pcl_jax.audio import containers
from pcl_jax.audio import joined_files
from pcl_jax.audio import stated_lengths

LOWEST_RATE_HZ = 1_000  # A damaged header's 1 Hz would fill the memory.
LARGEST_SAMPLE = 1e6  # Its mel power is far from float32's limit.
_BEFORE_S = 1.0  # Decoded before the part begins, until the decoder is right.
# Full scale of integer samples, and numpy's names of PyAV's types.
_FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31}
_TYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}
# Containers in which seeking finds the sample asked for; in others packets are
# passed over; in these some time stamps are wrong.
_SEEKABLE = ("wav", "w64", "aiff", "au", "caf", "flac", "mov")
_DECODED_THROUGH = ("rm", "avi", "voc", "nut")
_FIRST_FRAMES = 2  # The time stamps of the first frame may be off.
_GAPLESS = ("flac", "mov", "ogg")  # A gap between time stamps is a loss.
_PADDING, _PADDING_S = b"\0\xff", 10.0  # Behind the sound, and at most.
_LEAST_GAP_S = 0.05  # Time stamps of Ogg are a little off at the ends.


class Block(NamedTuple):
  """The mean of the channels of some sound.

  Attributes:
    rate_hz: its sample rate, which a joined file may change.
    samples: float32.
  """

  rate_hz: int
  samples: Float32[np.ndarray, " n"]


@dataclasses.dataclass
class Loss:
  """What a file lacks; filled in while it is read.

  Attributes:
    missing_s: how much is known to be damaged or left out, in seconds.
    cut_s: how much more its header counts, behind the end.
    reasons: what says so, in words.
    doubts: signs of a loss of unknown length.
  """

  missing_s: float = 0.0
  cut_s: float = 0.0
  reasons: list[str] = dataclasses.field(default_factory=list)
  doubts: list[str] = dataclasses.field(default_factory=list)


def _mono(
  frame: av.AudioFrame, mix: channel_mix.Mix
) -> Float32[np.ndarray, " n"]:
  """Returns one channel for all of a frame."""
  name, count = frame.format.name, frame.layout.nb_channels
  kind = name.removesuffix("p")
  if kind not in _TYPES:
    raise ValueError(f"samples of the type {name} are not read")
  # frame.planes reads beyond its list where a frame has 8 channels or more.
  if frame.format.is_planar:
    planes = [
      np.frombuffer(plane.AudioPlane(frame, k), _TYPES[kind], frame.samples)
      for k in range(count)
    ]
  else:
    samples = np.frombuffer(
      plane.AudioPlane(frame, 0), _TYPES[kind], frame.samples * count
    )
    planes = list(samples.reshape(-1, count).T)
  if kind == "u8":
    planes = [one.astype(np.float32) - 128 for one in planes]
  return mix(planes, _FULL_SCALE.get(kind, 1.0))


def _is_tag(packet: av.Packet) -> bool:
  """Returns whether a packet holds no sound; the last one is empty."""
  return not packet.size or bytes(packet).startswith(joined_files.TAGS)


class _Stream:
  """The frames of one container, and what is missing of them."""

  def __init__(self, container: containers.Container, sound: containers.Sound):
    self._container, self._stream, self._decoder = container, *sound
    self._kind = container.format.name.split(",")[0]
    rate_hz = self._stream.codec_context.sample_rate
    self._ticks = 0  # Of time stamps a sample, if they count samples.
    if rate_hz and self._stream.time_base:
      ticks = 1 / (rate_hz * self._stream.time_base)
      self._ticks = ticks.numerator if ticks.denominator == 1 else 0
    self._passed_over = 0  # How many frames correct the place.
    self._frames = 0
    self.end_pts: int | None = None  # Behind the last frame.
    self.gaps_s = self.refused_s = 0.0
    self.doubts: list[str] = []

  def _counts_samples(self) -> bool:
    """Returns whether time stamps say which sample a frame begins with."""
    name = self._stream.codec_context.name
    if self._kind in ("wav", "aiff", "caf", "au") and name[:4] != "pcm_":
      return False  # Those of ADPCM are wrong.
    return bool(self._ticks) and self._kind not in _DECODED_THROUGH

  def _packets(self, near_s: float) -> Iterator[av.Packet | None]:
    """Yields packets: the first ones, then those from `near_s` on.

    If reading fails, the last one is None.
    """
    packets = self._container.demux(self._stream)
    try:
      if near_s > 0 and self._counts_samples():
        first = None
        for packet in packets:
          first = packet.pts if first is None else first
          yield packet
          if self._frames >= _FIRST_FRAMES:
            break
        if first is not None:
          yield from self._pass_over(packets, first, near_s)
      yield from packets
    except av.FFmpegError as error:
      self.doubts.append(f"reading stops early: {error.strerror}")
      yield None

  def _pass_over(self, packets, first: int, near_s: float):
    """Goes on to about `near_s`; yields the packet found there."""
    place = first + int(near_s / self._stream.time_base)
    if self.end_pts is None or place <= self.end_pts:
      return
    self._passed_over = _FIRST_FRAMES
    if self._kind in _SEEKABLE:
      self._container.seek(place, stream=self._stream)
      place = 0
    self._decoder.flush_buffers()
    for packet in packets:
      if packet.pts is None or packet.pts >= place:
        yield packet
        return

  def frames(self, near_s: float) -> Iterator[tuple[Any, av.AudioFrame]]:
    """Yields frames up to the end, and before each what was passed over.

    Args:
      near_s: where frames are wanted from; those before it may be passed over.

    Yields:
      How many seconds were passed over before the frame, and the frame.
    """
    good: tuple[av.AudioFrame, av.Packet] | None = None  # The last ones.
    refused: list[tuple] = []  # Since then.
    decode = self._decoder.decode
    for packet in self._packets(near_s):
      try:
        frames = decode(packet)
      except av.FFmpegError as error:
        if packet is not None and not _is_tag(packet):
          refused.append((packet, good, error))
        continue
      if frames and refused:
        self._refuse(refused)
        refused = []
      for frame in frames:
        passed_s = self._note(frame)
        if frame.samples:
          yield passed_s, frame
      if frames and packet is not None and packet.size:
        good = frame, packet
    self._refuse(refused, is_end=True)

  def _refuse(self, refused: list[tuple], is_end: bool = False) -> None:
    """Adds up what is refused, by the last packet that was not."""
    for packet, good, error in (one for one in refused if one[1]):
      good_s = good[0].samples / good[0].sample_rate
      about_s = good_s * packet.size / good[1].size
      if is_end and about_s < _PADDING_S and not bytes(packet).strip(_PADDING):
        continue
      self.refused_s += good_s
      if about_s > 1.5 * good_s:  # What is no packet is not a known loss.
        self.doubts.append(f"about {about_s:.1f} s: {error.strerror}")

  def _note(self, frame: av.AudioFrame) -> Fraction | int:
    """Adds up gaps; returns how many seconds were passed over on purpose."""
    passed_s, pts, end_pts = 0, frame.pts, self.end_pts
    if not self._ticks or pts is None:
      return passed_s
    self._frames += 1
    self.end_pts = pts + frame.samples * self._ticks
    if pts != end_pts and end_pts is not None:
      ahead_s = (pts - end_pts) * self._stream.time_base
      if self._passed_over:
        passed_s = ahead_s
      elif ahead_s > _LEAST_GAP_S and self._kind in _GAPLESS:
        self.gaps_s += float(ahead_s)
    if self._passed_over:
      self._passed_over -= 1
    return passed_s


class _Window:
  """Cuts a part out of frames and gathers them to blocks."""

  def __init__(
    self,
    from_s: float,
    to_s: float | None,
    block_samples: int,
    mix: channel_mix.Mix,
  ):
    self._mix = mix
    self._from_s, self._to_s = Fraction(from_s), to_s and Fraction(to_s)
    self._block_samples = block_samples
    self._before_s = Fraction(0)  # Of sound of other rates or channels.
    self._kind: tuple[int, int, str] | None = None
    self._fifo = av.AudioFifo()
    self._place = 0  # Of the next sample, behind what is in the fifo.
    self._begin, self._end = 0, sys.maxsize
    self.is_over = False

  @property
  def decoded_s(self) -> float:
    """How much sound there was, before the part and in it."""
    return float(self._before_s) + (
      self._place / self._kind[0] if self._kind else 0.0
    )

  def _start(self, kind: tuple[int, int, str]) -> None:
    """Begins with sound of another kind."""
    if self._kind:
      self._before_s += Fraction(self._place, self._kind[0])
    self._kind, self._fifo, self._place = kind, av.AudioFifo(), 0
    rate_hz = kind[0]
    self._begin = max(round((self._from_s - self._before_s) * rate_hz), 0)
    if self._to_s is not None:
      self._end = round((self._to_s - self._before_s) * rate_hz)
      if not self._before_s:
        self._end = max(self._end, self._begin + 1)

  def _drain(self) -> list[Block]:
    """Takes out what is in the fifo; no block or one."""
    frame = self._fifo.read()
    if frame is None:
      return []
    begin = self._place - frame.samples
    end = max(self._end - begin, 0)
    mono = _mono(frame, self._mix)[max(self._begin - begin, 0) : end]
    return [Block(self._kind[0], mono)] if len(mono) else []

  def blocks(self, frames) -> Iterator[Block]:
    """Takes frames, with what was passed over before each; yields blocks."""
    for passed_s, frame in frames:
      kind = frame.sample_rate, frame.layout.nb_channels, frame.format.name
      if kind != self._kind:
        yield from self._drain()
        self._start(kind)
      self._place += frame.samples
      if passed_s:
        self._place += round(passed_s * kind[0])
      if self._place <= self._begin:
        continue
      frame.pts = None  # The fifo would compare it.
      self._fifo.write(frame)
      if self._fifo.samples >= self._block_samples or self._place >= self._end:
        yield from self._drain()
      if self._place >= self._end:
        self.is_over = True
        return
    yield from self._drain()


def _checked(path: containers.Path, block: Block) -> Block:
  if block.rate_hz < LOWEST_RATE_HZ:
    raise containers.UnreadableAudio(
      path,
      f"its sample rate is {block.rate_hz} Hz, at least {LOWEST_RATE_HZ} is "
      "needed",
    )
  low, high = block.samples.min(), block.samples.max()
  # Written so that not-a-number counts as too large.
  if not (-LARGEST_SAMPLE <= low <= high <= LARGEST_SAMPLE):
    raise containers.UnreadableAudio(
      path,
      "it has samples that are not finite numbers, or beyond "
      f"{LARGEST_SAMPLE:g} where full scale is 1",
    )
  return block


def _opened(path, begin: int, end: int, is_joined: bool):
  """Opens one of the files of a file, and its stream of sound."""
  part = (begin, end) if is_joined else ()
  try:
    container = containers.open_part(path, *part)
  except (av.FFmpegError, ValueError) as error:
    reason = getattr(error, "strerror", None) or str(error)
    raise containers.UnreadableAudio(
      path, f"it cannot be opened ({reason})"
    ) from error
  return container, containers.sound_of(container)


def read_blocks(
  path: containers.Path,
  from_s: float,
  to_s: float | None,
  block_samples: int,
  loss: Loss,
  mix: channel_mix.Mix | None = None,
) -> Iterator[Block]:
  """Yields a part of a file, decoded, in blocks of about `block_samples`.

  Args:
    path: the file.
    from_s: where the part begins, in seconds of decoded sound.
    to_s: where it ends; None for the file's end.
    block_samples: how many samples a block has at least, but for some.
    loss: told what is missing, once all blocks are read.
    mix: makes one channel of all; by default their mean.

  Raises:
    UnreadableAudio: the file cannot be opened or decoded, or ends before the
      part begins.
  """
  containers.check_readable(path)
  window = _Window(from_s, to_s, block_samples, mix or channel_mix.Mix())
  parts = joined_files.parts(path)
  for begin, end in parts:
    container, found = _opened(path, begin, end, len(parts) > 1)
    with container:
      if found is None:
        loss.doubts.append("it has no audio that can be decoded")
        continue
      sound = _Stream(container, found)
      before_s = window.decoded_s
      near_s = from_s - _BEFORE_S if len(parts) == 1 else 0.0
      try:
        blocks = window.blocks(sound.frames(near_s))
        yield from (_checked(path, block) for block in blocks)
      except (av.FFmpegError, ValueError) as error:
        raise _failure(path, window.decoded_s, error) from error
      ended = stated_lengths.Place(window.decoded_s - before_s, sound.end_pts)
      stated = 0.0, ""
      if not window.is_over:
        stated = stated_lengths.missing_s(
          path, begin, end, container, found.stream, ended
        )
      _add(loss, sound, *stated)
    if window.is_over:
      return
  if from_s and window.decoded_s <= from_s:
    raise _ends_before(path, from_s, window.decoded_s)


def _add(loss: Loss, sound: _Stream, stated_s: float, reason: str) -> None:
  """Adds what is missing of one container to the loss."""
  inside_s = max(sound.refused_s, sound.gaps_s)
  if inside_s:
    loss.reasons.append("some of it cannot be decoded")
  if stated_s:
    loss.reasons.append(reason)
  elif reason:
    loss.doubts.append(reason)
  loss.missing_s += inside_s
  # A count of all samples has what was refused in it, too.
  loss.cut_s += max(stated_s - inside_s, 0.0)
  loss.doubts += sound.doubts


def _ends_before(path, from_s, length_s) -> containers.UnreadableAudio:
  # None is known if even the second before the part was not found.
  ends = f"it ends at {length_s:.2f} s," if length_s else "it ends"
  return containers.UnreadableAudio(
    path,
    f"{ends} before the part wanted begins (from_s is {from_s:g} s)",
    remedy="Give a smaller from_s.",
  )


def _failure(path, at_s: float, error: Exception) -> containers.UnreadableAudio:
  reason = getattr(error, "strerror", None) or str(error)
  return containers.UnreadableAudio(
    path, f"it is damaged: decoding fails {at_s:.1f} s in ({reason})"
  )
