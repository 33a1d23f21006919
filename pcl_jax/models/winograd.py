"""Gradients of 3x3 convolutions by Winograd's algorithm.

2x2 outputs of a 3x3 kernel take 16 products in place of 36, one matrix product
over the channels for each of the 16, so that the gradients take 2.25 times
fewer operations. The rounding errors stay near those of plain sums.

References:
  Lavin and Gray, `Fast Algorithms for Convolutional Neural Networks
  <https://arxiv.org/abs/1509.09308>`_, 2015.
"""

from collections.abc import Sequence

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array

# With fewer channels the products are too thin to gain anything.
LEAST_CHANNELS = 32
# A part of the batch is taken at a time, so that the 16 transformed copies of
# it stay in the processor's cache; but not so little that the products become
# thin.
_MOST_BYTES = 16e6
_LEAST_ROWS = 512


def suits(kernel: Array, stride: int) -> bool:
  """Tells whether a kernel's gradients are faster so, and safe."""
  # Not bfloat16, since sums would be rounded before they are multiplied.
  size, _, inputs, outputs = kernel.shape
  return (
    not shares_threads()
    and (size, stride) == (3, 1)
    and min(inputs, outputs) >= LEAST_CHANNELS
    and kernel.dtype.itemsize >= 4
  )


def shares_threads() -> bool:
  """Tells whether several devices run on the threads of this process.

  Several CPU devices in one process do. A step of theirs with the loops of
  Winograd's algorithm was seen to deadlock: the devices waited for one
  another's sums with all the threads, in different places of the program.
  """
  return jax.local_device_count() > 1


def both_gradients(
  x: Array, kernel: Array, gradient: Array
) -> tuple[Array, Array]:
  """Returns the gradients of the images and of the kernel."""
  return image_gradient(gradient, kernel), kernel_gradient(x, gradient)


def image_gradient(gradient: Array, kernel: Array) -> Array:
  """Returns the gradient of the images by Winograd's algorithm."""
  height, width = gradient.shape[1:3]
  gradients, parts = _in_parts(gradient, kernel.shape[2])
  # The gradient is a convolution with the taps in reverse order.
  kernels = _reversed([_reversed(_of_taps(row)) for row in _of_taps(kernel)])

  def product(tile: Array, taps: Array) -> Array:
    return lax.dot_general(tile, taps, (((3,), (1,)), ((), ())))

  def one_part(part: Array, y: Array) -> Array:
    tiles = _of_images(lax.dynamic_index_in_dim(gradients, part, 1, False))
    products = [
      [product(a, b) for a, b in zip(*rows, strict=True)]
      for rows in zip(tiles, kernels, strict=True)
    ]
    found = _to_outputs(products)[:, :height, :width]
    return lax.dynamic_update_index_in_dim(y, found, part, 1)

  y = jnp.zeros((*gradients.shape[:-1], kernel.shape[2]), gradient.dtype)
  y = lax.fori_loop(0, parts, one_part, y)
  return y.reshape(*gradient.shape[:-1], kernel.shape[2])


def kernel_gradient(x: Array, gradient: Array) -> Array:
  """Returns the gradient of the kernel by Winograd's algorithm."""
  inputs, outputs = x.shape[-1], gradient.shape[-1]
  images, parts = _in_parts(x, outputs)
  gradients, _ = _in_parts(gradient, inputs)

  def one_part(part: Array, sums: list[list[Array]]) -> list[list[Array]]:
    tiles = _of_images(lax.dynamic_index_in_dim(images, part, 1, False))
    pulls = _of_gradients(lax.dynamic_index_in_dim(gradients, part, 1, False))
    return [
      [
        total + a.reshape(-1, inputs).T @ b.reshape(-1, outputs)
        for total, a, b in zip(*rows, strict=True)
      ]
      for rows in zip(sums, tiles, pulls, strict=True)
    ]

  zeros = [[jnp.zeros((inputs, outputs), x.dtype)] * 4] * 4
  sums = lax.fori_loop(0, parts, one_part, zeros)
  rows = _to_taps([jnp.stack(row) for row in sums])
  return jnp.stack([jnp.stack(_to_taps(list(row))) for row in rows])


