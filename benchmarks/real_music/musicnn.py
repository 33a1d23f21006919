"""musicnn's networks, computed in JAX from the checkpoints inside its wheel.

Pons and Serra, `musicnn: Pre-trained convolutional neural networks for music
audio tagging`, 2019. They learned tags of MagnaTagATune (MTT) or of the Million
Song Dataset (MSD). The package itself needs TensorFlow 1 and is not imported.
The numbers were not compared with TensorFlow's.
"""

from collections.abc import Callable, Iterator
import pathlib
import struct
import zipfile

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np
import scipy.fft
import scipy.signal

from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors

NETWORKS = ("MTT_musicnn", "MSD_musicnn")
_BANDS, _FRAMES = 96, 187  # Of a patch of 3 s.
_BATCH = 10
_NORM_EPSILON = 1e-3
_FLOAT32 = 1  # TensorFlow's number of the type.
_TALL = ("conv2d", "conv2d_1")  # Timbre; then time, of three lengths.
_LONG = ("conv2d_2", "conv2d_3", "conv2d_4")
_MIDDLE = ("conv2d_5", "conv2d_6", "conv2d_7")

Weights = dict[str, np.ndarray]


def _varint(data: bytes, place: int) -> tuple[int, int]:
  """Returns a number of 7 bits a byte, and the place after it."""
  number = shift = 0
  while True:
    byte = data[place]
    number |= (byte & 127) << shift
    place, shift = place + 1, shift + 7
    if byte < 128:
      return number, place


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
  """Yields the numbers and values of a protocol buffer's fields."""
  place = 0
  while place < len(message):
    key, place = _varint(message, place)
    kind = key & 7
    if kind == 0:
      value, place = _varint(message, place)
    elif kind == 2:
      length, place = _varint(message, place)
      value, place = message[place : place + length], place + length
    else:  # 4 or 8 bytes.
      length = {5: 4, 1: 8}[kind]
      value, place = message[place : place + length], place + length
    yield key >> 3, value


