"""Writes an encoder as a bundle, a folder that anyone can use, or as a file.

  python -m pcl_jax.export --workdir=runs/h --out=my-encoder
  python -m pcl_jax.export --workdir=runs/h --out=my-encoder --license=mit
  python -m pcl_jax.export --workdir=runs/h --out=my-module --format=torch
  python -m pcl_jax.export --workdir=runs/h --out=h.safetensors --format=torch
  python -m pcl_jax.export --workdir=runs/h --out=h.onnx --format=onnx
  python -m pcl_jax.export --workdir=runs/h --out=h.stablehlo --format=stablehlo

The folder has the weights (model.safetensors), every setting (config.json), a
model card (README.md) and a few seconds of generated audio with the embedding
that they must give (golden.npz). pcl_jax.load and every command that needs an
encoder alone take it in place of a --workdir, and refuse it where it gives
another embedding. It names no path of this machine, and can be uploaded to a
model hub as it is: docs/weights.md.

With --format=torch the folder is for PyTorch: the weights have the names of the
published implementation, and modeling_pcl.py computes the same vectors without
this project. An --out that ends in .safetensors, or in .pt if PyTorch is
installed, is a file with the state dict alone.

With --format=onnx one file is written that onnxruntime runs: 16 kHz samples of
any length in, the vectors of their patches out. With --format=stablehlo it is
one that JAX alone runs, compiled for CPU, GPU or TPU: 16 kHz samples of patches
in.

With --half the weights are rounded to float16 first, and a bundle has half the
size; the encoder computes in float32 as before.

The licence of the weights is yours to decide, as far as the rights in the
music that they were learned from allow it; --license writes it into the card.
"""

import argparse
from collections.abc import Callable, Sequence
import pathlib
from typing import NamedTuple

from absl import logging

from pcl_jax.audio import channel_mix
from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import jax_setup
from pcl_jax.embedding import encoder_loading
from pcl_jax.embedding import half_precision
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.bundles import bundle_files
from pcl_jax.embedding.bundles import model_card
from pcl_jax.interop import onnx_files
from pcl_jax.interop import stablehlo_files
from pcl_jax.interop import torch_export
from pcl_jax.interop import torch_files


class _Format(NamedTuple):
  """A form in which an encoder is written.

  Attributes:
    check_out: (out, force=...) -> None; raises InputError, before anything is
      loaded, where --out cannot be written.
    write: writes the encoder by the flags; returns the lines to print.
    suffixes: of its files.
  """

  check_out: Callable[..., None]
  write: Callable[[song_encoder.SongEncoder, argparse.Namespace], list[str]]
  suffixes: Sequence[str] = ()


def _write_bundle(
  encoder: song_encoder.SongEncoder, flags: argparse.Namespace
) -> list[str]:
  reason = encoder.save(flags.out, license=flags.license, force=flags.force)
  return _told(encoder, flags, reason)


def _told(
  encoder: song_encoder.SongEncoder, flags: argparse.Namespace, reason: str
) -> list[str]:
  """Returns what is said of a folder with a model card."""
  about = encoder.about
  told = [
    f"{flags.out}: step {about['step']} of {about['strategy']}, weights "
    f"{about['weights_sha256'][:12]}"
  ]
  if reason:
    told.append(f"the model card has no results: {reason}")
  if flags.license == model_card.NO_LICENSE:
    told.append(
      "the model card says that no licence was decided; give --license"
    )
  return told


def _told_of_file(
  encoder: song_encoder.SongEncoder, flags: argparse.Namespace
) -> list[str]:
  """Returns what is said of a file, to which its user gives mono samples."""
  told = [f"written to {flags.out}"]
  if encoder.channels != channel_mix.MEAN:
    words = channel_mix.in_words(encoder.meta["feature"])
    told.append(
      f"the encoder has learned from {words} of several channels, and not from "
      "their mean: give the file the same"
    )
  return told


def _told_of_license(flags: argparse.Namespace) -> list[str]:
  """Returns what is said of a file that keeps no licence."""
  if flags.license == model_card.NO_LICENSE:
    return []
  return ["the file has no place for --license; say it beside the file"]


def _write_torch(
  encoder: song_encoder.SongEncoder, flags: argparse.Namespace
) -> list[str]:
  reason = torch_export.write(
    flags.out, encoder, license=flags.license, force=flags.force
  )
  if flags.out.is_file():
    return _told_of_file(encoder, flags) + _told_of_license(flags)
  return _told(encoder, flags, reason)


def _write_onnx(
  encoder: song_encoder.SongEncoder, flags: argparse.Namespace
) -> list[str]:
  onnx_files.write(flags.out, encoder, license=flags.license, force=flags.force)
  return _told_of_file(encoder, flags)


def _write_stablehlo(
  encoder: song_encoder.SongEncoder, flags: argparse.Namespace
) -> list[str]:
  stablehlo_files.write(flags.out, encoder, force=flags.force)
  return _told_of_file(encoder, flags) + _told_of_license(flags)


_FORMATS = {
  "bundle": _Format(bundle_files.check_free, _write_bundle),
  "torch": _Format(torch_export.check_out, _write_torch, torch_files.SUFFIXES),
  "onnx": _Format(onnx_files.check_out, _write_onnx, (onnx_files.SUFFIX,)),
  "stablehlo": _Format(
    stablehlo_files.check_out, _write_stablehlo, (stablehlo_files.SUFFIX,)
  ),
}


def _check_suffix(out: pathlib.Path, format: str) -> None:
  """Raises InputError where a place is named like a file of another format."""
  for name, other in _FORMATS.items():
    if name != format and out.suffix in other.suffixes:
      raise errors.InputError(
        f"{out} is named like a file of --format={name}, and --format is "
        f"{format}: give --format={name}, or an --out that does not end in "
        f"{out.suffix}."
      )


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and writes the encoder."""
  parser = command_line.parser("pcl_jax.export", __doc__)
  add, path = parser.add_argument, {"type": command_line.path}
  text = "folder of the run, or a bundle (pcl_jax/pretrained, if there is one)"
  add("--workdir", help=text)
  add("--out", **path, required=True, help="the folder or file to write")
  which = song_encoder.CHECKPOINTS
  text = "by validation loss, or by step; a bundle has one encoder"
  add("--checkpoint", choices=which, default=which[0], help=text)
  text = "identifier of the weights' licence, such as cc-by-nc-4.0"
  add("--license", default=model_card.NO_LICENSE, help=text)
  text = "what is written, as above (default bundle)"
  add("--format", choices=tuple(_FORMATS), default="bundle", help=text)
  add("--half", action="store_true", help="round the weights to float16")
  add("--force", action="store_true", help="replace what is there")
  flags = parser.parse_args(argv)
  jax_setup.start()
  _check_suffix(flags.out, flags.format)
  model_card.check_license(flags.license)
  form = _FORMATS[flags.format]
  form.check_out(flags.out, force=flags.force)
  encoder = encoder_loading.load(flags.workdir, flags.checkpoint)
  if flags.half:
    encoder = half_precision.rounded(encoder)
  for line in form.write(encoder, flags):
    print(line)


if __name__ == "__main__":
  logging.set_verbosity(logging.ERROR)  # Orbax warns of reading only.
  errors.run_command(main)
