"""Square convolutions that are quick on CPUs too.

XLA's CPU backend takes two kinds of convolution badly: the kernel's gradient
of large images (many times slower than as many operations in a matrix product)
and anything with a single input channel. There both are matrix products here,
and the gradients of 3x3 convolutions of many channels take fewer of them by
Winograd's way; on accelerators everything is left to the backend.
"""

import functools
from typing import Any

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pcl_jax.models import winograd

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# With fewer channels the products are too thin to gain anything.
_LEAST_CHANNELS_FOR_PRODUCTS = 32


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
  if kernel.shape[2] > 1:
    return plain(x, kernel)
  products = functools.partial(_products, stride=stride)
  return lax.platform_dependent(x, kernel, cpu=products, default=plain)


def _convolve_forward(
  x: Array, kernel: Array, stride: int
) -> tuple[Array, tuple[Array, Array]]:
  return convolve(x, kernel, stride), (x, kernel)


def _convolve_backward(
  stride: int, inputs: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
  """Returns the gradients of the images and of the kernel."""
  x, kernel = inputs
  plain = functools.partial(_gradients_of, _plain, stride=stride)
  if kernel.shape[2] == 1:
    on_cpu = functools.partial(_gradients_of, _products, stride=stride)
  elif _is_for_winograd(kernel, stride):
    on_cpu = _gradients_by_winograd
  elif kernel.shape[3] >= _LEAST_CHANNELS_FOR_PRODUCTS:
    on_cpu = functools.partial(_gradients_by_taps, stride=stride)
  else:
    on_cpu = plain
  return lax.platform_dependent(x, kernel, gradient, cpu=on_cpu, default=plain)


convolve.defvjp(_convolve_forward, _convolve_backward)


def _is_for_winograd(kernel: Array, stride: int) -> bool:
  """Tells whose gradients are fewer operations by Winograd's way.

  Not those of bfloat16, which would round the sums before the products.
  """
  if shares_threads():
    return False
  size, _, inputs, outputs = kernel.shape
  return (
    (size, stride) == (3, 1)
    and min(inputs, outputs) >= _LEAST_CHANNELS_FOR_PRODUCTS
    and kernel.dtype.itemsize >= 4
  )


def shares_threads() -> bool:
  """Tells whether several devices run on the threads of this process.

  So do CPU devices that are forced. A step of theirs with Winograd's loops was
  seen to stop: the devices waited for one another's sums with all the threads
  there are, in different places of the program.
  """
  return jax.local_device_count() > 1


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
  size, outputs = kernel.shape[0], kernel.shape[-1]
  half = size // 2
  shape = (x.shape[0], *_output_size(x, stride), outputs)
  padded = jnp.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
  seen = [
    _seen_by(padded, row, column, shape, stride)
    for row in range(size)
    for column in range(size)
  ]
  columns = jnp.concatenate(seen, axis=-1).reshape(-1, size**2)
  return (columns @ kernel.reshape(size**2, outputs)).reshape(shape)


def _gradients_of(
  convolution: Any, x: Array, kernel: Array, gradient: Array, stride: int
) -> tuple[Array, Array]:
  """Returns both gradients as JAX derives them."""
  forward = functools.partial(convolution, stride=stride)
  return jax.vjp(forward, x, kernel)[1](gradient)


def _gradients_by_winograd(
  x: Array, kernel: Array, gradient: Array
) -> tuple[Array, Array]:
  """Returns both gradients by Winograd's way."""
  of_images = winograd.image_gradient(gradient, kernel)
  return of_images, winograd.kernel_gradient(x, gradient)


def _gradients_by_taps(
  x: Array, kernel: Array, gradient: Array, stride: int
) -> tuple[Array, Array]:
  """Returns both gradients, the kernel's by matrix products."""
  forward = functools.partial(_plain, kernel=kernel, stride=stride)
  of_images = jax.vjp(forward, x)[1](gradient)[0]
  return of_images, _kernel_gradient(x, gradient, kernel.shape[0], stride)


def _kernel_gradient(
  x: Array, gradient: Array, size: int, stride: int
) -> Array:
  """Returns the kernel's gradient, a matrix product for each of its taps."""
  half = size // 2
  inputs, outputs = x.shape[-1], gradient.shape[-1]
  padded = jnp.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
  # Of two axes: XLA is slow with products that sum over several.
  rows = gradient.reshape(-1, outputs)

  def tap(place: tuple[Array, Array]) -> Array:
    seen = _seen_by(padded, *place, gradient.shape, stride)
    return seen.reshape(-1, inputs).T @ rows

  places = jnp.meshgrid(jnp.arange(size), jnp.arange(size), indexing="ij")
  taps = lax.map(tap, (places[0].ravel(), places[1].ravel()))
  return taps.reshape(size, size, inputs, outputs)


def _seen_by(
  padded: Array, row: Any, column: Any, shape: tuple[int, ...], stride: int
) -> Array:
  """Returns what one tap of the kernel sees, for outputs of a shape."""
  batch, rows, columns, _ = shape
  seen = lax.dynamic_slice(
    padded,
    (0, row, column, 0),
    (
      batch,
      (rows - 1) * stride + 1,
      (columns - 1) * stride + 1,
      padded.shape[-1],
    ),
  )
  return seen[:, ::stride, ::stride]


def _output_size(x: Array, stride: int) -> tuple[int, int]:
  """Returns height and width of the output."""
  return -(-x.shape[1] // stride), -(-x.shape[2] // stride)
