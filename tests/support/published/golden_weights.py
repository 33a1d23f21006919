"""Weights and inputs of the golden numbers: drawn from names, not stored."""

import json
import math
import pathlib
import zlib

import numpy as np

REFERENCE = pathlib.Path(__file__).parents[2] / "golden" / "reference.json"


def reference() -> dict:
  """Returns `reference.json`: seed_base, manifest, trajectories."""
  return json.loads(REFERENCE.read_text())


def generator(name: str, seed_base: int = 0) -> np.random.RandomState:
  """Returns the generator that belongs to a name."""
  seed = (zlib.crc32(name.encode()) + seed_base) % 2**32
  return np.random.RandomState(seed)


def draw(
  name: str, shape: tuple[int, ...] | list[int], seed_base: int = 0
) -> np.ndarray:
  """Draws the array of a PyTorch name; its last part decides the scale.

  Args:
    name: of a parameter or buffer, relative to its model.
    shape: in PyTorch's layout.
    seed_base: from `reference.json`.

  Returns:
    float32 of that shape.
  """
  last = name.rsplit(".", 1)[-1]
  shape = tuple(shape)
  if last == "num_batches_tracked":
    return np.zeros(shape, np.int64)
  normal = generator(name, seed_base).standard_normal(math.prod(shape))
  normal = normal.reshape(shape)
  if last == "running_var":
    value = 1 + 0.1 * np.abs(normal)
  elif last in ("running_mean", "bias"):
    value = 0.1 * normal
  elif last == "weight" and len(shape) == 1:
    value = 1 + 0.1 * normal
  else:
    value = normal * np.sqrt(2 / math.prod(shape[1:]))
  return value.astype(np.float32)


def draw_state_dict(model_name: str) -> dict[str, np.ndarray]:
  """Draws all arrays of a model of the manifest.

  Args:
    model_name: resnet, sc_cnn, cf or genre_w2v.

  Returns:
    PyTorch name to array.
  """
  stored = reference()
  drawn = {
    name: draw(name, shape, stored["seed_base"])
    for name, shape in stored["manifest"][model_name].items()
  }
  if model_name == "genre_w2v":
    drawn["embeddings.weight"][0] = 0.0
  return drawn


def draw_narrow_state_dict(model_name: str) -> dict[str, np.ndarray]:
  """Draws an audio encoder with a sixteenth of the published channels.

  Args:
    model_name: resnet or sc_cnn, then of width 4 or 8.

  Returns:
    PyTorch name to array; the projection is 64 -> 128 -> 128.
  """
  manifest = reference()["manifest"][model_name]
  shapes = {
    name: [size // 16 if size >= 64 else size for size in shape]
    if name.startswith("audio_encoder")
    else [min(size, 128) for size in shape]
    for name, shape in manifest.items()
  }
  shapes["fc_audio.fc.0.weight"] = [128, 64]
  return {name: draw(name, shape) for name, shape in shapes.items()}
