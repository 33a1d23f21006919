"""A trained probe on file: weights, scale, and the name of each output."""

import dataclasses
import json
import os
import pathlib
from typing import Any
import zipfile

from flax import traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Float
import numpy as np

from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.evaluation.tagging import probe_training

FORMAT_VERSION = 1
_LEAST_STD = 1e-8
_PARAMS = "params/"


@dataclasses.dataclass(frozen=True)
class Scale:
  """Mean and standard deviation of features, float32 [d]."""

  mean: Float[np.ndarray, " d"]
  std: Float[np.ndarray, " d"]

  @classmethod
  def measure(cls, features: Float[np.ndarray, "rows d"]) -> "Scale":
    """Measures mean and deviation; a constant feature is not scaled."""
    mean = features.mean(axis=0, dtype=np.float64)
    std = features.std(axis=0, dtype=np.float64)
    std = np.where(std > _LEAST_STD, std, 1.0)
    return cls(mean.astype(np.float32), std.astype(np.float32))

  def apply(
    self, features: Float[np.ndarray, "rows d"]
  ) -> Float[np.ndarray, "rows d"]:
    """Standardises features; float32."""
    out = features.astype(np.float32)  # A copy, changed in place.
    out -= self.mean[None]
    out /= self.std[None]
    return out


@dataclasses.dataclass(frozen=True)
class TrainedProbe:
  """Turns features into probabilities of named tags.

  Attributes:
    tags: name of each output.
    params: the weights.
    scale: scale of the features that it was trained on.
    single_label: whether its probabilities sum to 1.
    settings: how it was trained, plain values.
  """

  tags: tuple[str, ...]
  params: probe_training.Params
  scale: Scale
  single_label: bool
  settings: dict[str, Any]

  def probabilities(
    self, features: Float[np.ndarray, "songs d"]
  ) -> Float[np.ndarray, "songs tags"]:
    """Returns the probability of each tag, in the order of `tags`.

    Args:
      features: features by the encoder that the probe was trained on.

    Raises:
      InputError: they have another size.
    """
    size = len(self.scale.mean)
    if features.shape[1] != size:
      raise errors.InputError(
        f"the probe was trained on features of size {size}, but these have "
        f"size {features.shape[1]}. Give embeddings of the same encoder."
      )
    scaled = jnp.asarray(self.scale.apply(features))
    scores = probe_training.logits(self.params, scaled)
    squash = jax.nn.softmax if self.single_label else jax.nn.sigmoid
    return np.asarray(squash(scores))

  def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
    """Writes an npz file under a temporary name, then renames; returns it."""
    path = pathlib.Path(path)
    flat = traverse_util.flatten_dict(self.params, sep="/")
    arrays = {_PARAMS + key: np.asarray(value) for key, value in flat.items()}
    arrays |= {
      "format_version": np.int64(FORMAT_VERSION),
      "tags": np.array(self.tags, np.str_),
      "mean": self.scale.mean,
      "std": self.scale.std,
      "one_each": np.bool_(self.single_label),
      "settings": np.str_(json.dumps(self.settings)),
    }
    with storage.write_aside(path) as partial, open(partial, "wb") as file:
      np.savez(file, **arrays)
    return path


def load(path: str | os.PathLike[str]) -> TrainedProbe:
  """Reads a probe; no pickle is executed.

  Args:
    path: a file that `TrainedProbe.save` wrote.

  Raises:
    InputError: it is absent, damaged, or of another version.
  """
  remedy = "Train the probe again with --probe_out."
  try:
    # np.load leaves a file open that it opened and could not read.
    with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
    version = int(arrays["format_version"])
    if version != FORMAT_VERSION:
      raise errors.InputError(
        f"{path} has format version {version}, this version of pcl_jax reads "
        f"{FORMAT_VERSION}. {remedy}"
      )
    params = {
      key.removeprefix(_PARAMS): jnp.asarray(value)
      for key, value in arrays.items()
      if key.startswith(_PARAMS)
    }
    return TrainedProbe(
      tags=tuple(arrays["tags"].tolist()),
      params=traverse_util.unflatten_dict(params, sep="/"),
      scale=Scale(arrays["mean"], arrays["std"]),
      single_label=bool(arrays["one_each"]),
      settings=json.loads(str(arrays["settings"])),
    )
  except errors.InputError:
    raise
  except (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    zipfile.BadZipFile,
  ) as error:
    raise errors.InputError(
      f"{path} is not a readable probe ({error}). {remedy}"
    ) from error
