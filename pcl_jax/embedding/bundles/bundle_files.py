"""A bundle: an encoder as a folder, without the run that trained it.

    model.safetensors  weights and batch statistics, by this project's names
    config.json        architecture, feature, layer sizes, origin, digests
    golden.npz         generated audio, and the vectors it must give
    README.md          model card, with the header that model hubs read

It names no path of the machine where it was made.
"""

from collections.abc import Mapping
import inspect
import json
import os
import pathlib
import shutil
from typing import Any, NamedTuple

from flax import nnx
import jax
import numpy as np

from pcl_jax.audio import melspectrogram
from pcl_jax.audio import song_patches
from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.common import versions
from pcl_jax.embedding.bundles import golden_audio
from pcl_jax.embedding.bundles import model_card
from pcl_jax.embedding.bundles import tensor_files
from pcl_jax.models import audio_encoder

FORMAT = "pcl_jax.encoder"
FORMAT_VERSION = 1
WEIGHTS = checkpoint_files.BUNDLE_WEIGHTS
GOLDEN = checkpoint_files.BUNDLE_GOLDEN
CONFIG, CARD = "config.json", "README.md"
FILES = (WEIGHTS, GOLDEN, CARD, CONFIG)
_BEGUN = checkpoint_files.INIT_FROM
_SIZES = ("width", "fc_hidden_dim", "fc_output_dim")
_AGAIN = "download or export the bundle again."


class Bundle(NamedTuple):
  """What a bundle holds.

  Attributes:
    network: the encoder.
    meta: what it says about itself, as a checkpoint does.
    golden: audio and its vectors.
  """

  network: audio_encoder.AudioEncoder
  meta: dict[str, Any]
  golden: golden_audio.Golden


