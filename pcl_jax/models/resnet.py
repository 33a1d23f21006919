"""ResNet-18 for log-mel patches (He et al. 2016, arXiv:1512.03385)."""

import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pcl_jax.models import layers
from pcl_jax.models import max_pooling

STAGES = 4
BLOCKS_PER_STAGE = 2

_conv = functools.partial(
  layers.Conv, use_bias=False, kernel_init=layers.he_fan_out
)


class BasicBlock(nnx.Module):
  """Two 3x3 convolutions, whose output is added to the input."""

  def __init__(
    self,
    inputs: int,
    outputs: int,
    *,
    stride: int = 1,
    compute_dtype: Any = jnp.float32,
    rngs: nnx.Rngs,
  ):
    conv = functools.partial(_conv, dtype=compute_dtype, rngs=rngs)
    self.conv1 = conv(inputs, outputs, (3, 3), stride, padding=1)
    self.norm1 = layers.BatchNorm(outputs)
    self.conv2 = conv(outputs, outputs, (3, 3), padding=1)
    self.norm2 = layers.BatchNorm(outputs)
    self.reshapes = stride != 1 or inputs != outputs
    if self.reshapes:
      self.shortcut_conv = conv(inputs, outputs, (1, 1), stride, padding=0)
      self.shortcut_norm = layers.BatchNorm(outputs)

  def __call__(
    self, x: Float[Array, "batch time mel inputs"], training: bool
  ) -> Float[Array, "batch rows columns outputs"]:
    """Returns [batch, time / stride, mel / stride, outputs]."""
    y = jax.nn.relu(self.norm1(self.conv1(x), training))
    y = self.norm2(self.conv2(y), training)
    if self.reshapes:
      x = self.shortcut_norm(self.shortcut_conv(x), training)
    return jax.nn.relu(x + y)


class ResNet18(nnx.Module):
  """Maps log-mel patches to average and maximum of the last feature map.

  Attributes:
    features: size of the output, 16 times the width.
  """

  def __init__(
    self,
    *,
    width: int = 64,
    compute_dtype: Any = jnp.float32,
    remat: bool = False,
    rngs: nnx.Rngs,
  ):
    """Draws the weights; each stage doubles the `width` of the first."""
    self.remat = remat
    self.features = 2 * width * 2 ** (STAGES - 1)
    self.conv = _conv(
      1, width, (7, 7), 2, padding=3, dtype=compute_dtype, rngs=rngs
    )
    self.norm = layers.BatchNorm(width)
    blocks = {}
    inputs = width
    for stage in range(STAGES):
      outputs = width * 2**stage
      for block in range(BLOCKS_PER_STAGE):
        blocks[f"stage{stage + 1}_block{block + 1}"] = BasicBlock(
          inputs,
          outputs,
          stride=2 if stage and not block else 1,
          compute_dtype=compute_dtype,
          rngs=rngs,
        )
        inputs = outputs
    self.blocks = nnx.Dict(blocks)

  def __call__(
    self, mel: Float[Array, "batch frames bands"], training: bool
  ) -> Float[Array, "batch features"]:
    """Returns the averages, then the maxima, over time and mel; float32."""
    x = jax.nn.relu(self.norm(self.conv(mel[..., None]), training))
    x = max_pooling.overlapping_max_pool(x)
    for name in sorted(self.blocks):
      x = layers.run_block(self.blocks[name], x, training, self.remat)
    x = x.astype(jnp.float32)
    # Not jnp.max: its gradient divides by the number of equal maxima, which is
    # 0 where XLA computes x again and rounds it differently.
    highest = max_pooling.max_pool(x, x.shape[1:3])[:, 0, 0]
    return jnp.concatenate([x.mean(axis=(1, 2)), highest], axis=-1)
