"""Encoders for PyTorch alone: a state dict, or a folder with the module.

The folder has the weights in the published names (model.safetensors), every
setting (config.json), a model card (README.md), golden audio with its vectors
(golden.npz), and modeling_pcl.py, which computes them without this project.
"""

from importlib import resources
import os
import pathlib

from pcl_jax.common import errors
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.bundles import bundle_config
from pcl_jax.embedding.bundles import bundle_files
from pcl_jax.embedding.bundles import model_card
from pcl_jax.interop import torch_files
from pcl_jax.interop import torch_names

MODULE = "modeling_pcl.py"


def check_out(out: pathlib.Path, *, force: bool) -> None:
  """Raises InputError where an encoder cannot be written to a place.

  A place that ends as PyTorch's files do is a file, any other a folder.
  """
  if out.suffix in torch_files.SUFFIXES:
    torch_files.check_out(out, force=force)
  elif os.path.lexists(out):
    if not (out / MODULE).is_file():
      raise errors.InputError(
        f"{out} exists and is no exported PyTorch module: give another --out."
      )
    if not force:
      raise errors.InputError(
        f"{out} exists: give another --out, or --force to replace its files."
      )


def write(
  out: pathlib.Path,
  encoder: song_encoder.SongEncoder,
  *,
  license: str = model_card.NO_LICENSE,
  force: bool = False,
) -> str:
  """Writes an encoder for PyTorch, as `check_out` tells files from folders.

  Args:
    out: the file or folder.
    encoder: what is written.
    license: identifier of the weights' licence, for a folder's model card.
    force: replaces the file, or the files of a folder that is there.

  Returns:
    Why the card has no results; empty where it has, or is none.

  Raises:
    InputError: the place is taken or of no known form, weights are not finite,
      or the licence is no identifier.
    OSError: a file cannot be written.
  """
  check_out(out, force=force)
  if out.suffix in torch_files.SUFFIXES:
    torch_files.write(out, encoder.network, force=force)
    return ""
  config, golden, reason = encoder.described()
  module = resources.files("pcl_jax.interop").joinpath(MODULE).read_bytes()
  bundle_files.write(
    out,
    torch_names.state_dict(encoder.network),
    config | {"format": bundle_config.TORCH_FORMAT},
    golden,
    license=license,
    framework=model_card.PYTORCH,
    others={MODULE: module},
  )
  return reason
