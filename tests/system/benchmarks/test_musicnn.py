"""Tests of benchmarks.real_music.musicnn: weights without TensorFlow."""

import struct
import zipfile

import numpy as np
import pytest

from benchmarks.real_music import musicnn
from pcl_jax.common import errors


def _varint(number: int) -> bytes:
  parts = []
  while number > 127:
    parts.append(number & 127 | 128)
    number >>= 7
  return bytes([*parts, number])


def _field(number: int, value: int | bytes) -> bytes:
  if isinstance(value, int):
    return _varint(number << 3) + _varint(value)
  return _varint(number << 3 | 2) + _varint(len(value)) + value


def _block(entries: dict[bytes, bytes]) -> bytes:
  """Writes a block of a sorted table, names with what they share left out."""
  out, before = b"", b""
  for name, value in sorted(entries.items()):
    shared = 0
    while name[: shared + 1] == before[: shared + 1] and shared < len(before):
      shared += 1
    rest = name[shared:]
    sizes = map(_varint, (shared, len(rest), len(value)))
    out, before = out + b"".join(sizes) + rest + value, name
  return out + struct.pack("<II", 0, 1)


def _checkpoint(path, arrays: dict[str, np.ndarray]) -> None:
  """Writes a checkpoint as TensorFlow does, in a zip file like the wheel."""
  data, entries = b"", {b"": b"\x08\x01"}
  for name, one in arrays.items():
    sizes = b"".join(_field(2, _field(1, size)) for size in one.shape)
    about = _field(1, 1) + _field(2, sizes)
    about += _field(4, len(data)) if data else b""
    entries[name.encode()] = about + _field(5, one.nbytes)
    data += one.tobytes()
  entries[b"dense/kernel/Adam"] = entries[b"dense/kernel"]
  block = _block(entries)
  handle = _varint(0) + _varint(len(block))
  index = _block({b"z": handle})
  place = len(block) + 5
  footer = _varint(0) + _varint(0) + _varint(place) + _varint(len(index))
  table = block + bytes(5) + index + bytes(5) + footer.ljust(48, b"\0")
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("musicnn/MTT_musicnn/.index", table)
    archive.writestr("musicnn/MTT_musicnn/.data-00000-of-00001", data)


def _weights(rng) -> dict[str, np.ndarray]:
  """Draws weights of the network's shapes, with fewer channels."""
  found = {}
  for name, shape in {
    "conv2d": (7, 86, 1, 3),
    "conv2d_1": (7, 38, 1, 3),
    "conv2d_2": (128, 1, 1, 2),
    "conv2d_3": (64, 1, 1, 2),
    "conv2d_4": (32, 1, 1, 2),
    "conv2d_5": (7, 12, 1, 4),
    "conv2d_6": (7, 4, 1, 4),
    "conv2d_7": (7, 4, 1, 4),
    "dense": (48, 5),
  }.items():
    found[f"{name}/kernel"] = rng.normal(0, 0.1, shape).astype(np.float32)
    found[f"{name}/bias"] = rng.normal(0, 0.1, shape[-1:]).astype(np.float32)
  channels = [1, 3, 3, 2, 2, 2, 4, 4, 4, 48]
  for number, size in enumerate(channels):
    name = f"batch_normalization_{number}" if number else "batch_normalization"
    for one in ("moving_mean", "moving_variance", "gamma", "beta"):
      values = rng.uniform(0.5, 1.5, size).astype(np.float32)
      found[f"{name}/{one}"] = values
  return found


def test_the_weights_of_a_checkpoint_are_read_without_tensorflow(tmp_path):
  weights = _weights(np.random.default_rng(0))
  _checkpoint(tmp_path / "a.whl", weights)
  found = musicnn.read_weights(tmp_path / "a.whl", "MTT_musicnn")
  assert found.keys() == weights.keys()  # Not Adam's.
  for name, one in weights.items():
    np.testing.assert_array_equal(found[name], one)
  with pytest.raises(errors.InputError, match="not musicnn's wheel"):
    musicnn.read_weights(tmp_path / "a.whl", "MSD_musicnn")


@pytest.mark.long
def test_a_song_has_the_mean_of_its_patches():
  weights = _weights(np.random.default_rng(0))
  patches = np.random.default_rng(1).normal(size=(3, 187, 96))
  patches = patches.astype(np.float32)
  embed = musicnn.embedder(weights)
  whole = embed(patches)
  assert whole.shape == (5,) and (whole >= 0).all() and whole.any()
  each = np.mean([embed(patches[i : i + 1]) for i in range(3)], axis=0)
  np.testing.assert_allclose(whole, each, rtol=1e-4, atol=1e-5)


def test_audio_becomes_whole_patches_of_three_seconds():
  rng = np.random.default_rng(0)
  for samples, patches in ((1000, 1), (48_000, 1), (7 * 16_000, 2)):
    audio = rng.normal(0, 0.1, samples).astype(np.float32)
    found = musicnn.patches_of(audio)
    assert found.shape == (patches, 187, 96)
    assert found.dtype == np.float32
  loud = musicnn.patches_of(audio)
  assert (loud >= 0).all() and loud.mean() > musicnn.patches_of(
    0.1 * audio
  ).mean()
