"""Batch normalisation with the statistics PyTorch keeps."""

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

EPSILON = 1e-5
MOMENTUM = 0.1  # Share of the new batch in the running statistics.


class BatchNorm(nnx.Module):
  """Normalises every channel over all other axes, in float32.

  Training divides by the biased variance of the batch and feeds the running
  variance the unbiased one, n / (n - 1) times as large, with n the number of
  elements of a channel; `nnx.BatchNorm` keeps the biased one. The variance is
  taken in two passes. Under jit the batch is the global one, however it is
  sharded.
  """

  def __init__(self, channels: int):
    self.scale = nnx.Param(jnp.ones(channels))
    self.bias = nnx.Param(jnp.zeros(channels))
    self.mean = nnx.BatchStat(jnp.zeros(channels))
    self.var = nnx.BatchStat(jnp.ones(channels))

  def __call__(
    self, x: Float[Array, "*batch channels"], training: bool
  ) -> Float[Array, "*batch channels"]:
    """Normalises `x`; in training also moves the running statistics.

    Args:
      x: [..., channels], any float type.
      training: by the batch's statistics, else by the running ones.

    Returns:
      [..., channels] in the type of `x`.

    Raises:
      ValueError: in training with a single element per channel, which has no
        unbiased variance.
    """
    wide = x.astype(jnp.float32)
    if training:
      mean, var = self._batch_statistics(wide)
    else:
      mean, var = self.mean[...], self.var[...]
    # One product and one sum: half the passes of centring first.
    factor = self.scale[...] * jax.lax.rsqrt(var + EPSILON)
    offset = self.bias[...] - mean * factor
    shape = (1,) * (x.ndim - 1) + (-1,)
    y = wide * factor.reshape(shape) + offset.reshape(shape)
    return y.astype(x.dtype)

  def _batch_statistics(
    self, x: Float[Array, "*batch channels"]
  ) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Returns the batch's mean and biased variance and notes them."""
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    if count < 2:
      raise ValueError(
        f"batch norm in training needs at least 2 elements per channel, "
        f"got an input of shape {x.shape}: use a larger batch"
      )
    mean = jnp.mean(x, axis=axes)
    var = jnp.var(x, axis=axes)
    kept = 1.0 - MOMENTUM
    unbiased = var * (count / (count - 1))
    self.mean[...] = kept * self.mean[...] + MOMENTUM * mean
    self.var[...] = kept * self.var[...] + MOMENTUM * unbiased
    return mean, var