def _in_parts(x: Array, others: int) -> tuple[Array, int]:
  """Returns [batch / parts, parts, ...] and the number of parts."""
  # The parts are the minor axis, as the major one may be split over devices.
  parts = _parts(x.shape, others)
  return x.reshape(-1, parts, *x.shape[1:]), parts


def _parts(shape: tuple[int, ...], others: int) -> int:
  """Returns the number of parts of a batch, a divisor of its size."""
  batch, height, width, channels = shape
  rows = batch * -(-height // 2) * -(-width // 2)
  bytes_ = 16 * 4 * rows * (channels + others)
  most = max(1, min(batch, rows // _LEAST_ROWS))
  enough = min(most, max(1, round(bytes_ / _MOST_BYTES)))
  return next(n for n in range(enough, batch + 1) if batch % n == 0)


def _of_taps(taps: Sequence[Array] | Array) -> list[Array]:
  """Returns the four combinations of three taps that meet those of pixels."""
  first, second, third = taps
  even = 0.5 * (first + third)
  return [first, even + 0.5 * second, even - 0.5 * second, third]


def _reversed(combined: list) -> list:
  """Returns `_of_taps` of the taps in reverse order."""
  return [combined[3], combined[1], combined[2], combined[0]]


def _to_taps(sums: Sequence[Array]) -> list[Array]:
  """Returns the gradients of three taps from those of `_of_taps`."""
  even, odd = 0.5 * (sums[1] + sums[2]), 0.5 * (sums[1] - sums[2])
  return [sums[0] + even, odd, even + sums[3]]


def _of_images(x: Array) -> list[list[Array]]:
  """Returns the 4 x 4 combinations of the pixels of each tile."""
  rows, columns = -(-x.shape[1] // 2), -(-x.shape[2] // 2)
  x = _pad(x, 1, 2 * rows - x.shape[1], 2 * columns - x.shape[2])
  return [_of_pixels(row, 2, columns) for row in _of_pixels(x, 1, rows)]


def _of_pixels(x: Array, axis: int, count: int) -> list[Array]:
  """Returns the four combinations of four pixels, two apart, of an axis."""
  last = 2 * (count - 1) + 1
  a, b, c, d = (lax.slice_in_dim(x, i, i + last, 2, axis) for i in range(4))
  return [a - c, b + c, c - b, b - d]


def _of_gradients(y: Array) -> list[list[Array]]:
  """Returns the gradients of a tile's 4 x 4 products from its outputs'."""
  y = _pad(y, 0, y.shape[1] % 2, y.shape[2] % 2)
  rows = _of_pair(y[:, 0::2], y[:, 1::2])
  return [_of_pair(row[:, :, 0::2], row[:, :, 1::2]) for row in rows]


def _of_pair(first: Array, second: Array) -> list[Array]:
  """Returns the gradients of the four products that `_to_pair` takes."""
  return [first, first + second, first - second, -second]


def _to_pair(a: Array, b: Array, c: Array, d: Array) -> list[Array]:
  """Returns two outputs from four products."""
  return [a + b + c, b - c - d]


def _to_outputs(products: list[list[Array]]) -> Array:
  """Returns the outputs, two rows and two columns from each tile's products."""
  rows = [_to_pair(*row) for row in products]  # 4 x 2.
  columns = [_to_pair(*column) for column in zip(*rows, strict=True)]  # 2 x 2.
  batch, height, width, channels = columns[0][0].shape
  pairs = [jnp.stack(row, axis=3) for row in zip(*columns, strict=True)]
  y = jnp.stack(pairs, axis=2)
  return y.reshape(batch, 2 * height, 2 * width, channels)


def _pad(x: Array, before: int, rows: int = 0, columns: int = 0) -> Array:
  """Puts `before` zeros around images, and more below and to the right."""
  rows, columns = before + rows, before + columns
  return jnp.pad(x, ((0, 0), (before, rows), (before, columns), (0, 0)))
