"""Gradients of 3x3 convolutions in 2.25 times fewer operations, for CPUs.

Two outputs of a row of three taps take four products in place of six, so that
2x2 outputs of a 3x3 kernel take 16 in place of 36: one matrix product over the
channels for each of the 16. Rounding errors stay near those of plain sums.

References:
  Lavin and Gray, `Fast Algorithms for Convolutional Neural Networks
  <https://arxiv.org/abs/1509.09308>`_, 2015.
"""

from collections.abc import Sequence
import functools

from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float

# A part of the batch is taken at a time, so that its 16 transformed copies stay
# in the processor's cache; but not so little that products become thin.
_MOST_BYTES = 16e6
_LEAST_ROWS = 512


def image_gradient(
  gradient: Float[Array, "batch height width outputs"],
  kernel: Float[Array, "3 3 inputs outputs"],
) -> Float[Array, "batch height width inputs"]:
  """Returns the gradient of a convolution, zeros around, for its images.

  Args:
    gradient: of the outputs, [batch, height, width, outputs].
    kernel: that the images were convolved with, [3, 3, inputs, outputs].
  """
  batch, height, width, outputs = gradient.shape
  inputs = kernel.shape[2]
  parts = _parts(gradient.shape, inputs)
  # Taps in the other order, as the gradient is a convolution with those.
  kernels = _turned([_turned(_of_kernel(row)) for row in _of_kernel(kernel)])
  # The parts are the minor axis: the major one may be split over devices.
  gradients = gradient.reshape(batch // parts, parts, height, width, outputs)

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

  y = jnp.zeros((*gradients.shape[:-1], inputs), gradient.dtype)
  y = lax.fori_loop(0, parts, one_part, y)
  return y.reshape(batch, height, width, inputs)


def kernel_gradient(
  x: Float[Array, "batch height width inputs"],
  gradient: Float[Array, "batch height width outputs"],
) -> Float[Array, "3 3 inputs outputs"]:
  """Returns the gradient of a convolution, zeros around, for its kernel.

  Args:
    x: the images that were convolved, [batch, height, width, inputs].
    gradient: of the outputs, [batch, height, width, outputs].
  """
  inputs, outputs = x.shape[-1], gradient.shape[-1]
  parts = _parts(x.shape, outputs)

  def split(y: Array) -> Array:
    return y.reshape(y.shape[0] // parts, parts, *y.shape[1:])

  images, gradients = split(x), split(gradient)

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
  rows = _to_kernel([jnp.stack(row) for row in sums])
  return jnp.stack([jnp.stack(_to_kernel(list(row))) for row in rows])


def _parts(shape: tuple[int, ...], outputs: int) -> int:
  """Returns in how many parts a batch is taken, a divisor of its size."""
  batch, height, width, inputs = shape
  rows = batch * -(-height // 2) * -(-width // 2)
  bytes_ = 16 * 4 * rows * (inputs + outputs)
  most = max(1, min(batch, rows // _LEAST_ROWS))
  enough = min(most, max(1, round(bytes_ / _MOST_BYTES)))
  return next(n for n in range(enough, batch + 1) if batch % n == 0)


def _of_kernel(taps: Sequence[Array] | Array) -> list[Array]:
  """Returns the four combinations of three taps that meet those of images."""
  first, second, third = taps
  even = 0.5 * (first + third)
  return [first, even + 0.5 * second, even - 0.5 * second, third]


def _turned(combined: list) -> list:
  """Returns `_of_kernel` of the taps in the other order."""
  return [combined[3], combined[1], combined[2], combined[0]]


def _to_kernel(sums: Sequence[Array]) -> list[Array]:
  """Returns the gradients of three taps from those of `_of_kernel`."""
  even, odd = 0.5 * (sums[1] + sums[2]), 0.5 * (sums[1] - sums[2])
  return [sums[0] + even, odd, even + sums[3]]


def _of_images(x: Array) -> list[list[Array]]:
  """Returns the 4 x 4 combinations of each tile's 4 x 4 pixels.

  Args:
    x: [batch, height, width, channels].

  Returns:
    Four lists of four [batch, height / 2, width / 2, channels], rounded up.
  """
  rows, columns = -(-x.shape[1] // 2), -(-x.shape[2] // 2)
  after = (2 * rows - x.shape[1] + 1, 2 * columns - x.shape[2] + 1)
  x = jnp.pad(x, ((0, 0), (1, after[0]), (1, after[1]), (0, 0)))
  along = functools.partial(_of_pixels, axis=2, count=columns)
  return [along(row) for row in _of_pixels(x, axis=1, count=rows)]


def _of_pixels(x: Array, axis: int, count: int) -> list[Array]:
  """Returns the four combinations of four pixels, two apart, of an axis."""
  last = 2 * (count - 1) + 1
  a, b, c, d = (lax.slice_in_dim(x, i, i + last, 2, axis) for i in range(4))
  return [a - c, b + c, c - b, b - d]


def _of_gradients(y: Array) -> list[list[Array]]:
  """Returns the 4 x 4 gradients of a tile's products from its 2 x 2 outputs'.

  Args:
    y: [batch, height, width, channels].

  Returns:
    Four lists of four [batch, height / 2, width / 2, channels], rounded up.
  """
  padding = ((0, 0), (0, y.shape[1] % 2), (0, y.shape[2] % 2), (0, 0))
  y = jnp.pad(y, padding)
  rows = _of_pair(y[:, 0::2], y[:, 1::2])
  return [_of_pair(row[:, :, 0::2], row[:, :, 1::2]) for row in rows]


def _of_pair(first: Array, second: Array) -> list[Array]:
  """Returns the four gradients that go into `_to_pair`."""
  return [first, first + second, first - second, -second]


def _to_pair(a: Array, b: Array, c: Array, d: Array) -> list[Array]:
  """Returns two outputs of four products."""
  return [a + b + c, b - c - d]


def _to_outputs(products: list[list[Array]]) -> Array:
  """Returns images, two rows and two columns of each tile's products."""
  rows = [_to_pair(*row) for row in products]  # 4 x 2.
  columns = [_to_pair(*column) for column in zip(*rows, strict=True)]  # 2 x 2.
  batch, height, width, channels = columns[0][0].shape
  pairs = [jnp.stack(row, axis=3) for row in zip(*columns, strict=True)]
  y = jnp.stack(pairs, axis=2)
  return y.reshape(batch, 2 * height, 2 * width, channels)
