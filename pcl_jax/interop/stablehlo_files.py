"""Encoders as serialised StableHLO: from 16 kHz samples to vectors of patches.

A file is what `jax.export` writes. JAX alone reads and compiles it, for CPUs,
GPUs and TPUs.
"""

from collections.abc import Callable
import importlib
import pathlib

from flax import nnx
import jax
from jax import lax
import jax.export
from jaxtyping import Array, Float
import numpy as np

from pcl_jax.audio import melspectrogram
from pcl_jax.audio import song_patches
from pcl_jax.audio import traced_feature
from pcl_jax.common import errors
from pcl_jax.common import jax_setup
from pcl_jax.common import storage
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.bundles import bundle_files
from pcl_jax.models import audio_encoder
from pcl_jax.models import compiled_encoder

SUFFIX = ".stablehlo"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
# A patch needs a hop of what is before it, since frames are centred.
PATCH_SAMPLES = (song_patches.FRAMES + 1) * melspectrogram.SETTINGS.hop_samples
_HALF_BITS = {"exponent_bits": 5, "mantissa_bits": 10}  # Of float16.


def check_out(out: pathlib.Path, *, force: bool) -> None:
  """Raises InputError where a file cannot be written to a place."""
  storage.check_free(out, force=force, suffix=SUFFIX)
  try:
    importlib.import_module("flatbuffers")
  except ImportError as error:
    raise errors.InputError(
      "jax.export writes files with the package flatbuffers, which is not "
      'installed: install it with pip install "pcl_jax[stablehlo]".'
    ) from error


def _program(network: audio_encoder.AudioEncoder, name: str) -> Callable:
  """Returns a function of samples, of this name, with the weights inside."""
  graphdef, *variables = nnx.split(network, nnx.Param, nnx.BatchStat)

  def embed(
    samples_16khz: Float[Array, "patches n"],
  ) -> dict[str, Float[Array, "patches _"]]:
    feature = traced_feature.inner_log_mel(samples_16khz)
    # As song stores have it. Compilers may leave out a cast there and back.
    feature = lax.reduce_precision(feature, **_HALF_BITS)
    vectors = nnx.merge(graphdef, *variables)(feature, False)
    return dict(zip(compiled_encoder.LAYERS, vectors, strict=True))

  embed.__name__ = embed.__qualname__ = name
  return embed


@jax_setup.in_own_types
def export(encoder: song_encoder.SongEncoder) -> jax.export.Exported:
  """Returns an encoder as one program for all of `PLATFORMS`.

  Its argument `samples_16khz`, float32 [patches, 65792], is mono audio of full
  scale 1 at 16 kHz, of any number of patches: for each the 65,536 samples from
  its beginning on and the 256 before them, which are zeros where a recording
  begins. It returns `features` and `projection`, float32 [patches, size]. Its
  name ends in the first digits of the weights' SHA-256.
  """
  name = f"pcl_jax_encoder_{encoder.about['weights_sha256'][:12]}"
  shape = jax.export.symbolic_shape(f"patches, {PATCH_SAMPLES}")
  program = jax.jit(_program(encoder.network, name))
  return jax.export.export(program, platforms=PLATFORMS)(
    samples_16khz=jax.ShapeDtypeStruct(shape, np.float32)
  )


def write(
  out: pathlib.Path, encoder: song_encoder.SongEncoder, *, force: bool = False
) -> None:
  """Writes front end and network as one file; docs/weights.md describes it.

  Args:
    out: the file; its name ends in .stablehlo.
    encoder: of a run or a bundle.
    force: replaces a file that is there.

  Raises:
    InputError: the file exists and is not to be replaced or has another
      suffix, flatbuffers is not installed, or weights are not finite.
    OSError: it cannot be written.
  """
  check_out(out, force=force)
  arrays = bundle_files.arrays_of(encoder.network)
  bundle_files.check_finite(arrays, "the encoder")
  content = export(encoder).serialize()
  out.parent.mkdir(parents=True, exist_ok=True)
  with storage.write_aside(out) as partial:
    partial.write_bytes(content)
