"""Encoders as single ONNX files: from 16 kHz samples to vectors of patches."""

import json
import pathlib

from pcl_jax.audio import melspectrogram
from pcl_jax.audio import song_patches
from pcl_jax.common import storage
from pcl_jax.common import versions
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.bundles import bundle_config
from pcl_jax.embedding.bundles import bundle_files
from pcl_jax.embedding.bundles import model_card
from pcl_jax.interop import onnx_graph

SUFFIX = ".onnx"


def check_out(out: pathlib.Path, *, force: bool) -> None:
  """Raises InputError where an ONNX file cannot be written to a place."""
  storage.check_free(out, force=force, suffix=SUFFIX)
  onnx_graph.imported()


def _metadata(encoder: song_encoder.SongEncoder, license: str) -> dict:
  """Returns what the file says of itself; ONNX has texts alone."""
  about = encoder.about
  return {
    "format": bundle_config.FORMAT,
    "format_version": str(bundle_config.FORMAT_VERSION),
    "made_with": f"pcl_jax {versions.own()}",
    "sample_rate_hz": str(melspectrogram.SETTINGS.sample_rate_hz),
    "patch_seconds": str(song_patches.SECONDS),
    "channels": encoder.channels,
    "feature": json.dumps(encoder.meta["feature"]),
    "weights_sha256": about["weights_sha256"],
    "strategy": about["strategy"],
    "step": str(about["step"]),
    "license": license,
  }


def write(
  out: pathlib.Path,
  encoder: song_encoder.SongEncoder,
  *,
  license: str = model_card.NO_LICENSE,
  force: bool = False,
) -> None:
  """Writes front end and network as one file; docs/weights.md describes it.

  Args:
    out: the file; its name ends in .onnx.
    encoder: of a run or a bundle.
    license: identifier of the weights' licence, as `save` has it.
    force: replaces a file that is there.

  Raises:
    InputError: the file exists and is not to be replaced or has another
      suffix, onnx is not installed, weights are not finite, the licence is no
      identifier, or the backbone has no ONNX form.
    OSError: it cannot be written.
  """
  check_out(out, force=force)
  model_card.check_license(license)
  arrays = bundle_files.arrays_of(encoder.network)
  bundle_files.check_finite(arrays, "the encoder")
  model = onnx_graph.of_samples(encoder.network)
  metadata = _metadata(encoder, license)
  onnx_graph.imported().helper.set_model_props(model, metadata)
  out.parent.mkdir(parents=True, exist_ok=True)
  with storage.write_aside(out) as partial:
    partial.write_bytes(model.SerializeToString())
