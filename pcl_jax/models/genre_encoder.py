"""Mode G: maps a song's genre codes to an embedding by self-attention."""

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from pcl_jax.models import layers

PADDING = 0
_MASKED_SCORE = -1e9


class GenreEncoder(nnx.Module):
  """Self-attention over the vectors of a song's genre codes.

  Padding is masked as a key, not as a query: all tag positions enter the sum,
  as in the published code.
  """

  def __init__(
    self,
    table: Float[np.ndarray, "rows dims"],
    *,
    n_head: int = 4,
    d_k: int = 128,
    d_v: int = 128,
    dropout: float = 0.1,
    rngs: nnx.Rngs,
  ):
    """Takes the vectors of the codes (row 0 is padding), draws the rest.

    Training changes the vectors further. `n_head` attention heads have queries
    and keys of width `d_k` and values of width `d_v`; `dropout` is the rate for
    the attention and for the attended values.
    """
    dims = table.shape[1]
    self.n_head = n_head
    self.dropout = dropout
    self.embeddings = nnx.Param(jnp.asarray(table, jnp.float32))
    self.queries = layers.linear(dims, n_head * d_k, use_bias=False, rngs=rngs)
    self.keys = layers.linear(dims, n_head * d_k, use_bias=False, rngs=rngs)
    self.values = layers.linear(dims, n_head * d_v, use_bias=False, rngs=rngs)
    self.output = layers.linear(n_head * d_v, dims, use_bias=False, rngs=rngs)
    self.norm = layers.layer_norm(dims, rngs=rngs)

  def __call__(
    self,
    tags: Int[Array, "batch tags"],
    training: bool,
    key: Array | None = None,
  ) -> Float[Array, "batch dims"]:
    """Returns embeddings of songs from their codes, 0 where there is none."""
    keys = (None, None) if key is None else jax.random.split(key)
    vectors = self.embeddings[...][tags]
    attention = self.attention(vectors, tags)
    attention = layers.dropout(attention, self.dropout, training, keys[0])
    attended = jnp.einsum(
      "bhqk,bkhv->bqhv", attention, self._heads(self.values(vectors))
    )
    y = self.output(attended.reshape(*tags.shape, -1))
    y = layers.dropout(y, self.dropout, training, keys[1])
    return self.norm(y.sum(axis=1))

  def attention(
    self,
    vectors: Float[Array, "batch tags dims"],
    tags: Int[Array, "batch tags"],
  ) -> Float[Array, "batch heads tags tags"]:
    """Returns the weight of each tag (last axis) for each, of sum 1."""
    queries = self._heads(self.queries(vectors))
    keys = self._heads(self.keys(vectors))
    scores = jnp.einsum("bqhd,bkhd->bhqk", queries, keys)
    scores = scores / queries.shape[-1] ** 0.5
    there = (tags != PADDING)[:, None, None, :]
    return jax.nn.softmax(jnp.where(there, scores, _MASKED_SCORE), axis=-1)

  def _heads(
    self, x: Float[Array, "batch tags width"]
  ) -> Float[Array, "batch tags heads head_width"]:
    """Splits the last axis into heads."""
    return x.reshape(*x.shape[:2], self.n_head, -1)
