"""Convolutions for `nnx.Conv`, in the form that suits the platform.

XLA's CPU backend is slow with two kinds of convolution: the kernel's gradient
of large images (many times slower than as many operations in a matrix product)
and any convolution of a single input channel. On CPUs both are matrix products
here, and gradients of many channels take Winograd's algorithm. cuDNN has no
kernels of a GPU's matrix units for a single channel: on accelerators a
convolution of one channel with a stride becomes one of several channels. The
backend does everything else.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pcl_jax.models import winograd

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_CHANNELS_OF_MATRIX_UNITS = 8  # A GPU's take multiples of so many.


def conv_general_dilated(
  x: Float[Array, "batch height width inputs"],
  kernel: Float[Array, "size size inputs outputs"],
  window_strides: Sequence[int],
  padding: Sequence[tuple[int, int]],
  **unused: Any,
) -> Float[Array, "batch rows columns outputs"]:
  """Stands in for `lax.conv_general_dilated` as an argument of `nnx.Conv`.

  Raises:
    ValueError: strides differ, or padding is not size // 2 on all sides.
  """
  half, stride = kernel.shape[0] // 2, window_strides[0]
  strides, margins = (stride, stride), ((half, half), (half, half))
  if (tuple(window_strides), tuple(padding)) != (strides, margins):
    raise ValueError(
      f"a kernel of shape {kernel.shape} has strides {window_strides} and "
      f"padding {padding}: use equal strides and padding={half}"
    )
  return _convolve(x, kernel, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: Array, kernel: Array, stride: int) -> Array:
  on_cpu, otherwise = (
    functools.partial(form, stride=stride) for form in _forms(kernel, stride)
  )
  if kernel.shape[2] > 1:
    return otherwise(x, kernel)
  return lax.platform_dependent(x, kernel, cpu=on_cpu, default=otherwise)


def _forward(
  x: Array, kernel: Array, stride: int
) -> tuple[Array, tuple[Array, Array]]:
  return _convolve(x, kernel, stride), (x, kernel)


def _backward(
  stride: int, inputs: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
  """Returns the gradients of the images and of the kernel."""
  x, kernel = inputs
  on_cpu, otherwise = (
    functools.partial(_derived_gradients, form, stride=stride)
    for form in _forms(kernel, stride)
  )
  if winograd.suits(kernel, stride):
    on_cpu = winograd.both_gradients
  elif kernel.shape[2] > 1 and kernel.shape[3] >= winograd.LEAST_CHANNELS:
    on_cpu = functools.partial(_product_gradients, stride=stride)
  return lax.platform_dependent(
    x, kernel, gradient, cpu=on_cpu, default=otherwise
  )


_convolve.defvjp(_forward, _backward)


def _forms(kernel: Array, stride: int) -> tuple[Callable, Callable]:
  """Returns what convolves on a CPU, and what does on other devices."""
  if kernel.shape[2] > 1:
    return _plain, _plain
  return _products, _folded if stride > 1 else _plain


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
  rows, columns = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
  shape = (x.shape[0], rows, columns, outputs)
  padded = _pad(x, size // 2)
  seen = [
    _seen_by(padded, row, column, shape, stride)
    for row in range(size)
    for column in range(size)
  ]
  patches = jnp.concatenate(seen, axis=-1).reshape(-1, size**2)
  return (patches @ kernel.reshape(size**2, outputs)).reshape(shape)


def _folded(x: Array, kernel: Array, stride: int) -> Array:
  """Convolves images of one channel with stride 1, as images of squares."""
  half = kernel.shape[0] // 2
  before = -(-half // stride)  # Squares that lie before that of the output.
  kernels = kernel.transpose(3, 0, 1, 2)
  kernels = _in_squares(kernels, stride, first=before * stride - half)
  margins = (before, kernels.shape[1] - 1 - before)
  return lax.conv_general_dilated(
    _in_squares(x, stride),
    kernels,
    (1, 1),
    (margins, margins),
    dimension_numbers=("NHWC", "OHWI", "NHWC"),
  )


def _in_squares(x: Array, side: int, first: int = 0) -> Array:
  """Makes the pixels of each square the channels of one, filled up with zeros.

  `x` has one channel; `first` rows and columns of zeros come before it, and as
  many as are missing after it.
  """
  margins = [(first, -(first + size) % side) for size in x.shape[1:3]]
  x = jnp.pad(x[..., 0], ((0, 0), *margins))
  count, height, width = x.shape
  x = x.reshape(count, height // side, side, width // side, side)
  x = x.transpose(0, 1, 3, 2, 4).reshape(*x.shape[:2], width // side, side**2)
  missing = (0, -(side**2) % _CHANNELS_OF_MATRIX_UNITS)
  return jnp.pad(x, ((0, 0), (0, 0), (0, 0), missing))


def _derived_gradients(
  convolution: Callable, x: Array, kernel: Array, gradient: Array, stride: int
) -> tuple[Array, Array]:
  """Returns both gradients as JAX derives them."""
  forward = functools.partial(convolution, stride=stride)
  return jax.vjp(forward, x, kernel)[1](gradient)


def _product_gradients(
  x: Array, kernel: Array, gradient: Array, stride: int
) -> tuple[Array, Array]:
  """Returns both gradients; the kernel's is a matrix product for each tap."""
  forward = functools.partial(_plain, kernel=kernel, stride=stride)
  x_gradient = jax.vjp(forward, x)[1](gradient)[0]
  size, _, inputs, outputs = kernel.shape
  padded = _pad(x, size // 2)
  # Two axes, since XLA is slow with products that sum over several.
  rows = gradient.reshape(-1, outputs)

  def tap(place: tuple[Array, Array]) -> Array:
    seen = _seen_by(padded, *place, gradient.shape, stride)
    return seen.reshape(-1, inputs).T @ rows

  places = jnp.meshgrid(jnp.arange(size), jnp.arange(size), indexing="ij")
  taps = lax.map(tap, (places[0].ravel(), places[1].ravel()))
  return x_gradient, taps.reshape(kernel.shape)


def _pad(x: Array, half: int) -> Array:
  """Puts zeros around images."""
  return jnp.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))


def _seen_by(
  padded: Array, row: Any, column: Any, shape: tuple[Any, ...], stride: int
) -> Array:
  """Returns the pixels one tap of the kernel meets, for outputs of a shape."""
  batch, rows, columns, _ = shape
  height, width = (rows - 1) * stride + 1, (columns - 1) * stride + 1
  seen = lax.dynamic_slice(
    padded, (0, row, column, 0), (batch, height, width, padded.shape[-1])
  )
  return seen[:, ::stride, ::stride]
