"""A bundle: an encoder as a folder, without the run that trained it.

    model.safetensors  weights and batch statistics, by this project's names
    config.json        architecture, feature, layer sizes, origin, digests
    golden.npz         generated audio, and the vectors it must give
    README.md          model card, with the header that model hubs read

It names no path of the machine where it was made.
"""

from collections.abc import Mapping
import json
import os
import pathlib
import shutil
from typing import Any, NamedTuple

from flax import nnx
import jax
import numpy as np

from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.embedding.bundles import bundle_config
from pcl_jax.embedding.bundles import golden_audio
from pcl_jax.embedding.bundles import model_card
from pcl_jax.embedding.bundles import tensor_files
from pcl_jax.models import audio_encoder

WEIGHTS = checkpoint_files.BUNDLE_WEIGHTS
GOLDEN = checkpoint_files.BUNDLE_GOLDEN
CONFIG, CARD = "config.json", "README.md"
FILES = (WEIGHTS, GOLDEN, CARD, CONFIG)
_AGAIN = bundle_config.AGAIN
_AS_IT_IS = "pcl_jax.load(..., verify=False) loads it as it is."


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
  config = bundle_config.read(folder / CONFIG)
  network = _abstract_network(config["architecture"], folder / CONFIG)
  for name in (WEIGHTS, GOLDEN) if verify else ():
    check_digest(folder / name, config)
  arrays = _read_weights(folder / WEIGHTS, network)
  check_finite(arrays, str(folder / WEIGHTS))
  golden = golden_audio.read(folder / GOLDEN)
  meta = bundle_config.meta_of(config)
  return Bundle(with_arrays(network, arrays), meta, golden)


def _abstract_network(
  architecture: dict[str, Any], path: pathlib.Path
) -> audio_encoder.AudioEncoder:
  """Returns a network of shapes, by arguments that were read from a file."""
  sizes = {name: architecture.get(name) for name in bundle_config.SIZES}
  dropout = architecture.get("fc_dropout")
  known = {"backbone_type", "fc_dropout", *bundle_config.SIZES}
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


def check_digest(
  path: pathlib.Path, config: Mapping[str, Any], as_it_is: str = _AS_IT_IS
) -> None:
  """Refuses a file that is not the one that config.json names.

  Args:
    path: of the file.
    config: what config.json says.
    as_it_is: how the file is taken all the same, for the message.

  Raises:
    InputError: it is missing, or has another digest.
  """
  if not path.is_file():
    raise errors.InputError(f"{path} is missing: {_AGAIN}")
  expected, found = config[path.name]["sha256"], storage.sha256(path)
  if found != expected:
    raise errors.InputError(
      f"{path} is not the file that was exported: its sha256 begins with "
      f"{found[:12]}, and {CONFIG} says {expected[:12]}. Download or export "
      f"the bundle again; {as_it_is}"
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


def _is_ours(folder: pathlib.Path) -> bool:
  """Tells a bundle, also a spoiled one, from other models of such files."""
  if not checkpoint_files.is_bundle(folder):
    return False
  try:
    config = storage.read_json(folder / CONFIG)
  except (OSError, ValueError, RecursionError):
    return (folder / GOLDEN).is_file()  # A name that others do not have.
  return (
    isinstance(config, dict) and config.get("format") == bundle_config.FORMAT
  )


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
    config: what `bundle_config.of` gives.
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
    kind = bundle_config.FORMAT if framework == model_card.JAX else "pt"
    stored = arrays if kind == "pt" else tensor_files.narrowed(arrays)
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
