"""Records what results were made with: data, config, code, versions."""

import hashlib
import json
import pathlib
import subprocess
from typing import Any

from pcl_jax.common import storage
from pcl_jax.common import versions
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.evaluation.audit import leakage
from pcl_jax.models import audio_encoder

_ROOT = pathlib.Path(__file__).parents[3]
_SOURCES = ("pcl_jax", "preprocessing", "configs")
_LIBRARIES = ("scipy", "scikit-learn", "pyarrow")
_GIT_S = 10


def sources_sha256(root: pathlib.Path = _ROOT) -> str:
  """Hashes the names and texts of the packages' Python files in a folder."""
  digest = hashlib.sha256()
  for package in _SOURCES:
    for path in sorted((root / package).rglob("*.py")):
      digest.update(path.relative_to(root).as_posix().encode() + b"\0")
      digest.update(storage.sha256(path).encode())
  return digest.hexdigest()


def _git(root: pathlib.Path, *arguments: str) -> str | None:
  """Returns what git prints about a folder; None where it cannot."""
  if not (root / ".git").exists():
    return None
  try:
    done = subprocess.run(
      ["git", "-C", str(root), *arguments],
      capture_output=True,
      text=True,
      timeout=_GIT_S,
      check=True,
    )
  except (OSError, subprocess.SubprocessError):
    return None
  return done.stdout.strip()


def code(root: pathlib.Path = _ROOT) -> dict[str, Any]:
  """Returns the hash of the sources in a folder, and their commit if any."""
  changed = _git(root, "status", "--porcelain", "--", *_SOURCES)
  return {
    "sources_sha256": sources_sha256(root),
    "git_commit": _git(root, "rev-parse", "HEAD"),
    "git_changed_files": None if changed is None else len(changed.splitlines()),
  }


def make(
  encoder: audio_encoder.AudioEncoder,
  meta: dict[str, Any],
  data: dataset.DataSet,
) -> dict[str, Any]:
  """Returns what is needed to know whether results can be reproduced.

  Args:
    encoder: the evaluated encoder.
    meta: the metadata of its checkpoint.
    data: the data set that the run was evaluated on.

  Returns:
    Plain values, fit for json.
  """
  config = json.dumps(meta["config"], sort_keys=True).encode()
  certificate = _of_data(data)
  certificate["versions"]["trained"] = meta["versions"]
  return certificate | {
    "trained_on": {
      "directory": meta["config"]["data"]["dir"],
      "fingerprint": meta["data"]["fingerprint"],
      "same_data": leakage.is_training_data(meta, data),
    },
    "config_sha256": hashlib.sha256(config).hexdigest(),
    "checkpoint": {
      "step": meta["progress"]["step"],
      "encoder_sha256": embedding_table.weights_digest(encoder),
    },
  }


def of_table(path: pathlib.Path, data: dataset.DataSet) -> dict[str, Any]:
  """Returns the same for a table of vectors, whose encoder is not known."""
  table = {"path": str(path), "sha256": storage.sha256(path)}
  return _of_data(data) | {"embeddings": table}


def _of_data(data: dataset.DataSet) -> dict[str, Any]:
  evaluated = versions.installed(*versions.OF_TRAINING, *_LIBRARIES)
  return {
    "data": {
      "directory": str(data.directory),
      "fingerprint": data.fingerprint(),
      "catalogue_sha256": storage.sha256(data.directory / catalogues.FILE_NAME),
      "songs": len(data.store),
    },
    "code": code(),
    "versions": {"evaluated": evaluated},
  }
