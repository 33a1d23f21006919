"""Makes a bundle from weights that PyTorch trained.

  python -m pcl_jax.import_weights --torch=encoder.safetensors --out=my-encoder

The file is the state dict of an audio encoder in the published names, of either
network and of any width: .safetensors, or .pt, for which PyTorch must be
installed (code in such a file is never run). Whatever is missing, unknown or
of another shape is listed. The bundle is then used as any other:
docs/weights.md.
"""

from collections.abc import Sequence

from absl import logging

from pcl_jax.audio import melspectrogram
from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import jax_setup
from pcl_jax.embedding import embedding_table
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.bundles import bundle_files
from pcl_jax.embedding.bundles import model_card
from pcl_jax.interop import torch_files
from pcl_jax.interop import torch_names


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and writes the bundle."""
  parser = command_line.parser("pcl_jax.import_weights", __doc__)
  add, path = parser.add_argument, {"type": command_line.path}
  add("--torch", **path, required=True, help="the file with the state dict")
  add("--out", **path, required=True, help="the folder to write")
  text = "identifier of the weights' licence, such as cc-by-nc-4.0"
  add("--license", default=model_card.NO_LICENSE, help=text)
  add("--force", action="store_true", help="replace the files of a bundle")
  flags = parser.parse_args(argv)
  jax_setup.start()
  bundle_files.check_free(flags.out, force=flags.force)
  arrays = torch_files.read(flags.torch)
  network = torch_names.load_encoder(arrays)
  meta = {
    "strategy": "unknown",
    "progress": {"step": 0},
    "architecture": {"audio": torch_names.architecture_of(arrays)},
    "feature": melspectrogram.SETTINGS.as_dict(),
  }
  about = embedding_table.provenance(network, meta, flags.torch)
  encoder = song_encoder.SongEncoder(network, about, meta)
  encoder.save(flags.out, license=flags.license, force=flags.force)
  built = meta["architecture"]["audio"]
  print(
    f"{flags.out}: {built['backbone_type']} of width {built['width']}, weights "
    f"{about['weights_sha256'][:12]}"
  )


if __name__ == "__main__":
  logging.set_verbosity(logging.ERROR)
  errors.run_command(main)
