"""Stand-ins for packages that adapters are written for, by their protocols."""

import dataclasses
import importlib.util
import sys
import types

import numpy as np


def provide(patch, package: str, modules: dict[str, dict]) -> None:
  """Puts modules in the place of a package that is not installed.

  Args:
    patch: a MonkeyPatch, which takes them away again.
    package: its name.
    modules: what each module has, by its full name.
  """
  if importlib.util.find_spec(package) is not None:
    return
  for name, content in modules.items():
    module = types.ModuleType(name)
    vars(module).update(content)
    patch.setitem(sys.modules, name, module)


@dataclasses.dataclass
class InferenceOutputs:
  """perch-hoplite's: embeddings are [frames, channels, features]."""

  embeddings: np.ndarray | None = None
  logits: dict | None = None
  separated_audio: np.ndarray | None = None
  batched: bool = False
  frontend: np.ndarray | None = None

  def pooled_embeddings(self, time_pooling: str, channel_pooling: str = ""):
    """Pools frames, then channels."""
    return pool_axis(
      pool_axis(self.embeddings, -3, time_pooling), -2, channel_pooling
    )


@dataclasses.dataclass
class EmbeddingModel:
  """perch-hoplite's."""

  sample_rate: int


def pool_axis(array: np.ndarray, axis: int, pooling: str) -> np.ndarray:
  """Pools as perch-hoplite does, by a few of its methods."""
  methods = {"": lambda a, _: a, "mean": np.mean, "max": np.max}
  methods["squeeze"] = np.squeeze
  return methods[pooling](array, axis)


HOPLITE = {
  "perch_hoplite": {},
  "perch_hoplite.zoo": {},
  "perch_hoplite.zoo.zoo_interface": {
    "InferenceOutputs": InferenceOutputs,
    "EmbeddingModel": EmbeddingModel,
    "pool_axis": pool_axis,
  },
}
HOPLITE["perch_hoplite.zoo"]["zoo_interface"] = types.SimpleNamespace(
  **HOPLITE["perch_hoplite.zoo.zoo_interface"]
)


class ModelMeta(types.SimpleNamespace):
  """mteb's, with the fields that are given."""

  @classmethod
  def create_empty(cls, overwrites: dict) -> "ModelMeta":
    """Returns metadata with these fields."""
    return cls(**overwrites)


class AbsEncoder:
  """mteb's."""


MTEB = {
  "mteb": {},
  "mteb.models": {"ModelMeta": ModelMeta},
  "mteb.models.abs_encoder": {"AbsEncoder": AbsEncoder},
}