def _block(table: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
  """Yields keys and values of a block of a sorted table (LevelDB's format)."""
  begin, place = _varint(handle, 0)
  size, _ = _varint(handle, place)
  block = table[begin : begin + size]
  restarts = struct.unpack("<I", block[-4:])[0]
  end, place, key = size - 4 - 4 * restarts, 0, b""
  while place < end:
    shared, place = _varint(block, place)
    more, place = _varint(block, place)
    length, place = _varint(block, place)
    key = key[:shared] + block[place : place + more]
    place += more
    yield key, block[place : place + length]
    place += length


def _shape(message: bytes) -> tuple[int, ...]:
  sizes = [value for number, value in _fields(message) if number == 2]
  return tuple(dict(_fields(size)).get(1, 0) for size in sizes)


def read_weights(wheel: pathlib.Path, network: str) -> Weights:
  """Reads the variables of a network from a TensorFlow checkpoint.

  Args:
    wheel: the file musicnn-0.1.0-py3-none-any.whl.
    network: one of `NETWORKS`.

  Raises:
    InputError: it is no such file.
  """
  try:
    with zipfile.ZipFile(wheel) as archive:
      place = f"musicnn/{network}/"
      table = archive.read(f"{place}.index")
      data = archive.read(f"{place}.data-00000-of-00001")
  except (OSError, KeyError, zipfile.BadZipFile) as error:
    raise errors.InputError(
      f"{wheel} is not musicnn's wheel ({error}): pip download musicnn "
      "--no-deps."
    ) from error
  footer, skipped = table[-48:], 0
  for _ in range(2):  # The handle of the meta index.
    _, skipped = _varint(footer, skipped)
  found = {}
  for _, handle in _block(table, footer[skipped:]):
    for name, entry in _block(table, handle):
      about = dict(_fields(entry))
      if name and about.get(1) == _FLOAT32 and b"Adam" not in name:
        begin = about.get(4, 0)
        values = np.frombuffer(data[begin : begin + about[5]], "<f4")
        found[name.decode()] = values.reshape(_shape(about.get(2, b"")))
  return found


def patches_of(
  samples: Float[np.ndarray, " n"],
) -> Float[np.ndarray, "patches frames bands"]:
  """Returns musicnn's feature of 16 kHz audio, in whole patches of 3 s.

  It is log10(1 + 10000 mel power) of librosa's frames; a shorter song is padded
  with silence.
  """
  size = melspectrogram.SETTINGS.frame_samples
  hop = melspectrogram.SETTINGS.hop_samples
  least = (_FRAMES - 1) * hop
  padded = np.pad(samples, (0, max(least - len(samples), 0)))
  padded = np.pad(padded, size // 2, mode="reflect").astype(np.float32)
  frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
  frames = frames[: len(frames) // _FRAMES * _FRAMES]
  spectrum = scipy.fft.rfft(frames * scipy.signal.get_window("hann", size))
  power = spectrum.real**2 + spectrum.imag**2
  mel = power.astype(np.float32) @ melspectrogram.mel_filters(_BANDS)
  return np.log10(1 + 10_000 * mel).reshape(-1, _FRAMES, _BANDS)


def _norm(weights: Weights, number: int, x: Array) -> Array:
  name = f"batch_normalization_{number}" if number else "batch_normalization"
  mean, variance, gain, shift = (
    jnp.reshape(weights[f"{name}/{one}"], (1,) * (x.ndim - 1) + (-1,))
    for one in ("moving_mean", "moving_variance", "gamma", "beta")
  )
  return (x - mean) / jnp.sqrt(variance + _NORM_EPSILON) * gain + shift


def _convolved(weights: Weights, name: str, x: Array, padding: str) -> Array:
  y = jax.lax.conv_general_dilated(
    x,
    weights[f"{name}/kernel"],
    (1, 1),
    padding,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  return jax.nn.relu(y + weights[f"{name}/bias"][None, None, None])


def _in_time(x: Array) -> Array:
  return jnp.pad(x, ((0, 0), (3, 3), (0, 0), (0, 0)))


def penultimate(
  weights: Weights, patches: Float[Array, "batch frames bands"]
) -> Float[Array, "batch numbers"]:
  """Computes the layer before the tags, [batch, 200], of patches."""
  x = _norm(weights, 0, patches[..., None])
  parts = [_convolved(weights, name, _in_time(x), "VALID") for name in _TALL]
  parts += [_convolved(weights, name, x, "SAME") for name in _LONG]
  parts = [
    _norm(weights, number, one).max(axis=2)
    for number, one in enumerate(parts, 1)
  ]
  layers = [jnp.concatenate(parts, axis=2)[..., None]]
  for number, name in enumerate(_MIDDLE, 6):
    y = _convolved(weights, name, _in_time(layers[-1]), "VALID")
    y = jnp.swapaxes(_norm(weights, number, y), 2, 3)
    layers.append(y if len(layers) == 1 else y + layers[-1])
  joined = jnp.concatenate(layers, axis=2)[..., 0]
  pooled = jnp.stack([joined.max(axis=1), joined.mean(axis=1)], axis=2)
  flat = _norm(weights, 9, pooled.reshape(len(patches), -1))
  dense = flat @ weights["dense/kernel"] + weights["dense/bias"][None]
  return jax.nn.relu(dense)


def embedder(weights: Weights) -> Callable[[np.ndarray], np.ndarray]:
  """Returns what turns a song's patches into the mean of `penultimate`."""
  run = jax.jit(penultimate)
  weights = {name: jnp.asarray(one) for name, one in weights.items()}

  def embed(patches: np.ndarray) -> np.ndarray:
    total = 0.0
    for begin in range(0, len(patches), _BATCH):
      some = patches[begin : begin + _BATCH]
      full = np.zeros((_BATCH, *some.shape[1:]), np.float32)
      full[: len(some)] = some
      total += np.asarray(run(weights, full))[: len(some)].sum(axis=0)
    return total / len(patches)

  return embed
