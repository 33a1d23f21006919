"""An encoder as perch-hoplite's `EmbeddingModel`."""

import dataclasses
from typing import Any

from jaxtyping import Float
import numpy as np

from pcl_jax.common import errors
from pcl_jax.embedding import encoder_loading
from pcl_jax.embedding import song_encoder
from pcl_jax.interop import song_windows

try:
  from perch_hoplite.zoo import zoo_interface
except ImportError as error:
  raise errors.InputError(
    f"hoplite_model needs perch-hoplite ({error}): docs/weights.md says how it "
    "is installed."
  ) from error


@dataclasses.dataclass
class WindowOutputs(zoo_interface.InferenceOutputs):
  """Embeddings [windows, 1, size] whose mean counts a window by its weight."""

  weights: Float[np.ndarray, " windows"] | None = None

  def pooled_embeddings(
    self, time_pooling: str, channel_pooling: str = ""
  ) -> np.ndarray:
    """Pools over windows and channels, as perch-hoplite names the methods."""
    if time_pooling != "mean" or self.weights is None:
      return super().pooled_embeddings(time_pooling, channel_pooling)
    mean = np.average(self.embeddings, axis=-3, weights=self.weights)
    return zoo_interface.pool_axis(mean.astype(np.float32), -2, channel_pooling)


@dataclasses.dataclass
class HopliteModel(zoo_interface.EmbeddingModel):
  """Embeds windows of audio at `sample_rate`, one channel.

  Attributes:
    encoder: what `pcl_jax.load` returns.
    windows: how recordings are cut.
  """

  encoder: song_encoder.SongEncoder
  windows: song_windows.Windows = song_windows.Windows()

  @classmethod
  def from_config(cls, model_config: Any) -> "HopliteModel":
    """Loads `model_path`, a run or bundle; the other keys are of `Windows`."""
    keys = dict(model_config)
    encoder = encoder_loading.load(keys.pop("model_path"))
    rate_hz = encoder.meta["feature"]["sample_rate_hz"]
    if keys.pop("sample_rate", rate_hz) != rate_hz:
      raise errors.InputError(
        f"sample_rate is {model_config['sample_rate']}, and the encoder's is "
        f"{rate_hz}: leave it out."
      )
    return cls(rate_hz, encoder, song_windows.Windows(**keys))

  def embed(self, audio_array: np.ndarray) -> WindowOutputs:
    """Embeds audio of full scale 1, [samples]."""
    found = self.windows.embed(self.encoder, audio_array, self.sample_rate)
    return WindowOutputs(embeddings=found[0][:, None], weights=found[1])

  def batch_embed(self, audio_batch: np.ndarray) -> WindowOutputs:
    """Embeds audio of one length, [batch, samples]."""
    found = [self.embed(audio) for audio in audio_batch]
    vectors = np.stack([one.embeddings for one in found])
    return WindowOutputs(vectors, batched=True, weights=found[0].weights)
