"""Max pools whose gradient needs the places of the maxima alone.

`lax.reduce_window` has a slow gradient, a `select_and_scatter`, and that of
`jnp.maximum` keeps several arrays of the input's size. Here a byte is kept for
each maximum. Of equal values the first one, row by row, takes the gradient, as
in PyTorch. Where windows overlap, CPUs are faster with `jnp.maximum`, and equal
values share the gradient.
"""

from collections.abc import Sequence
import functools
import itertools
import math

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

_MOST_AT_ONCE = 16  # Elements of a window.


def max_pool(
  x: Float[Array, "batch height width channels"], window: tuple[int, int]
) -> Float[Array, "batch rows columns channels"]:
  """Takes the maximum of each window; an incomplete window is left out."""
  if math.prod(window) > _MOST_AT_ONCE and min(window) > 1:
    return max_pool(max_pool(x, (1, window[1])), (window[0], 1))
  for axis, size in enumerate(window, start=1):
    whole = x.shape[axis] // size * size
    x = lax.slice_in_dim(x, 0, whole, axis=axis)
  return _max_pool(x, window)


def overlapping_max_pool(
  x: Float[Array, "batch height width channels"],
) -> Float[Array, "batch rows columns channels"]:
  """Takes the maximum of 3x3 windows two apart, the first centred at 0."""
  # With a last odd row and column, so that each window has all of its own.
  margins = [(0, 0), *((0, x.shape[axis] % 2) for axis in (1, 2)), (0, 0)]
  return _overlapping_max_pool(jnp.pad(x, margins, constant_values=-jnp.inf))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x: Array, window: tuple[int, int]) -> Array:
  return _pool(x, window)[0]


def _pool(x: Array, window: tuple[int, int]) -> tuple[Array, Array]:
  """Returns maxima and their places in the windows, counted row by row."""
  height, width = window
  batch, rows, columns, channels = x.shape
  shape = batch, rows // height, height, columns // width, width, channels
  places = itertools.product(range(height), range(width))
  x = x.reshape(shape)
  return _first_maxima([x[:, :, i, :, j] for i, j in places])


def _pull(
  window: tuple[int, int], places: Array, gradient: Array
) -> tuple[Array]:
  height, width = window
  numbers = np.arange(height * width).reshape(height, width)
  return (_spread(places, gradient, numbers),)


_max_pool.defvjp(_pool, _pull)


@jax.custom_vjp
def _overlapping_max_pool(x: Array) -> Array:
  return _overlapping_forward(x)[0]


def _overlapping_forward(x: Array) -> tuple[Array, tuple[Array, Array]]:
  def on_cpu(x: Array) -> tuple[Array, Array]:
    y = _overlapping_by_axes(x)
    return y, jnp.zeros(y.shape, jnp.uint8)  # Not used.

  y, places = lax.platform_dependent(x, cpu=on_cpu, default=_overlapping_pool)
  return y, (x, places)


def _overlapping_backward(
  residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array]:
  x, places = residuals

  def on_cpu(x: Array, _: Array, gradient: Array) -> Array:
    return jax.vjp(_overlapping_by_axes, x)[1](gradient)[0]

  def by_places(_: Array, places: Array, gradient: Array) -> Array:
    return _overlapping_pull(places, gradient)

  return (
    lax.platform_dependent(x, places, gradient, cpu=on_cpu, default=by_places),
  )


_overlapping_max_pool.defvjp(_overlapping_forward, _overlapping_backward)


def _overlapping_by_axes(x: Array) -> Array:
  for axis in (1, 2):
    pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
    even, odd = (
      lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1)
    )
    before = lax.slice_in_dim(odd, 0, odd.shape[axis] - 1, axis=axis)
    margins = [(int(one == axis), 0) for one in range(4)]
    before = jnp.pad(before, margins, constant_values=-jnp.inf)
    x = jnp.maximum(jnp.maximum(before, even), odd)
  return x


def _overlapping_pool(x: Array) -> tuple[Array, Array]:
  """Returns maxima and their places in the windows, counted row by row."""
  _, height, width, _ = x.shape
  margins = ((0, 0), (1, 0), (1, 0), (0, 0))
  x = jnp.pad(x, margins, constant_values=-jnp.inf)
  places = itertools.product(range(3), range(3))
  return _first_maxima(
    [x[:, i : i + height : 2, j : j + width : 2] for i, j in places]
  )


def _overlapping_pull(places: Array, gradient: Array) -> Array:
  # An even row is the middle of its window; an odd one is the last of it, and
  # the first of the window below. Columns are alike.
  none = 9
  own, following = np.array([1, 2]), np.array([none, 0])
  total = jnp.zeros((), gradient.dtype)
  for below, right in itertools.product((0, 1), (0, 1)):
    rows = (following if below else own)[:, None]
    columns = (following if right else own)[None]
    missing = (rows == none) | (columns == none)
    numbers = np.where(missing, none, 3 * rows + columns)
    shifted = [_shift(x, below, right) for x in (places, gradient)]
    total = total + _spread(*shifted, numbers)
  return total


def _first_maxima(elements: Sequence[Array]) -> tuple[Array, Array]:
  """Returns the largest of some arrays, and the number of the first such."""
  dtype = np.min_scalar_type(len(elements) - 1)
  most, places = elements[0], jnp.zeros(elements[0].shape, dtype)
  for number, element in enumerate(elements[1:], start=1):
    places = jnp.where(element > most, np.array(number, dtype), places)
    # Not a select, since what is not a number must not be lost.
    most = jnp.maximum(most, element)
  return most, places


def _spread(places: Array, gradient: Array, numbers: np.ndarray) -> Array:
  """Gives the gradient of each window to the element whose number it has."""
  height, width = numbers.shape
  numbers = numbers.reshape(1, 1, height, 1, width, 1).astype(places.dtype)
  is_place = places[:, :, None, :, None] == numbers
  spread = jnp.where(is_place, gradient[:, :, None, :, None], 0)
  batch, rows, _, columns, _, channels = spread.shape
  return spread.reshape(batch, rows * height, columns * width, channels)


def _shift(x: Array, rows: int, columns: int) -> Array:
  """Moves images up and to the left; zeros follow."""
  padded = jnp.pad(x, ((0, 0), (0, rows), (0, columns), (0, 0)))
  return padded[:, rows:, columns:]
