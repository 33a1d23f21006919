"""What the networks share: initial weights, pools, dropout, the small head."""

from collections.abc import Callable
import functools
import math
from typing import Any

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float


def torch_uniform(fan_in: int) -> Callable[..., Array]:
  """Returns PyTorch's default initialiser, uniform on +- 1 / sqrt(fan_in).

  Args:
    fan_in: inputs of one output, channels times kernel size; the same for
      kernel and bias.
  """
  bound = fan_in**-0.5

  def initialise(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    return bound * _drawn(_uniform, key, shape, dtype)

  return initialise


def he_fan_out(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
  """Draws a kernel from He's normal distribution, of variance 2 / fan_out."""
  fan_out = math.prod(shape) // shape[-2]
  return (2 / fan_out) ** 0.5 * _drawn(jax.random.normal, key, shape, dtype)


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _drawn(
  draw: Callable[..., Array], key: Array, shape: tuple[int, ...], dtype: Any
) -> Array:
  # Drawn flat: with four axes XLA takes seconds to compile each draw.
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


def run(block: nnx.Module, x: Array, training: bool) -> Array:
  """Runs a block of a backbone."""
  return block(x, training)


def rematerialised(block: nnx.Module, x: Array, training: bool) -> Array:
  """Runs a block; for its gradient only `x` is kept, the rest comes anew."""
  return nnx.remat(lambda block, x: block(x, training))(block, x)


def max_pool(
  x: Float[Array, "batch height width channels"], window: tuple[int, int]
) -> Float[Array, "batch rows columns channels"]:
  """Takes the maximum of each window; what does not fill one is left out.

  Not `lax.reduce_window`, whose gradient is a `select_and_scatter`: slow.
  Equal maxima share the gradient.

  Args:
    x: [batch, height, width, channels].
    window: height and width of a window, which are its strides also.

  Returns:
    [batch, height // window[0], width // window[1], channels].
  """
  for axis, size in enumerate(window, start=1):
    count = x.shape[axis] // size
    x = lax.slice_in_dim(x, 0, count * size, axis=axis)
    x = functools.reduce(jnp.maximum, _every(x, size, axis))
  return x


def overlapping_max_pool(
  x: Float[Array, "batch height width channels"],
) -> Float[Array, "batch rows columns channels"]:
  """Takes the maximum of 3x3 windows two apart, the first centred at 0.

  Args:
    x: [batch, height, width, channels].

  Returns:
    [batch, ceil(height / 2), ceil(width / 2), channels].
  """
  for axis in (1, 2):
    x = _pad_lowest(x, axis, 0, x.shape[axis] % 2)
    even, odd = _every(x, 2, axis)
    before = lax.slice_in_dim(odd, 0, odd.shape[axis] - 1, axis=axis)
    before = _pad_lowest(before, axis, 1, 0)
    x = jnp.maximum(jnp.maximum(before, even), odd)
  return x


def _every(x: Array, size: int, axis: int) -> list[Array]:
  """Returns elements 0, size, 2 size... of an axis, then 1, size + 1..."""
  x = x.reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1 :])
  return [lax.index_in_dim(x, i, axis + 1, keepdims=False) for i in range(size)]


def _pad_lowest(x: Array, axis: int, before: int, after: int) -> Array:
  """Adds minus infinity on both sides of an axis."""
  padding = [(0, 0)] * x.ndim
  padding[axis] = (before, after)
  return jnp.pad(x, padding, constant_values=-jnp.inf)


def dropout(x: Array, rate: float, training: bool, key: Array | None) -> Array:
  """Zeroes elements with probability `rate`, scales up those that stay.

  Args:
    x: any shape.
    rate: probability, in [0, 1).
    training: without it, or with rate 0, `x` is returned as it is.
    key: a random key; needed only when something is dropped.

  Returns:
    An array like `x`.

  Raises:
    ValueError: if something is to be dropped and there is no key.
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
    """Returns [batch, output_dim] of `x` [batch, input_dim]."""
    x = jax.nn.relu(self.hidden(x))
    return self.output(dropout(x, self.dropout, training, key))
