"""Audio files opened with the FFmpeg libraries that PyAV brings."""

import itertools
import os
import pathlib
from typing import Any, NamedTuple

import av

from pcl_jax.audio import joined_files
from pcl_jax.audio import unknown_sizes
from pcl_jax.common import errors

FORMATS = (
  "WAV, FLAC, Ogg Vorbis, Opus, MP3, AIFF, AU, CAF, M4A, AAC, WMA, WavPack, "
  "Matroska and others that FFmpeg knows"
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
_PROBED_PACKETS = 16
# PyAV 19 keeps the bytes of a broken tag; before, they have to be passed over.
_METADATA = (
  {}
  if int(av.__version__.split(".")[0]) >= 19
  else {"metadata_errors": "ignore"}
)
# FFmpeg's decoder -> one that is more exact, if there is a better one, and its
# options. FLAC has checksums, which are only compared if asked for.
_DECODERS = {
  "opus": ("libopus", {"request_sample_fmt": "flt"}),
  "mp2": ("mp2float", {}),
  "mp1": ("mp1float", {}),
  "flac": ("", {"err_detect": "crccheck+explode"}),
}

Path = joined_files.Path
Container = av.container.InputContainer


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


def open_part(path: Path, begin: int = 0, end: int | None = None) -> Container:
  """Opens a file, or the bytes of one from `begin` to `end`.

  FFmpeg is given this file and no network.

  Raises:
    av.FFmpegError or ValueError: it is nothing that can be demuxed.
    OSError: it cannot be read.
  """
  # With its protocol and absolute, so that no name is taken for an address.
  address = "file:" + os.path.abspath(path)
  if end is not None:
    address = f"subfile,,start,{begin},end,{end},,:{address}"
  options = {
    "protocol_whitelist": "file,subfile",
    "format_whitelist": _CONTAINERS,
    "max_probe_packets": "16",  # Else the whole of a WAV is searched for DTS.
  }
  file = unknown_sizes.repaired(path) if end is None else None
  return av.open(file or address, options=options, **_METADATA)


class Sound(NamedTuple):
  """What is decoded of a container.

  Attributes:
    stream: the stream.
    decoder: decodes its packets.
  """

  stream: Any
  decoder: Any


def sound_of(container: Container) -> Sound | None:
  """Returns the stream to decode, or None if there is none that can be.

  It is the one that is marked as the default, else the first.
  """
  streams = [one for one in container.streams.audio if one.codec_context]
  marked = [
    one for one in streams if one.disposition & av.stream.Disposition.default
  ]
  stream = next(iter(marked or streams), None)
  if stream is None:
    return None
  decoder = stream.codec_context
  name, options = _DECODERS.get(decoder.name, ("", {}))
  if name in av.codecs_available:
    decoder = av.CodecContext.create(name, "r")
    decoder.extradata = stream.codec_context.extradata
  decoder.options = options
  return Sound(stream, decoder)


def check_readable(path: Path) -> None:
  """Refuses what is no file, is empty or may not be read.

  Raises:
    UnreadableAudio: with the reason.
  """
  if pathlib.Path(path).is_dir():
    raise UnreadableAudio(
      path, "it is a folder", remedy="One audio file is needed here."
    )
  if not pathlib.Path(path).is_file():
    there = os.path.exists(path)
    reason = "it is no regular file" if there else "there is no such file"
    raise UnreadableAudio(path, reason)
  if os.path.getsize(path) == 0:
    raise UnreadableAudio(path, "the file is empty (0 bytes)")
  try:
    open(path, "rb").close()
  except OSError as error:
    raise UnreadableAudio(
      path, f"it cannot be read ({error.strerror})", needs=ACCESS
    ) from error


def probe(path: Path) -> str:
  """Returns the codec of a file's audio by its content, such as "mp3".

  It takes milliseconds: some packets are decoded from the beginning, since
  nearly any bytes look like some raw stream (MP3, AAC, AC-3) to a demuxer.

  Returns:
    FFmpeg's name of the codec; empty if no audio can be decoded from the file,
    whatever the reason is.
  """
  try:
    with open_part(path) as container:
      found = sound_of(container)
      if found is None:
        return ""
      good = bad = 0
      packets = container.demux(found.stream)
      for packet in itertools.islice(packets, _PROBED_PACKETS):
        try:
          good += sum(one.samples > 0 for one in found.decoder.decode(packet))
        except av.FFmpegError:
          bad += 1
      return found.stream.codec_context.name if good > bad else ""
  except (av.FFmpegError, ValueError, OSError):
    return ""


def header_tags(path: Path) -> dict[str, str]:
  """Returns what FFmpeg reads of a file's tags: name -> text.

  Returns:
    The tags of its audio and of its container; none if it cannot be opened.
  """
  found: dict[str, str] = {}
  try:
    with open_part(path) as container:
      for part in (*container.streams.audio, container):
        found |= part.metadata
  except (av.FFmpegError, ValueError, OSError):
    return {}
  return found
