"""A trained probe on file: weights, scale, and the name of each output."""

import dataclasses
import json
import os
import pathlib
from typing import Any
import zipfile

import jax
import jax.numpy as jnp
from jaxtyping import Float
import numpy as np

from pcl_jax.common import errors
from pcl_jax.evaluation.tagging import probe_data
from pcl_jax.evaluation.tagging import probe_training

FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class TrainedProbe:
  """Turns features into probabilities of named tags.

  Attributes:
    tags: name of each output.
    params: the weights.
    scale: of the features it was trained on.
    one_each: its probabilities sum to 1.
    settings: how it was trained, plain values.
  """

  tags: tuple[str, ...]
  params: probe_training.Params
  scale: probe_data.Scale
  one_each: bool
  settings: dict[str, Any]

  def probabilities(
    self, features: Float[np.ndarray, "songs d"]
  ) -> Float[np.ndarray, "songs tags"]:
    """Returns the probability of each tag, in the order of `tags`.

    Args:
      features: of the encoder the probe was trained on.

    Raises:
      InputError: they have another size.
    """
    size = len(self.scale.mean)
    if features.shape[1] != size:
      raise errors.InputError(
        f"the probe was trained on features of size {size} and is given some "
        f"of size {features.shape[1]}. Give embeddings of the same encoder."
      )
    scaled = jnp.asarray(self.scale.apply(features))
    scores = probe_training.logits(self.params, scaled)
    squash = jax.nn.softmax if self.one_each else jax.nn.sigmoid
    return np.asarray(squash(scores))

  def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
    """Writes an npz file under a temporary name, then renames; returns it."""
    path = pathlib.Path(path)
    arrays = {
      f"params/{layer}/{name}": np.asarray(value)
      for layer, values in self.params.items()
      for name, value in values.items()
    }
    arrays |= {
      "format_version": np.int64(FORMAT_VERSION),
      "tags": np.array(self.tags, np.str_),
      "mean": self.scale.mean,
      "std": self.scale.std,
      "one_each": np.bool_(self.one_each),
      "settings": np.str_(json.dumps(self.settings)),
    }
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
      np.savez(file, **arrays)
    partial.replace(path)
    return path


def _params(arrays: dict[str, np.ndarray]) -> probe_training.Params:
  params: dict[str, dict[str, Any]] = {}
  for key, value in arrays.items():
    if key.startswith("params/"):
      _, layer, name = key.split("/")
      params.setdefault(layer, {})[name] = jnp.asarray(value)
  return params


def load(path: str | os.PathLike[str]) -> TrainedProbe:
  """Reads a probe; no pickle is executed.

  Args:
    path: as `TrainedProbe.save` wrote it.

  Raises:
    InputError: it is absent, damaged, or of another version.
  """
  remedy = "Train the probe again with --probe_out."
  try:
    # np.load leaves a file that it opened and could not read open.
    with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
    version = int(arrays["format_version"])
    if version != FORMAT_VERSION:
      raise errors.InputError(
        f"{path} has format version {version}, this version of pcl_jax reads "
        f"{FORMAT_VERSION}. {remedy}"
      )
    return TrainedProbe(
      tags=tuple(arrays["tags"].tolist()),
      params=_params(arrays),
      scale=probe_data.Scale(arrays["mean"], arrays["std"]),
      one_each=bool(arrays["one_each"]),
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
