"""Square convolutions that are quick on CPUs too.

XLA's CPU backend takes two kinds of convolution badly: the kernel's gradient
of large images (many times slower than as many operations in a matrix product)
and anything with a single input channel. There both are matrix products here;
on accelerators everything is left to the backend.
"""

import functools
from typing import Any

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# With fewer output channels the products are too thin to gain anything.
_LEAST_OUTPUTS_FOR_PRODUCTS = 32


class Conv(nnx.Module):
  """A convolution of odd size, padded with zeros by half of it."""

  def __init__(
    self,
    inputs: int,
    outputs: int,
    size: int,
    *,
    stride: int = 1,
    kernel_init: Any,
    bias_init: Any | None = None,
    compute_dtype: Any = jnp.float32,
    rngs: nnx.Rngs,
  ):
    """Draws the weights.

    Args:
      inputs: channels of the input.
      outputs: channels of the output.
      size: height and width of the kernel, odd.
      stride: step of the kernel, both ways.
      kernel_init: initialiser of the kernel [size, size, inputs, outputs].
      bias_init: initialiser of the bias [outputs]; None for no bias.
      compute_dtype: type of the computation and of the output.
      rngs: source of the initial weights.
    """
    self.stride = stride
    self.compute_dtype = compute_dtype
    shape = (size, size, inputs, outputs)
    self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
    if bias_init is None:
      self.bias = None
    else:
      self.bias = nnx.Param(bias_init(rngs.params(), (outputs,), jnp.float32))

  def __call__(
    self, x: Float[Array, "batch height width inputs"]
  ) -> Float[Array, "batch rows columns outputs"]:
    """Returns [batch, height / stride, width / stride, outputs]."""
    kernel = self.kernel[...].astype(self.compute_dtype)
    y = convolve(x.astype(self.compute_dtype), kernel, self.stride)
    if self.bias is None:
      return y
    return y + self.bias[...].astype(y.dtype).reshape(1, 1, 1, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(
  x: Float[Array, "batch height width inputs"],
  kernel: Float[Array, "size size inputs outputs"],
  stride: int,
) -> Float[Array, "batch rows columns outputs"]:
  """Convolves images with a kernel of odd size, zeros around them.

  Args:
    x: [batch, height, width, inputs].
    kernel: [size, size, inputs, outputs].
    stride: step of the kernel, both ways.

  Returns:
    [batch, ceil(height / stride), ceil(width / stride), outputs].
  """
  plain = functools.partial(_plain, stride=stride)
  if x.shape[-1] > 1:
    return plain(x, kernel)
  products = functools.partial(_products, stride=stride)
  return lax.platform_dependent(x, kernel, cpu=products, default=plain)


def _convolve_forward(x: Array, kernel: Array, stride: int) -> Any:
  return convolve(x, kernel, stride), (x, kernel)


def _convolve_backward(stride: int, inputs: Any, gradient: Array) -> Any:
  """Returns the gradients of the images and of the kernel."""
  x, kernel = inputs

  def of(function: Any) -> Any:
    def pull(x: Array, kernel: Array, gradient: Array) -> Any:
      forward = functools.partial(function, stride=stride)
      return jax.vjp(forward, x, kernel)[1](gradient)

    return pull

  def kernel_by_products(x: Array, kernel: Array, gradient: Array) -> Any:
    forward = functools.partial(_plain, kernel=kernel, stride=stride)
    dx = jax.vjp(forward, x)[1](gradient)[0]
    return dx, _kernel_gradient(x, gradient, kernel.shape[0], stride)

  if kernel.shape[2] == 1:
    on_cpu = of(_products)
  elif kernel.shape[3] >= _LEAST_OUTPUTS_FOR_PRODUCTS:
    on_cpu = kernel_by_products
  else:
    on_cpu = of(_plain)
  return lax.platform_dependent(
    x, kernel, gradient, cpu=on_cpu, default=of(_plain)
  )


convolve.defvjp(_convolve_forward, _convolve_backward)


def _plain(x: Array, kernel: Array, stride: int) -> Array:
  """Convolves as the backend does it."""
  half = kernel.shape[0] // 2
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((half, half), (half, half)),
    dimension_numbers=_LAYOUT,
  )


def _products(x: Array, kernel: Array, stride: int) -> Array:
  """Convolves images of one channel as one matrix product."""
  size = kernel.shape[0]
  columns = jnp.concatenate(_shifted(x, size, stride), axis=-1)
  return jnp.einsum("bhwi,io->bhwo", columns, kernel.reshape(size**2, -1))


def _kernel_gradient(
  x: Array, gradient: Array, size: int, stride: int
) -> Array:
  """Returns the kernel's gradient, a matrix product for each of its taps."""
  taps = [
    jnp.einsum("bhwi,bhwo->io", shifted, gradient)
    for shifted in _shifted(x, size, stride)
  ]
  return jnp.stack(taps).reshape(size, size, x.shape[-1], -1)


def _shifted(x: Array, size: int, stride: int) -> list[Array]:
  """Returns what each tap of the kernel sees, row by row."""
  half = size // 2
  rows, columns = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
  x = jnp.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
  return [
    x[
      :,
      row : row + (rows - 1) * stride + 1 : stride,
      column : column + (columns - 1) * stride + 1 : stride,
    ]
    for row in range(size)
    for column in range(size)
  ]
