"""Layers that the networks share, and initial weights."""

from collections.abc import Callable
import functools
import math
from typing import Any

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pcl_jax.models import batch_moments
from pcl_jax.models import convolution

_MOMENTUM = 0.1  # Share of the new batch in the running statistics.

Conv = functools.partial(
  nnx.Conv, conv_general_dilated=convolution.conv_general_dilated
)


def torch_uniform(fan_in: int) -> Callable[..., Array]:
  """Returns PyTorch's default initialiser, uniform on +- 1 / sqrt(fan_in).

  `fan_in` is the number of inputs of one output, channels times kernel size,
  and the same for kernel and bias.
  """
  bound = fan_in**-0.5

  def initialise(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    return bound * _draw_flat(_uniform, key, shape, dtype)

  return initialise


def he_fan_out(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
  """Draws a kernel from He's normal distribution, of variance 2 / fan_out."""
  fan_out = math.prod(shape) // shape[-2]
  return (2 / fan_out) ** 0.5 * _draw_flat(jax.random.normal, key, shape, dtype)


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _draw_flat(
  draw: Callable[..., Array], key: Array, shape: tuple[int, ...], dtype: Any
) -> Array:
  # With four axes XLA takes seconds to compile each draw.
  return draw(key, (math.prod(shape),), dtype).reshape(shape)


_uniform = functools.partial(jax.random.uniform, minval=-1.0)


def linear(
  inputs: int, outputs: int, *, use_bias: bool = True, rngs: nnx.Rngs
) -> nnx.Linear:
  """Returns a float32 linear layer that starts as PyTorch's would."""
  return nnx.Linear(
    inputs,
    outputs,
    use_bias=use_bias,
    kernel_init=torch_uniform(inputs),
    bias_init=torch_uniform(inputs),
    dtype=jnp.float32,
    rngs=rngs,
  )


def layer_norm(dims: int, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
  """Returns the layer norm of the playlist and genre encoders."""
  return nnx.LayerNorm(dims, epsilon=1e-6, use_fast_variance=False, rngs=rngs)


class BatchNorm(nnx.Module):
  """Normalises every channel over all other axes, in float32, as PyTorch does.

  Training divides by the biased variance of the batch and updates the running
  variance with the unbiased one, n / (n - 1) times as large, where n is the
  number of elements of a channel; `nnx.BatchNorm` keeps the biased one. Under
  jit the batch is the global one, whatever its sharding.
  """

  def __init__(self, channels: int):
    self.scale = nnx.Param(jnp.ones(channels))
    self.bias = nnx.Param(jnp.zeros(channels))
    self.mean = nnx.BatchStat(jnp.zeros(channels))
    self.var = nnx.BatchStat(jnp.ones(channels))

  def __call__(
    self, x: Float[Array, "*batch channels"], training: bool
  ) -> Float[Array, "*batch channels"]:
    """Normalises `x`; in training also updates the running statistics.

    Training normalises by the batch's statistics, evaluation by the running
    ones. The result has the type of `x`.

    Raises:
      ValueError: in training with a single element per channel, which has no
        unbiased variance.
    """
    scale, bias = self.scale[...], self.bias[...]
    if not training:
      mean, var = self.mean[...], self.var[...]
      factor = scale * lax.rsqrt(var + batch_moments.EPSILON)
      return batch_moments.affine(x, factor, bias - mean * factor)
    count = x.size // x.shape[-1]
    if count < 2:
      raise ValueError(
        f"batch norm in training needs at least 2 elements per channel, "
        f"got an input of shape {x.shape}: use a larger batch"
      )
    y, mean, var = batch_moments.normalise(x, scale, bias)
    kept, unbiased = 1.0 - _MOMENTUM, var * (count / (count - 1))
    self.mean[...] = kept * self.mean[...] + _MOMENTUM * mean
    self.var[...] = kept * self.var[...] + _MOMENTUM * unbiased
    return y


def run_block(
  block: nnx.Module, x: Array, training: bool, remat: bool
) -> Array:
  """Runs a block of a backbone; with `remat` its inside is computed twice."""
  if not remat:
    return block(x, training)
  return nnx.remat(lambda block, x: block(x, training))(block, x)


def dropout(x: Array, rate: float, training: bool, key: Array | None) -> Array:
  """Sets elements to 0 with probability `rate` and scales up the others.

  Without training `x` is returned as it is.

  Raises:
    ValueError: elements are to be dropped and there is no key.
  """
  if not training or rate == 0.0:
    return x
  if key is None:
    raise ValueError(
      f"dropout with rate {rate} in training needs a random key, got None: "
      f"pass key="
    )
  # Drawn flat, as the initial weights are.
  keep = jax.random.bernoulli(key, 1.0 - rate, (x.size,)).reshape(x.shape)
  return jnp.where(keep, x / (1.0 - rate), 0.0)


class Mlp(nnx.Module):
  """Linear, ReLU, dropout, linear; in float32."""

  def __init__(
    self,
    input_dim: int,
    hidden_dim: int,
    output_dim: int,
    dropout: float,
    *,
    rngs: nnx.Rngs,
  ):
    self.dropout = dropout
    self.hidden = linear(input_dim, hidden_dim, rngs=rngs)
    self.output = linear(hidden_dim, output_dim, rngs=rngs)

  def __call__(
    self,
    x: Float[Array, "batch inputs"],
    training: bool,
    key: Array | None = None,
  ) -> Float[Array, "batch outputs"]:
    """Returns [batch, output_dim]."""
    x = jax.nn.relu(self.hidden(x))
    return self.output(dropout(x, self.dropout, training, key))
