"""Encoders whose weights are numbers of float16: bundles of half the size."""

import jax
import numpy as np

from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.bundles import bundle_files
from pcl_jax.embedding.bundles import tensor_files
from pcl_jax.embedding.tables import embedding_table


def rounded(encoder: song_encoder.SongEncoder) -> song_encoder.SongEncoder:
  """Returns an encoder with its matrices and kernels rounded to float16.

  It computes in float32 as before, and its bundles have half the size. A song's
  vector keeps its direction to within a cosine of 0.9999 or better.

  Raises:
    InputError: weights are too large for float16.
  """
  arrays = jax.device_get(bundle_files.arrays_of(encoder.network))
  with np.errstate(over="ignore"):
    arrays = tensor_files.widened(tensor_files.halved(arrays))
  bundle_files.check_finite(arrays, "the encoder, rounded to float16,")
  network = bundle_files.with_arrays(encoder.network, arrays)
  digest = embedding_table.weights_digest(network)
  about = encoder.about | {"weights_sha256": digest}
  return song_encoder.SongEncoder(network, about, encoder.meta)
