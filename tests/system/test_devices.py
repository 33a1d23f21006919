"""A step is the same on any number of devices, for every strategy.

The best-known fault of contrastive training on several GPUs is that each takes
negatives, or gradients, or batch statistics, of its own rows alone: the run
goes on and learns something else.
"""

from flax import nnx
import jax
import numpy as np
import optax
import pytest

from pcl_jax.data import strategies
from tests.support import small_step

pytestmark = pytest.mark.usefixtures("quick_compilation", "mixed_quickly")

A_P, A_G, G_P = small_step.A_P, small_step.A_G, small_step.G_P
# The terms of the other variants are among these; which songs are pairs, by
# playlist or artist, is the plan's.
STRATEGIES = {
  "SS": ([["audio", "audio_self"]], ""),
  "CM A,G,P": ([A_P, A_G, G_P], ""),
  "A-IM Playlist": ([], "Playlist"),
  "Hybrid Genre + A,G,P": ([A_P, A_G, G_P], "Genre"),
}
SHORT = "Hybrid Genre + A,G,P"  # It has the terms of the others.


def _step(name, devices):
  """Returns terms, gradients, statistics and parameters of a mixed step."""
  strategy = strategies.parse(*STRATEGIES[name])
  return small_step.first_step(strategy, devices)


def _assert_same_step(one, several):
  for name, value in one[0].items():
    np.testing.assert_allclose(several[0][name], value, rtol=1e-5, err_msg=name)
  for expected, found in zip(one[1:], several[1:], strict=True):
    small_step.assert_close(found, expected, 1e-4)


@pytest.mark.parametrize(
  "name, devices",
  [
    pytest.param(
      name,
      devices,
      marks=[] if (name, devices) == (SHORT, 8) else pytest.mark.long,
    )
    for name in STRATEGIES
    for devices in (2, 4, 8)
  ],
)
def test_loss_gradients_parameters_and_statistics_are_those_of_one_device(
  name, devices
):
  one = _step(name, 1)
  assert any(map(np.any, jax.tree.leaves(one[1])))
  _assert_same_step(one, _step(name, devices))


def test_negatives_of_the_own_device_alone_would_be_noticed():
  """What the tests above guard against is no rounding."""
  strategy = strategies.parse(*STRATEGIES["SS"])
  state, (_, evaluate), split = small_step.start(
    small_step.SmallEncoders(rngs=nnx.Rngs(0)),
    optax.identity(),
    small_step.recipe(strategy),
  )

  def total(part):
    rows = {k: v[part] for k, v in small_step.batch().items()}
    return evaluate(state, split(rows), jax.random.key(0))["total"]

  halves = [total(slice(first, None, 2)) for first in (0, 1)]
  assert abs(np.mean(halves) - total(slice(None))) > 0.1
