"""The short-chunk CNN (Won et al. 2020, arXiv:2006.00751) of the paper."""

from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pcl_jax.models import layers
from pcl_jax.models import max_pooling

WIDTHS = (1, 1, 2, 2, 2, 2, 4)  # Channels of the blocks, in units of the width.
# Windows over (time, mel): 256 x 48 ends as 2 x 1.
POOLS = ((2, 2), (2, 2), (2, 2), (2, 2), (2, 1), (2, 1), (2, 2))


class ConvBlock(nnx.Module):
  """A 3x3 convolution, batch norm, ReLU and max pool."""

  def __init__(
    self,
    inputs: int,
    outputs: int,
    *,
    pool: tuple[int, int],
    compute_dtype: Any = jnp.float32,
    rngs: nnx.Rngs,
  ):
    self.pool = pool
    self.conv = layers.Conv(
      inputs,
      outputs,
      (3, 3),
      padding=1,
      kernel_init=layers.torch_uniform(9 * inputs),
      bias_init=layers.torch_uniform(9 * inputs),
      dtype=compute_dtype,
      rngs=rngs,
    )
    self.norm = layers.BatchNorm(outputs)

  def __call__(
    self, x: Float[Array, "batch time mel inputs"], training: bool
  ) -> Float[Array, "batch rows columns outputs"]:
    """Returns [batch, time / pool[0], mel / pool[1], outputs]."""
    x = jax.nn.relu(self.norm(self.conv(x), training))
    return max_pooling.max_pool(x, self.pool)


class ScCnn(nnx.Module):
  """Maps log-mel patches of 256 frames to the flattened last feature map.

  Attributes:
    features: size of the output, 8 times the width.
  """

  def __init__(
    self,
    *,
    width: int = 128,
    compute_dtype: Any = jnp.float32,
    remat: bool = False,
    rngs: nnx.Rngs,
  ):
    """Draws the weights; the first block has `width` channels."""
    self.remat = remat
    self.features = 2 * WIDTHS[-1] * width
    self.norm = layers.BatchNorm(1)
    channels = [1] + [multiple * width for multiple in WIDTHS]
    self.blocks = nnx.Dict(
      {
        f"block{i + 1}": ConvBlock(
          channels[i],
          channels[i + 1],
          pool=pool,
          compute_dtype=compute_dtype,
          rngs=rngs,
        )
        for i, pool in enumerate(POOLS)
      }
    )

  def __call__(
    self, mel: Float[Array, "batch 256 48"], training: bool
  ) -> Float[Array, "batch features"]:
    """Returns the values of each channel at the two last times, float32."""
    x = self.norm(mel[..., None], training)
    for name in sorted(self.blocks):
      x = layers.run_block(self.blocks[name], x, training, self.remat)
    # Channel first, as PyTorch flattens: the projection's rows follow it.
    x = x.astype(jnp.float32).transpose(0, 3, 2, 1)
    return x.reshape(x.shape[0], -1)
