"""Mode A: maps a log-mel patch to features and their projection."""

from typing import Any

from flax import nnx
import jax.numpy as jnp
from jaxtyping import Array, Float

from pcl_jax.common import errors
from pcl_jax.models import layers
from pcl_jax.models import resnet
from pcl_jax.models import short_chunk_cnn

BACKBONES = {"resnet": resnet.ResNet18, "sc_cnn": short_chunk_cnn.ScCnn}


class AudioEncoder(nnx.Module):
  """A convolutional backbone and the projection that the loss sees."""

  def __init__(
    self,
    backbone_type: str,
    *,
    width: int | None = None,
    fc_hidden_dim: int = 128,
    fc_output_dim: int = 128,
    fc_dropout: float = 0.0,
    compute_dtype: Any = jnp.float32,
    remat: bool = False,
    rngs: nnx.Rngs,
  ):
    """Draws the weights.

    Args:
      backbone_type: a key of `BACKBONES`.
      width: channels of the backbone's first layer; None for the paper's.
      fc_hidden_dim: hidden size of the projection.
      fc_output_dim: output size of the projection.
      fc_dropout: dropout rate of the projection.
      compute_dtype: type of the convolutions; everything else is float32.
      remat: computes the inside of blocks twice, to save memory.
      rngs: source of the initial weights.

    Raises:
      InputError: the backbone does not exist.
    """
    if backbone_type not in BACKBONES:
      raise errors.InputError(
        f"backbone_type is {backbone_type!r}, which is not an audio encoder: "
        f"choose one of {', '.join(BACKBONES)}"
      )
    self.backbone = BACKBONES[backbone_type](
      **({} if width is None else {"width": width}),
      compute_dtype=compute_dtype,
      remat=remat,
      rngs=rngs,
    )
    self.projection = layers.Mlp(
      self.backbone.features,
      fc_hidden_dim,
      fc_output_dim,
      fc_dropout,
      rngs=rngs,
    )

  def __call__(
    self,
    mel: Float[Array, "batch frames bands"],
    training: bool,
    key: Array | None = None,
  ) -> tuple[Float[Array, "batch features"], Float[Array, "batch outputs"]]:
    """Returns the features for downstream tasks and the loss's projection.

    Both are float32. `mel` has 256 frames of 48 mel bands, float16 or float32;
    `training` turns on dropout, which `key` decides, and batch statistics.
    """
    features = self.backbone(mel.astype(jnp.float32), training)
    return features, self.projection(features, training, key)
