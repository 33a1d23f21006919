"""Tests of convolutions and their gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcl_jax.models import convolution
from pcl_jax.models import winograd
from tests.support import oracles

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Batch, height, width, inputs, outputs; parts of the batch, None to choose.
SHAPES = [
  (2, 9, 6, 3, 5, 2),
  pytest.param(3, 1, 1, 4, 2, None, marks=pytest.mark.long),
  (4, 8, 2, 40, 32, None),
  pytest.param(6, 31, 24, 33, 32, 2, marks=pytest.mark.long),
]
SAME = ((1, 1), (1, 1))


def assert_near(got, want):
  """Asserts a difference of few roundings of the largest value."""
  got, want = np.asarray(got), np.asarray(want)
  np.testing.assert_allclose(got, want, rtol=0, atol=3e-6 * np.abs(want).max())


@pytest.mark.parametrize(
  ("inputs", "outputs", "size", "stride"),
  [
    (1, 5, 7, 2),
    pytest.param(1, 4, 3, 1, marks=pytest.mark.long),
    pytest.param(3, 40, 3, 2, marks=pytest.mark.long),
    (3, 40, 1, 2),
    (3, 4, 3, 1),
  ],
)
def test_a_convolution_and_its_gradients_are_those_of_lax(
  inputs, outputs, size, stride
):
  x = oracles.normal(2, 9, 6, inputs)
  kernel = oracles.normal(size, size, inputs, outputs, seed=1)
  ours = functools.partial(
    convolution.conv_general_dilated,
    window_strides=(stride, stride),
    padding=[(size // 2, size // 2)] * 2,
  )
  assert_as_lax(ours, x, kernel, stride)


@pytest.mark.parametrize(
  ("height", "width", "size", "stride"),
  [(9, 6, 7, 2), (8, 7, 3, 2), (7, 11, 5, 3)],
)
def test_squares_as_pixels_give_the_convolution_of_one_channel(
  height, width, size, stride
):
  """As accelerators compute it."""
  x = oracles.normal(2, height, width, 1)
  kernel = oracles.normal(size, size, 1, 5, seed=1)
  ours = functools.partial(convolution._folded, stride=stride)
  assert_as_lax(ours, x, kernel, stride)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_an_accelerator_convolves_no_images_of_one_channel_with_a_stride(
  platform,
):
  """Its matrix units would have one product to sum for each tap."""
  convolve = functools.partial(
    convolution.conv_general_dilated,
    window_strides=(2, 2),
    padding=[(3, 3)] * 2,
  )

  def value_and_gradient(x, kernel):
    y, pull = jax.vjp(lambda kernel: convolve(x, kernel), kernel)
    return y, pull(y)

  x, kernel = jnp.zeros((4, 16, 12, 1)), jnp.zeros((7, 7, 1, 24))
  traced = jax.jit(value_and_gradient).trace(x, kernel)
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  convolutions = [
    line for line in text.splitlines() if "stablehlo.convolution" in line
  ]
  assert len(convolutions) == 2
  assert all("tensor<4x8x6x8xf32>" in line for line in convolutions)


def assert_as_lax(ours, x, kernel, stride):
  """Asserts values and both gradients of a convolution with its margins."""

  def oracle(x, kernel):
    padding = [(kernel.shape[0] // 2, kernel.shape[0] // 2)] * 2
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
      x, kernel, (stride, stride), padding, dimension_numbers=layout
    )

  got, want = oracles.both_with_gradients(ours, oracle, x, kernel)
  close = functools.partial(np.testing.assert_allclose, rtol=0, atol=5e-5)
  jax.tree.map(close, got, want)


@pytest.mark.parametrize(
  ("batch", "height", "width", "inputs", "outputs", "parts"), SHAPES
)
def test_both_gradients_are_those_of_lax(
  batch, height, width, inputs, outputs, parts, monkeypatch
):
  if parts is not None:
    monkeypatch.setattr(winograd, "_parts", lambda *_: parts)
  x = oracles.normal(batch, height, width, inputs)
  kernel = oracles.normal(3, 3, inputs, outputs, seed=1)
  gradient = oracles.normal(batch, height, width, outputs, seed=2)

  @jax.jit
  def both(x, kernel, gradient):
    _, pull = jax.vjp(
      lambda x, k: jax.lax.conv_general_dilated(
        x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
      ),
      x,
      kernel,
    )
    got = (
      winograd.image_gradient(gradient, kernel),
      winograd.kernel_gradient(x, gradient),
    )
    return got, pull(gradient)

  for got, want in zip(*both(x, kernel, gradient), strict=True):
    assert_near(got, want)


def test_a_batch_is_taken_in_equal_parts_that_fit_the_cache():
  for batch in (1, 7, 12, 64):
    for shape in ((64, 12, 64), (128, 24, 128), (8, 2, 512)):
      parts = winograd._parts((batch, *shape), shape[-1])
      assert batch % parts == 0
  assert winograd._parts((64, 64, 12, 64), 64) == 8
  assert winograd._parts((64, 8, 2, 512), 512) == 1


@pytest.mark.parametrize(
  ("dtype", "loops"), [(jnp.float32, 2), (jnp.bfloat16, 1)]
)
def test_wide_convolutions_use_winograd_on_a_cpu_and_bfloat16_ones_do_not(
  dtype, loops, as_on_one_device
):
  assert _loops(dtype) == loops


def test_devices_that_share_threads_do_not_use_winograd():
  """Its loops and their collectives have held one another up."""
  assert jax.local_device_count() == 8
  assert _loops(jnp.float32) == 1


def _loops(dtype):
  """Returns the loops in the program of both gradients."""
  x, kernel = jnp.zeros((2, 4, 4, 32), dtype), jnp.zeros((3, 3, 32, 32), dtype)

  def gradients(x, kernel):
    _, pull = jax.vjp(
      lambda x, k: convolution.conv_general_dilated(x, k, (1, 1), SAME),
      x,
      kernel,
    )
    return pull(x)

  return jax.jit(gradients).lower(x, kernel).as_text().count("stablehlo.while")
