"""One of Melon's spectrogram files: its bytes as a feature, or why not.

Files and members of tars go through the same function. It executes nothing of
what it reads: numpy parses the header as a literal, and arrays of Python
objects, which need pickle, are refused.
"""

import io
import math
import os
import pathlib
import re
import stat

import numpy as np

from pcl_jax.audio import melspectrogram

MAX_FILE_BYTES = 1 << 28  # Six hours of music; Melon's pieces last 30 s.
_MAX_DB = 700.0  # 20 log10 of the largest float32 is 770.
_MOST_HEADER_BYTES = 1 << 14  # numpy refuses more than 10,000 itself.
_SHOWN_CHARS = 200


class UnusableFile(Exception):
  """A spectrogram file that is left out.

  Attributes:
    reason: one of a few words, by which the summary counts.
    detail: what was found, as one short line.
  """

  def __init__(self, reason: str, detail: str):
    """Keeps the reason, and the detail as one short line."""
    super().__init__(reason, detail)
    self.reason = reason
    self.detail = one_line(detail)


def one_line(text: str) -> str:
  """Returns foreign text as one short line of printable characters."""
  text = re.sub(r" object at 0x[0-9a-f]+", "", text)  # Differs run by run.
  text = text.encode("utf-8", "backslashreplace").decode("utf-8")
  text = "".join(one if one.isprintable() else " " for one in text)
  return " ".join(text.split())[:_SHOWN_CHARS]


def too_large(num_bytes: int) -> UnusableFile | None:
  """Returns the refusal of a file too large to be one song's."""
  if num_bytes <= MAX_FILE_BYTES:
    return None
  return UnusableFile(
    "too large", f"{num_bytes} bytes, at most {MAX_FILE_BYTES} can be a song"
  )


def _header(
  data: bytes | memoryview,
) -> tuple[tuple[int, ...], bool, np.dtype, int]:
  """Returns shape, whether in Fortran order, type and the body's offset."""
  if data[:2] == b"PK":
    raise UnusableFile("unreadable", "an npz archive, not one npy array")
  file = io.BytesIO(data[:_MOST_HEADER_BYTES])
  read = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  try:
    version = np.lib.format.read_magic(file)
    if version not in read:
      raise ValueError(f"npy format version {version}")
    shape, is_fortran, dtype = read[version](file)
    if not all(type(one) is int and one >= 0 for one in shape):
      raise ValueError(f"shape {shape}")
  # numpy raises a dozen types on damaged headers; each of them means that.
  except Exception as error:
    text = str(error) or type(error).__name__
    raise UnusableFile("unreadable", f"{len(data)} bytes; {text}") from error
  return shape, is_fortran, dtype, file.tell()


def _array(data: bytes | memoryview) -> np.ndarray:
  """Returns the array of an npy file's bytes; a view of them."""
  shape, is_fortran, dtype, begin = _header(data)
  if dtype.hasobject:
    raise UnusableFile("unreadable", "Python objects: pickle is never loaded")
  if dtype.kind != "f":
    raise UnusableFile("wrong dtype", f"{dtype}, floating point is needed")
  needed = math.prod(shape) * dtype.itemsize
  # Before anything of that size is made: the header may ask for terabytes.
  if len(data) != begin + needed:
    raise UnusableFile(
      "unreadable",
      f"{len(data)} bytes; shape {shape} of {dtype} needs {begin + needed}",
    )
  count = math.prod(shape)
  if not count:
    return np.empty(shape, dtype)
  array = np.frombuffer(data, dtype, count, begin)
  return array.reshape(shape, order="F" if is_fortran else "C")


def _check_array(db: np.ndarray, min_frames: int) -> None:
  bands = melspectrogram.SETTINGS.mel_bands
  shape = tuple(db.shape)
  if db.size == 0:
    raise UnusableFile("empty", f"shape {shape}")
  if db.ndim != 2 or shape[0] != bands:
    raise UnusableFile("wrong shape", f"{shape}, ({bands}, frames) is needed")
  if shape[1] < min_frames:
    raise UnusableFile(
      "too short", f"{shape[1]} frames, {min_frames} are needed"
    )
  bad = int(db.size - np.isfinite(db).sum())
  if bad:
    raise UnusableFile("not finite", f"{bad} of {db.size} values")
  if not db.any():
    raise UnusableFile("all zero", f"shape {shape}")
  if db.max() > _MAX_DB:
    raise UnusableFile(
      "out of range", f"{db.max():g} dB, at most {_MAX_DB:g} can be power"
    )


def decode(data: bytes | memoryview, min_frames: int = 1) -> np.ndarray:
  """Converts the bytes of an npy file in Melon's dB to the stored feature.

  Args:
    data: the file, [48, frames], 20 log10 of the mel power, of any floating
      type, byte order and memory order, and nothing behind the array.
    min_frames: the fewest frames a usable file has.

  Returns:
    float16 [frames, 48], contiguous.

  Raises:
    UnusableFile: it is unreadable or breaks a rule.
  """
  db = _array(data)
  _check_array(db, min_frames)
  # Of one memory order, since numpy's loops round differently where strided.
  # Below -758 dB a float64 is -inf as float32: no power, as it should be.
  with np.errstate(all="ignore"):
    db = np.ascontiguousarray(db, np.float32)
    feature = melspectrogram.db_to_feature(db)
  return np.ascontiguousarray(feature.astype("<f2").T)


def read_feature(path: pathlib.Path, min_frames: int = 1) -> np.ndarray:
  """Reads a spectrogram file as the stored feature; see `decode`.

  Raises:
    UnusableFile: the file is missing, unreadable or breaks a rule.
  """
  try:
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):  # Opening a pipe would wait for ever.
      raise UnusableFile("unreadable", "not a regular file")
    if refusal := too_large(found.st_size):
      raise refusal
    data = path.read_bytes()
  except FileNotFoundError:
    where = "file" if path.parent.exists() else f"folder {path.parent.name}"
    raise UnusableFile("missing", f"the {where} does not exist") from None
  except OSError as error:
    raise UnusableFile("unreadable", str(error.strerror)) from error
  return decode(data, min_frames)
