"""Audio that libsndfile does not read (AAC, WMA, ...), through ffmpeg.

The program is started without a shell, is let open the one local file only, and
writes float samples into a pipe below an AU header, which says rate and number
of channels. One that gives nothing for `STALL_S` seconds is killed.
"""

import contextlib
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import threading

from jaxtyping import Float32
import mutagen
import numpy as np

NAME = "ffmpeg"
HOW_TO_GET = (
  "install it (https://ffmpeg.org; apt install ffmpeg on Debian and Ubuntu, "
  "brew install ffmpeg on macOS)"
)
STALL_S = 60.0
# Containers of sound. What plays other files or addresses (HLS, concat) is not
# among them, and what is no sound at all is not guessed at.
_CONTAINERS = (
  "aac,ac3,adx,aiff,amr,ape,asf,au,caf,dsf,dts,eac3,flac,iff,loas,matroska,"
  "webm,mov,mp4,m4a,mp3,mpc,mpc8,ogg,oma,rm,shn,tak,tta,w64,wav,wv"
)
_AU_FLOAT32 = 6
_BEFORE_S = 1.0
_MAX_CHANNELS = 64
_SHOWN_CHARS = 200


class DecodingError(Exception):
  """ffmpeg could not decode a file; the message says why."""


class NoAudioError(DecodingError):
  """ffmpeg found nothing wrong and no audio in the part asked for."""


def find() -> str | None:
  """Returns the path of the program, or None if it is not on PATH."""
  return shutil.which(NAME)


def stated_length_s(path: str | os.PathLike[str]) -> float | None:
  """Returns how long a file says its audio is, or None if it does not."""
  try:
    length_s = float(mutagen.File(path).info.length)
  # The file may hold anything, and mutagen lets more than its own errors out.
  except Exception:  # noqa: BLE001
    return None
  return length_s if 0 < length_s < float("inf") else None


class Stream:
  """The first audio stream of a file, or a part of it, as it is decoded.

  Attributes:
    samplerate: the file's own, in Hz.
    channels: their number.
  """

  def __init__(
    self,
    program: str,
    path: str | os.PathLike[str],
    from_s: float = 0.0,
    to_s: float | None = None,
  ):
    """Starts decoding.

    Args:
      program: path of ffmpeg.
      path: the file.
      from_s: where the part begins; ffmpeg seeks to it.
      to_s: where it ends; by default at the file's end.

    Raises:
      DecodingError: the program does not start or does not know the file.
      NoAudioError: there is nothing in the part.
    """
    # With its protocol and absolute, so that no name is taken for an option.
    self._address = "file:" + os.path.abspath(path)
    # Some formats are gone to only roughly: the last second to the beginning is
    # decoded, and dropped by its time stamps.
    before_s = min(from_s, _BEFORE_S)
    command = [program, "-nostdin", "-v", "error"]
    command += ["-protocol_whitelist", "file"]
    command += ["-format_whitelist", _CONTAINERS]
    if from_s > before_s:
      command += ["-ss", f"{from_s - before_s:.6f}"]
    command += ["-i", self._address, "-map", "0:a:0", "-map_metadata", "-1"]
    if from_s > 0:
      command += ["-ss", f"{before_s:.6f}"]
    if to_s is not None:
      command += ["-t", f"{to_s - from_s:.6f}"]
    command += ["-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    # A file, since a pipe that no one empties would stop the program.
    self._messages = tempfile.TemporaryFile()
    self._process = None
    try:
      self._process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=self._messages,
        start_new_session=True,  # So that what it starts is killed with it.
      )
      self.samplerate, self.channels = self._read_header()
    except BaseException as error:
      self.close()
      if isinstance(error, OSError):
        raise DecodingError(f"{NAME} does not start: {error}") from error
      raise

  def _read_header(self) -> tuple[int, int]:
    header = self._read_bytes(24)
    if not header:
      self._check_exit()
      raise NoAudioError(f"{NAME} finds no audio in it")
    if len(header) == 24:
      magic, offset, _, code, rate, channels = struct.unpack(">4s5I", header)
      if magic == b".snd" and code == _AU_FLOAT32 and 24 <= offset < 1 << 16:
        if rate and 1 <= channels <= _MAX_CHANNELS:
          self._read_bytes(offset - 24)
          return rate, channels
    self._check_exit()
    raise DecodingError(f"{NAME} answers with something else than audio")

  def _kill(self) -> None:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self._process.pid, signal.SIGKILL)

  def _read_bytes(self, size: int) -> bytes:
    stalled = threading.Event()

    def stop():
      stalled.set()
      self._kill()

    timer = threading.Timer(STALL_S, stop)
    timer.daemon = True
    timer.start()
    try:
      content = self._process.stdout.read(size)
    finally:
      timer.cancel()
    if stalled.is_set():
      raise DecodingError(
        f"{NAME} gave nothing for {STALL_S:g} s and was stopped"
      )
    return content

  def _check_exit(self) -> None:
    """Waits for the program's end.

    Raises:
      DecodingError: it failed, or does not end.
    """
    try:
      code = self._process.wait(timeout=STALL_S)
    except subprocess.TimeoutExpired:
      raise DecodingError(f"{NAME} does not end and was stopped") from None
    if code:
      self._messages.seek(0, os.SEEK_END)
      self._messages.seek(max(self._messages.tell() - 4096, 0))
      text = self._messages.read().decode(errors="replace")
      text = text.replace(self._address, "the file").strip()
      last = text.splitlines()[-1] if text else f"exit status {code}"
      raise DecodingError(f"{NAME}: {last[:_SHOWN_CHARS]}")

  def read(self, samples: int) -> Float32[np.ndarray, "n channels"]:
    """Returns the next samples, float32 [n, channels]; n is 0 at the end.

    Args:
      samples: how many of each channel; fewer come at the end alone.

    Raises:
      DecodingError: the program stalls or fails.
    """
    frame = 4 * self.channels
    content = self._read_bytes(samples * frame)
    if len(content) < samples * frame:
      self._check_exit()
    whole = len(content) - len(content) % frame
    audio = np.frombuffer(content[:whole], ">f4").astype(np.float32)
    return audio.reshape(-1, self.channels)

  def close(self) -> None:
    """Stops the program if it still runs, and lets go of it."""
    if self._process is not None:
      if self._process.returncode is None:
        self._kill()
        self._process.wait()
      self._process.stdout.close()
    self._messages.close()

  def __enter__(self) -> "Stream":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()