def arrays_of(network: audio_encoder.AudioEncoder) -> dict[str, Any]:
  """Returns weights and statistics by name, as in `backbone.norm.mean`."""
  _, params, stats = nnx.split(network, nnx.Param, nnx.BatchStat)
  trees = [nnx.to_pure_dict(params), nnx.to_pure_dict(stats)]
  return {
    jax.tree_util.keystr(path, simple=True, separator="."): leaf
    for tree in trees
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def with_arrays(
  network: audio_encoder.AudioEncoder, arrays: Mapping[str, np.ndarray]
) -> audio_encoder.AudioEncoder:
  """Returns a network with arrays in the place of its own, or of its shapes."""
  graphdef, params, stats = nnx.split(network, nnx.Param, nnx.BatchStat)
  here = jax.local_devices()[0]

  def take(path, _):
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    return jax.device_put(arrays[name], here)

  trees = [
    jax.tree_util.tree_map_with_path(take, nnx.to_pure_dict(tree))
    for tree in (params, stats)
  ]
  return nnx.merge(graphdef, *trees)


def check_finite(arrays: Mapping[str, Any], where: str) -> None:
  """Raises InputError where numbers of an encoder's arrays are not finite."""
  bad = [name for name, one in arrays.items() if not np.isfinite(one).all()]
  if bad:
    raise errors.InputError(
      f"{where} has numbers that are not finite, in {', '.join(bad[:3])}"
      f"{f' and {len(bad) - 3} more' if len(bad) > 3 else ''}: it gives no "
      "embeddings. Take an earlier checkpoint, or " + _AGAIN
    )


def read(folder: pathlib.Path, *, verify: bool = True) -> Bundle:
  """Reads a bundle.

  Args:
    folder: of the bundle.
    verify: compares the digests of weights and golden audio with those that
      config.json names.

  Raises:
    InputError: a file is missing, damaged, of a later version or of something
      else; the feature has other settings; or weights are not finite.
  """
  config = _read_config(folder / CONFIG)
  network = _abstract_network(config["architecture"], folder / CONFIG)
  for name in (WEIGHTS, GOLDEN) if verify else ():
    _check_digest(folder / name, config)
  arrays = _read_weights(folder / WEIGHTS, network)
  check_finite(arrays, str(folder / WEIGHTS))
  golden = golden_audio.read(folder / GOLDEN)
  origin = config["origin"]
  meta = _begun_of(origin) | {
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
  return Bundle(with_arrays(network, arrays), meta, golden)


def _begun_of(about: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the entry on the weights that a run began with, if it did."""
  return {_BEGUN: about[_BEGUN]} if _BEGUN in about else {}


def _read_config(path: pathlib.Path) -> dict[str, Any]:
  """Returns config.json, if this version reads such bundles."""
  try:
    config = storage.read_json(path)
    if not isinstance(config, dict) or config.get("format") != FORMAT:
      raise ValueError(
        f"it has no format {FORMAT!r}; of a folder for PyTorch, pcl-jax import "
        "makes a bundle"
      )
    there = config.get("format_version")
    if isinstance(there, int) and there > FORMAT_VERSION:
      made = str(config.get("made_with"))[:40]
      raise errors.InputError(
        f"{path} has format version {there}, and this version of pcl_jax reads "
        f"up to {FORMAT_VERSION}: update pcl_jax (it was made with {made})."
      )
    found = {key: config[key]["sha256"] for key in (WEIGHTS, GOLDEN)}
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
      f"{path} cannot be read as that of a bundle ({reason}): {_AGAIN}"
    ) from error
  return config


def _abstract_network(
  architecture: dict[str, Any], path: pathlib.Path
) -> audio_encoder.AudioEncoder:
  """Returns a network of shapes, by arguments that were read from a file."""
  sizes = {name: architecture.get(name) for name in _SIZES}
  dropout = architecture.get("fc_dropout")
  known = {"backbone_type", "fc_dropout", *_SIZES}
  backbone = architecture.get("backbone_type")
  if (
    architecture.keys() != known
    or any(type(one) is not int or one < 1 for one in sizes.values())
    or type(dropout) not in (int, float)
    or not 0 <= dropout < 1
    or not isinstance(backbone, str)
  ):
    raise errors.InputError(
      f"{path} has the architecture {json.dumps(architecture)[:200]}, and "
      f"{', '.join(sorted(known))} are needed, with sizes from 1: {_AGAIN}"
    )
  return nnx.eval_shape(
    lambda: audio_encoder.AudioEncoder(**architecture, rngs=nnx.Rngs(0))
  )


def _check_digest(path: pathlib.Path, config: dict[str, Any]) -> None:
  if not path.is_file():
    raise errors.InputError(f"{path} is missing: {_AGAIN}")
  expected, found = config[path.name]["sha256"], storage.sha256(path)
  if found != expected:
    raise errors.InputError(
      f"{path} is not the file that was exported: its sha256 begins with "
      f"{found[:12]}, and {CONFIG} says {expected[:12]}. Download or export "
      "the bundle again; pcl_jax.load(..., verify=False) loads it as it is."
    )


def _read_weights(
  path: pathlib.Path, network: audio_encoder.AudioEncoder
) -> dict[str, np.ndarray]:
  """Returns the arrays of a file, if they are those of the network."""
  arrays = tensor_files.widened(tensor_files.read(path))
  differing = storage.differences(
    {name: f"{one.dtype}{list(one.shape)}" for name, one in arrays.items()},
    {
      name: f"{one.dtype}{list(one.shape)}"
      for name, one in arrays_of(network).items()
    },
    "on file",
  )
  if differing:
    shown = "; ".join(differing[:20])
    more = f"; and {len(differing) - 20} more" if len(differing) > 20 else ""
    raise errors.InputError(
      f"{path} does not hold the network of {CONFIG}: {shown}{more}. Of a "
      "PyTorch file, pcl-jax import makes a bundle; else " + _AGAIN
    )
  return arrays


def _complete(architecture: dict[str, Any]) -> dict[str, Any]:
  """Returns an encoder's arguments with the values of those left out."""
  backbone = audio_encoder.BACKBONES[architecture["backbone_type"]]
  found = {
    name: architecture.get(name, _default(audio_encoder.AudioEncoder, name))
    for name in ("backbone_type", *_SIZES, "fc_dropout")
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


def config_of(
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


def _is_ours(folder: pathlib.Path) -> bool:
  """Tells a bundle, also a spoiled one, from other models of such files."""
  if not checkpoint_files.is_bundle(folder):
    return False
  try:
    config = storage.read_json(folder / CONFIG)
  except (OSError, ValueError, RecursionError):
    return (folder / GOLDEN).is_file()  # A name that others do not have.
  return isinstance(config, dict) and config.get("format") == FORMAT


def check_free(out: pathlib.Path, *, force: bool) -> None:
  """Raises InputError where a bundle may not be written to a place."""
  if not os.path.lexists(out):
    return
  if not _is_ours(out):
    raise errors.InputError(
      f"{out} exists and is not a bundle: give another --out."
    )
  if not force:
    raise errors.InputError(
      f"{out} exists: give another --out, or --force to replace its files."
    )


def write(
  out: pathlib.Path,
  arrays: Mapping[str, Any],
  config: dict[str, Any],
  golden: golden_audio.Golden,
  *,
  license: str = model_card.NO_LICENSE,
  framework: str = model_card.JAX,
  others: Mapping[str, bytes] | None = None,
) -> None:
  """Writes a folder aside, and puts it in its place when it is whole.

  Args:
    out: the folder; other files in it stay.
    arrays: the weights, by name.
    config: what `config_of` gives.
    golden: audio and its vectors.
    license: identifier of the weights' licence, as model hubs know it.
    framework: a key of `model_card.FRAMEWORKS`.
    others: further files, by name.

  Raises:
    InputError: weights are not finite, or the licence is no identifier.
    OSError: a file cannot be written.
  """
  model_card.check_license(license)
  arrays = {name: np.asarray(one) for name, one in arrays.items()}
  check_finite(arrays, "the encoder")
  if out.name in ("", ".."):  # Of the folder where one is, or one above it.
    out = out.resolve()
  out.parent.mkdir(parents=True, exist_ok=True)
  partial = out.with_name(out.name + storage.PARTIAL)
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir()
  try:
    kind = FORMAT if framework == model_card.JAX else "pt"
    stored = tensor_files.narrowed(arrays) if kind == FORMAT else arrays
    tensor_files.write(partial / WEIGHTS, stored, kind)
    golden_audio.write(partial / GOLDEN, golden)
    files = {
      name: {"sha256": storage.sha256(partial / name)}
      for name in (WEIGHTS, GOLDEN)
    }
    storage.write_json(partial / CONFIG, config | files)
    card = model_card.make(config, license, out.name, framework)
    storage.write_text(partial / CARD, card)
    for name, content in (others or {}).items():
      (partial / name).write_bytes(content)
    if out.exists():
      for name in (*(others or {}), *FILES):  # Half of this is refused.
        (partial / name).replace(out / name)
    else:
      partial.rename(out)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
