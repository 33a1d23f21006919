"""State dicts of PyTorch on disk, in the published names.

`.safetensors` needs no PyTorch; `.pt` does. Of a `.pt` only the arrays are
read: code inside is refused, not run.
"""

from collections.abc import Mapping
import pathlib
from typing import Any

import numpy as np

from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.bundles import bundle_config
from pcl_jax.embedding.bundles import bundle_files
from pcl_jax.embedding.bundles import tensor_files
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.interop import torch_names
from pcl_jax.models import audio_encoder

SAFE = ".safetensors"
_PICKLED = (".pt", ".pth", ".ckpt", ".bin")
SUFFIXES = (SAFE, *_PICKLED)
_UNKNOWN = {
  "strategy": "unknown",
  "progress": {"step": 0},
  "architecture": {"audio": {}},
  "feature": melspectrogram.SETTINGS.as_dict(),
}
_INSIDE = ("state_dict", "model_state_dict", "model")  # Of a trainer's file.


def check_out(out: pathlib.Path, *, force: bool) -> None:
  """Raises InputError where a state dict cannot be written to a place."""
  if out.suffix not in (SAFE, ".pt"):
    raise errors.InputError(
      f"{out} ends in neither {SAFE} nor .pt, the forms of a PyTorch state "
      "dict: give such an --out."
    )
  storage.check_free(out, force=force)
  if out.suffix != SAFE:
    _torch(out)


def _torch(path: pathlib.Path) -> Any:
  try:
    import torch
  except ImportError as error:
    raise errors.InputError(
      f"{path} needs PyTorch, which is not installed: install it with pip "
      f"install torch, or use a file that ends in {SAFE}."
    ) from error
  return torch


def write(
  out: pathlib.Path,
  encoder: audio_encoder.AudioEncoder,
  *,
  force: bool = False,
) -> None:
  """Writes an encoder's state dict; `out` ends in .safetensors or .pt.

  Raises:
    InputError: the file exists and is not to be replaced, has another suffix,
      needs PyTorch, which is not installed, or weights are not finite.
    OSError: it cannot be written.
  """
  check_out(out, force=force)
  arrays = torch_names.state_dict(encoder)
  bundle_files.check_finite(arrays, "the encoder")
  out.parent.mkdir(parents=True, exist_ok=True)
  with storage.write_aside(out) as partial:
    if out.suffix == SAFE:
      tensor_files.write(partial, arrays, "pt")
    else:
      torch = _torch(out)
      tensors = {n: torch.from_numpy(one.copy()) for n, one in arrays.items()}
      torch.save(tensors, partial)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads a state dict from a file.

  Returns:
    Its arrays by name.

  Raises:
    InputError: the file cannot be read, holds code or anything but arrays, or
      needs PyTorch, which is not installed.
  """
  if not path.is_file():
    raise errors.InputError(f"{path} is not a file: give a state dict.")
  if path.suffix == SAFE:
    return tensor_files.read(path)
  if path.suffix not in _PICKLED:
    raise errors.InputError(
      f"{path} ends in none of {', '.join(SUFFIXES)}, by which "
      "PyTorch's files are known."
    )
  torch = _torch(path)
  try:
    found = torch.load(path, map_location="cpu", weights_only=True)
  except Exception as error:  # Whatever a damaged or hostile pickle causes.
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise errors.InputError(
      f"{path} cannot be read as arrays alone ({reason[:160]}): save the "
      "model's state_dict(), and no other objects, with torch.save."
    ) from error
  return _arrays_in(found, path, torch)


def load(path: pathlib.Path) -> song_encoder.SongEncoder:
  """Loads an encoder from a state dict, or from a folder that was exported.

  The training of a state dict alone is not on record: it is taken to have
  learned from the mean of the channels.

  Raises:
    InputError: a file cannot be read, or does not hold such an encoder; all
      that is missing, unknown or of another shape is listed.
  """
  weights, meta = path, _UNKNOWN
  if path.is_dir():
    weights = path / bundle_files.WEIGHTS
    config_path = path / bundle_files.CONFIG
    config = bundle_config.read(config_path, bundle_config.TORCH_FORMAT)
    as_it_is = f"--torch={weights} takes the weights alone as they are."
    bundle_files.check_digest(weights, config, as_it_is)
    meta = bundle_config.meta_of(config)
  arrays = read(weights)
  network = torch_names.load_encoder(arrays)
  built = meta["architecture"]["audio"] | torch_names.architecture_of(arrays)
  meta = meta | {"architecture": meta["architecture"] | {"audio": built}}
  about = embedding_table.provenance(network, meta, path)
  return song_encoder.SongEncoder(network, about, meta)


def _arrays_in(
  found: Any, path: pathlib.Path, torch: Any
) -> dict[str, np.ndarray]:
  """Returns the arrays of what torch.load gave."""
  for key in _INSIDE if isinstance(found, Mapping) else ():
    if isinstance(found.get(key), Mapping):
      found = found[key]
      break
  odd = ["it is no dict"]
  if isinstance(found, Mapping):
    odd = [k for k, v in found.items() if not isinstance(v, torch.Tensor)]
  if odd:
    raise errors.InputError(
      f"{path} is not the state_dict of a model ({', '.join(map(str, odd[:5]))}"
      " hold no arrays): save model.state_dict() with torch.save."
    )
  return {
    str(name): _array_of(one, f"{path}: {name}") for name, one in found.items()
  }


def _array_of(tensor: Any, where: str) -> np.ndarray:
  found = tensor.detach()
  try:
    return (found.float() if found.is_floating_point() else found).numpy()
  except (TypeError, RuntimeError) as error:
    raise errors.InputError(
      f"{where} is no plain array ({tensor.layout}, {tensor.dtype}): save it "
      "as float32, after to_dense() or dequantize()."
    ) from error
