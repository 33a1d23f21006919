"""An encoder as mteb's audio encoder, for the audio benchmark MAEB."""

from typing import Any

from jaxtyping import Float
import numpy as np

from pcl_jax.common import errors
from pcl_jax.embedding import encoder_loading
from pcl_jax.interop import song_windows

try:
  from mteb.models import ModelMeta
  from mteb.models.abs_encoder import AbsEncoder
except ImportError as error:
  raise errors.InputError(
    f'mteb_encoder needs mteb ({error}): pip install "pcl_jax[mteb]".'
  ) from error


class MtebEncoder(AbsEncoder):
  """Embeds the column `audio` of mteb's tasks.

  Attributes:
    model: what `pcl_jax.load` returns.
    windows: how recordings are cut.
    mteb_model_meta: what mteb writes into its results.
  """

  def __init__(
    self,
    model_name: str,
    revision: str | None = None,
    *,
    device: str | None = None,
    **windows: Any,
  ):
    """Loads an encoder.

    Args:
      model_name: the folder of a run or a bundle, or hf://USER/NAME.
      revision: of a model hub; None for the newest.
      device: not used; jax chooses.
      **windows: of `song_windows.Windows`.
    """
    place = f"{model_name}@{revision}" if revision else model_name
    self.model = encoder_loading.load(place)
    self.windows = song_windows.Windows(**windows)
    digest = self.model.about["weights_sha256"]
    self.mteb_model_meta = ModelMeta.create_empty(
      {
        "name": f"pcl_jax/{digest[:12]}",
        "revision": digest,
        "embed_dim": getattr(self.model, self.windows.layer),
        "modalities": ["audio"],
        "framework": ["JAX"],
      }
    )

  def encode(
    self, inputs: Any, **_: Any
  ) -> Float[np.ndarray, "recordings size"]:
    """Embeds recordings: the weighted mean over the windows of each.

    Args:
      inputs: batches of rows with `audio`: array and sampling rate.
    """
    return np.stack([self._vector(o) for b in inputs for o in b["audio"]])

  def _vector(self, audio: Any) -> Float[np.ndarray, " size"]:
    samples = np.asarray(audio["array"], np.float32)
    found = self.windows.embed(self.model, samples.T, audio["sampling_rate"])
    return np.average(found[0], axis=0, weights=found[1]).astype(np.float32)
