"""Mode P: maps a song's collaborative-filtering vector to an embedding."""

from flax import nnx
from jaxtyping import Array, Float

from pcl_jax.models import layers


class PlaylistEncoder(nnx.Module):
  """Two linear layers and a layer norm."""

  def __init__(
    self,
    *,
    input_dim: int = 301,
    hidden_dim: int = 128,
    output_dim: int = 128,
    dropout: float = 0.3,
    rngs: nnx.Rngs,
  ):
    """Draws the weights; a vector has 300 factors and the item bias."""
    self.fc = layers.Mlp(input_dim, hidden_dim, output_dim, dropout, rngs=rngs)
    self.norm = layers.layer_norm(output_dim, rngs=rngs)

  def __call__(
    self,
    vectors: Float[Array, "batch inputs"],
    training: bool,
    key: Array | None = None,
  ) -> Float[Array, "batch outputs"]:
    """Returns embeddings; `training` turns on dropout, which `key` decides."""
    return self.norm(self.fc(vectors, training, key))
