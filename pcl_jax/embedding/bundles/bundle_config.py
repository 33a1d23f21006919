"""config.json of a bundle: what an encoder says about itself."""

from collections.abc import Mapping
import inspect
import pathlib
from typing import Any

from flax import nnx

from pcl_jax.audio import melspectrogram
from pcl_jax.audio import song_patches
from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.common import versions
from pcl_jax.models import audio_encoder

FORMAT, TORCH_FORMAT = "pcl_jax.encoder", "pcl_jax.torch"
FORMAT_VERSION = 1  # Of both.
SIZES = ("width", "fc_hidden_dim", "fc_output_dim")
AGAIN = "download or export the bundle again."
KINDS = {FORMAT: "a bundle", TORCH_FORMAT: "a folder for PyTorch"}
# Of a folder of another format.
_HINTS = {
  FORMAT: f"of {KINDS[TORCH_FORMAT]}, pcl-jax import makes a bundle",
  TORCH_FORMAT: "a bundle is used as it is, without pcl-jax import",
}
_BEGUN = checkpoint_files.INIT_FROM
_FILES = (checkpoint_files.BUNDLE_WEIGHTS, checkpoint_files.BUNDLE_GOLDEN)


def _begun_of(about: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the entry on the weights that a run began with, if it did."""
  return {_BEGUN: about[_BEGUN]} if _BEGUN in about else {}


def read(path: pathlib.Path, kind: str = FORMAT) -> dict[str, Any]:
  """Returns config.json, if this version reads such folders.

  Args:
    path: of the file.
    kind: the format that it must have, of `KINDS`.

  Raises:
    InputError: it is missing, damaged, of a later version or of something else,
      or the feature has other settings.
  """
  try:
    config = storage.read_json(path)
    if not isinstance(config, dict) or config.get("format") != kind:
      raise ValueError(f"it has no format {kind!r}; {_HINTS[kind]}")
    there = config.get("format_version")
    if isinstance(there, int) and there > FORMAT_VERSION:
      made = str(config.get("made_with"))[:40]
      raise errors.InputError(
        f"{path} has format version {there}, and this version of pcl_jax reads "
        f"up to {FORMAT_VERSION}: update pcl_jax (it was made with {made})."
      )
    found = {key: config[key]["sha256"] for key in _FILES}
    if there != FORMAT_VERSION or not all(map(str.isalnum, found.values())):
      raise ValueError(f"its format version is {there!r}")
    origin, step = config["origin"], config["origin"]["step"]
    if type(step) is not int or not isinstance(origin["strategy"], str):
      raise ValueError(f"its step is {step!r}")
    for key in ("other_encoders", "data", "config", "versions"):
      _ = {} | origin[key]
    _ = {} | origin.get(_BEGUN, {}) | (origin.get("evaluation") or {})
    melspectrogram.check_settings({} | config["feature"], str(path))
    rate_hz = config["sample_rate_hz"]
    if rate_hz != config["feature"]["sample_rate_hz"]:
      raise ValueError(f"its sample_rate_hz is {rate_hz!r}")
    _ = {} | config["architecture"]
  except errors.InputError:
    raise
  except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
    reason = f"{error!r}" if isinstance(error, KeyError) else f"{error}"
    raise errors.InputError(
      f"{path} cannot be read as that of {KINDS[kind]} ({reason}): {AGAIN}"
    ) from error
  return config


def meta_of(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what a checkpoint would say, of what `read` gives."""
  origin = config["origin"]
  return _begun_of(origin) | {
    "strategy": origin["strategy"],
    "progress": {"step": origin["step"]},
    "architecture": origin["other_encoders"]
    | {"audio": config["architecture"]},
    "feature": config["feature"],
    "data": origin["data"],
    "config": origin["config"],
    "versions": origin["versions"],
    "evaluation": origin.get("evaluation"),
    "evaluated_sha256": config.get("weights_sha256"),
  }


def _complete(architecture: dict[str, Any]) -> dict[str, Any]:
  """Returns an encoder's arguments with the values of those left out."""
  backbone = audio_encoder.BACKBONES[architecture["backbone_type"]]
  found = {
    name: architecture.get(name, _default(audio_encoder.AudioEncoder, name))
    for name in ("backbone_type", *SIZES, "fc_dropout")
  }
  if found["width"] is None:
    found["width"] = _default(backbone, "width")
  return found


def _default(module: type[nnx.Module], name: str) -> Any:
  return inspect.signature(module.__init__).parameters[name].default


def _without_paths(value: Any, key: str = "") -> Any:
  """Returns values of a config, with empty ones for those that are paths."""
  if isinstance(value, dict):
    return {name: _without_paths(one, name) for name, one in value.items()}
  if isinstance(value, list | tuple):
    return [_without_paths(one) for one in value]
  is_path = isinstance(value, str) and ("/" in value or "\\" in value)
  return "" if is_path or key in ("dir", _BEGUN) else value


def of(
  network: audio_encoder.AudioEncoder, meta: dict[str, Any], digest: str
) -> dict[str, Any]:
  """Returns what config.json says of an encoder, without its files.

  Args:
    network: the encoder.
    meta: what its checkpoint says about itself.
    digest: SHA-256 of the weights, as tables of embeddings have it.
  """
  settings = melspectrogram.SETTINGS
  others = {k: v for k, v in meta["architecture"].items() if k != "audio"}
  return {
    "format": FORMAT,
    "format_version": FORMAT_VERSION,
    "made_with": f"pcl_jax {versions.own()}",
    "architecture": _complete(meta["architecture"]["audio"]),
    "layers": {
      "features": network.backbone.features,
      "projection": network.projection.output.kernel.shape[1],
    },
    "sample_rate_hz": settings.sample_rate_hz,
    "patch": {
      "frames": song_patches.FRAMES,
      "mel_bands": song_patches.BANDS,
      "seconds": song_patches.SECONDS,
    },
    "feature": meta["feature"],
    "weights_sha256": digest,
    "origin": {
      "strategy": meta["strategy"],
      "step": meta["progress"]["step"],
      "other_encoders": others,
      "data": meta.get("data") or {"fingerprint": None, "songs": None},
      "config": {"seed": 0, "data": {"dir": ""}}
      | _without_paths(meta.get("config") or {}),
      "versions": meta.get("versions") or {},
      "evaluation": meta.get("evaluation"),
    }
    | _begun_of(meta),
  }
