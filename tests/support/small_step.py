"""A training step that is quick to compile, for tests."""

import functools

from flax import nnx
import jax
import numpy as np
import optax

from pcl_jax.data import strategies
from pcl_jax.models import genre_encoder
from pcl_jax.models import layers
from pcl_jax.models import playlist_encoder
from pcl_jax.training import optimizers
from pcl_jax.training import train_step

ROWS, CODES = 16, 6
RATE, DECAY = 0.01, 0.2
A_P, A_G, G_P = ["audio", "cf"], ["audio", "genre_w2v"], ["cf", "genre_w2v"]
HYBRID = strategies.parse([A_P, A_G, G_P], "Genre")


class SmallEncoders(nnx.Module):
  """All modes, with batch norm and dropout, but quick to compile."""

  def __init__(self, *, rngs: nnx.Rngs):
    table = np.random.default_rng(0).standard_normal((CODES + 1, 8))
    self.norm = layers.BatchNorm(48)
    self.fc = layers.Mlp(48, 16, 8, 0.2, rngs=rngs)
    self.cf = playlist_encoder.PlaylistEncoder(
      input_dim=5, hidden_dim=8, output_dim=8, rngs=rngs
    )
    self.genre_w2v = genre_encoder.GenreEncoder(
      table, n_head=2, d_k=4, rngs=rngs
    )

  def __call__(self, batch, training, key=None):
    keys = jax.random.split(key, 3)
    audio = self.norm(batch["audio"].mean(axis=1), training)
    return {
      "audio": self.fc(audio, training, keys[0]),
      "cf": self.cf(batch["cf"], training, keys[1]),
      "genre_w2v": self.genre_w2v(batch["genre_w2v"], training, keys[2]),
    }


@functools.cache
def first_step(strategy: strategies.Strategy, devices: int):
  """Takes a first step, with mixup, of Adam with RATE and DECAY.

  Returns:
    Its terms, gradients and batch statistics; the parameters before and after.
  """
  # A trace without decay only notes the gradient, as it is before Adam.
  optimizer = optax.chain(
    optax.trace(0.0), optimizers.make_optimizer(RATE, DECAY)
  )
  model = SmallEncoders(rngs=nnx.Rngs(0))
  state, (step, _), split = start(
    model, optimizer, recipe(strategy, 5.0), devices
  )
  before = jax.device_get(state["params"])
  state, terms = step(state, split(batch()), jax.random.key(7))
  gradients = optax.tree.get(state, "trace")
  return jax.device_get(
    (terms, gradients, state["batch_stats"], before, state["params"])
  )


@functools.cache
def batch(frames: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
  """Draws what every strategy needs of a batch; some songs are there twice."""
  rng = np.random.default_rng(seed)
  return {
    "audio": rng.uniform(-2, 1, (ROWS, frames, 48)).astype(np.float16),
    "cf": rng.standard_normal((ROWS, 5)).astype(np.float32),
    "genre_w2v": rng.integers(0, CODES + 1, (ROWS, 3)).astype(np.int32),
    "songs": rng.permutation(ROWS).astype(np.int32) % (ROWS - 4),
  }


def recipe(strategy=HYBRID, mixup_alpha=None) -> train_step.Recipe:
  """Returns what a step computes beside the networks."""
  return train_step.Recipe(strategy, CODES, 0.1, mixup_alpha)


def start(model, optimizer, recipe, devices: int = 1):
  """Returns a fresh state on the devices, the steps, and how to split."""
  over = train_step.make_mesh(jax.devices()[:devices])
  graphdef, state = train_step.new_state(model, optimizer)
  steps = train_step.make_steps(graphdef, optimizer, recipe, over)
  # By way of the host, for the step deletes the state that it is given.
  state = jax.device_put(
    jax.device_get(state), jax.NamedSharding(over, jax.P())
  )
  split = jax.NamedSharding(over, jax.P("data"))
  return state, steps, lambda batch: jax.device_put(batch, split)


def assert_close(actual, expected, tolerance: float):
  """Compares trees of arrays, each in units of its largest element."""
  jax.tree.map(
    lambda a, e: np.testing.assert_allclose(
      a, e, atol=tolerance * max(np.abs(e).max(), 1e-3), rtol=0
    ),
    actual,
    expected,
  )
