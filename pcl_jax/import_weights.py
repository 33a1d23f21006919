"""Makes a bundle from weights that PyTorch trained.

  python -m pcl_jax.import_weights --torch=encoder.safetensors --out=my-encoder

The file is the state dict of an audio encoder in the published names, of either
network and of any width: .safetensors, or .pt, for which PyTorch must be
installed (code in such a file is never run); or the folder that pcl_jax.export
--format=torch has written. A file does not say which of several channels the
encoder has learned from, so their mean is taken; a folder does. Whatever is
missing, unknown or of another shape is listed. The bundle is then used as any
other: docs/weights.md.
"""

from collections.abc import Sequence

from absl import logging

from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import jax_setup
from pcl_jax.embedding.bundles import bundle_files
from pcl_jax.embedding.bundles import model_card
from pcl_jax.interop import torch_files


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and writes the bundle."""
  parser = command_line.parser("pcl_jax.import_weights", __doc__)
  add, path = parser.add_argument, {"type": command_line.path}
  add("--torch", **path, required=True, help="the state dict, a file or folder")
  add("--out", **path, required=True, help="the folder to write")
  text = "identifier of the weights' licence, such as cc-by-nc-4.0"
  add("--license", default=model_card.NO_LICENSE, help=text)
  add("--force", action="store_true", help="replace the files of a bundle")
  flags = parser.parse_args(argv)
  jax_setup.start()
  bundle_files.check_free(flags.out, force=flags.force)
  encoder = torch_files.load(flags.torch)
  encoder.save(flags.out, license=flags.license, force=flags.force)
  built = encoder.about["architecture"]
  print(
    f"{flags.out}: {built['backbone_type']} of width {built['width']}, weights "
    f"{encoder.about['weights_sha256'][:12]}"
  )


if __name__ == "__main__":
  logging.set_verbosity(logging.ERROR)
  errors.run_command(main)
