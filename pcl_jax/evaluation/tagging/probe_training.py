"""Trains many small probes at once: seeds times rates times weight decays.

All members share the features, which lie on the device once. Members of one
seed see the same songs in the same order and start from the same weights.
"""

from collections.abc import Sequence
import dataclasses
import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np
import optax

from pcl_jax.models import layers

HIDDEN = 160  # The paper's MLP: features -> 160 -> ReLU -> tags.
KINDS = ("linear", "mlp")
LEAST_STEPS = 10  # A round is an epoch, or this many steps of a small set.
_BLOCK = 512  # Songs that are scored at a time.

Params = dict[str, dict[str, jax.Array]]


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=("features", "song_index", "labels"),
  meta_fields=("single_label",),
)
@dataclasses.dataclass(frozen=True)
class Examples:
  """What probes learn from, on the device.

  Attributes:
    features: standardised features, float32 [rows, d]; a row is a song or a
      patch.
    song_index: row of `labels` that each row of `features` belongs to, int32
      [rows].
    labels: float32 [songs, tags].
    single_label: whether a song has exactly one tag: softmax instead of
      sigmoids.
  """

  features: jax.Array
  song_index: jax.Array
  labels: jax.Array
  single_label: bool


@dataclasses.dataclass(frozen=True)
class Search:
  """What is tried, and for how long.

  Attributes:
    kind: `linear` or `mlp`.
    seeds: seeds of the initial weights and of the order of the songs.
    rates: learning rates of Adam.
    decays: strengths of the penalty decay / 2 * |w|^2 on weights, not biases.
    batch: songs (or patches) per step.
    rounds: largest number of epochs.
    patience: epochs without a lower validation loss until a member stops.
  """

  kind: str = "linear"
  seeds: Sequence[int] = (0, 1, 2)
  rates: Sequence[float] = (1e-4, 1e-3, 1e-2)
  decays: Sequence[float] = (0.0, 1e-3, 3e-2)
  batch: int = 256
  rounds: int = 100
  patience: int = 10

  @property
  def grid(self) -> list[tuple[float, float]]:
    """Every rate with every decay."""
    return list(itertools.product(self.rates, self.decays))


class Member(NamedTuple):
  """A probe in training, or several: each array then begins [seeds, grid].

  Attributes:
    params: weights after the last step.
    optimizer: state of Adam, with the member's rate and decay.
    best: weights at the lowest validation loss.
    best_loss: the lowest validation loss.
    waited: rounds since then.
    rounds: rounds until the member stopped.
  """

  params: Params
  optimizer: optax.OptState
  best: Params
  best_loss: jax.Array
  waited: jax.Array
  rounds: jax.Array


def start(kind: str, inputs: int, tags: int, key: Array) -> Params:
  """Draws the weights of one probe as PyTorch does by default.

  Args:
    kind: `linear` or `mlp`.
    inputs: size of the features.
    tags: number of outputs.
    key: a random key.
  """
  sizes = {"output": (inputs, tags)}
  if kind == "mlp":
    sizes = {"hidden": (inputs, HIDDEN), "output": (HIDDEN, tags)}
  params = {}
  for name, (rows, columns) in sizes.items():
    key, kernel_key, bias_key = jax.random.split(key, 3)
    draw = layers.torch_uniform(rows)
    params[name] = {
      "kernel": draw(kernel_key, (rows, columns), jnp.float32),
      "bias": draw(bias_key, (columns,), jnp.float32),
    }
  return params


def logits(
  params: Params, features: Float[Array, "batch d"]
) -> Float[Array, "batch tags"]:
  """Returns the outputs of a probe."""
  if "hidden" in params:
    layer = params["hidden"]
    features = jax.nn.relu(features @ layer["kernel"] + layer["bias"][None])
  layer = params["output"]
  return features @ layer["kernel"] + layer["bias"][None]


def losses(
  scores: Float[Array, "batch tags"],
  labels: Float[Array, "batch tags"],
  single_label: bool,
) -> Float[Array, " batch"]:
  """Returns each song's cross-entropy, summed over the tags."""
  if single_label:
    return optax.softmax_cross_entropy(scores, labels)
  return optax.sigmoid_binary_cross_entropy(scores, labels).sum(axis=-1)


@optax.inject_hyperparams
def _adam(rate: jax.Array, decay: jax.Array) -> optax.GradientTransformation:
  def kernels(params):
    return {name: {"kernel": True, "bias": False} for name in params}

  return optax.chain(
    optax.add_decayed_weights(decay, mask=kernels), optax.adam(rate)
  )


def _row_losses(params: Params, examples: Examples, rows: Array) -> Array:
  scores = logits(params, examples.features[rows])
  labels = examples.labels[examples.song_index[rows]]
  return losses(scores, labels, examples.single_label)


def _step(member: Member, examples: Examples, rows: Array) -> Member:
  grads = jax.grad(lambda p: _row_losses(p, examples, rows).mean())(
    member.params
  )
  # Rate and decay are those in the state, not these.
  updates, optimizer = _adam(0.0, 0.0).update(
    grads, member.optimizer, member.params
  )
  params = optax.apply_updates(member.params, updates)
  return member._replace(params=params, optimizer=optimizer)


def _in_blocks(rows: np.ndarray) -> np.ndarray:
  """Lays rows into blocks of one size; the last one repeats the first rows."""
  size = min(_BLOCK, len(rows))
  return np.resize(rows, (-(-len(rows) // size), size))


def _keep_best(member: Member, loss: Array, patience: Array) -> Member:
  """Records a validation loss; keeps the weights if it is the lowest."""
  active = member.waited < patience
  better = active & (loss < member.best_loss)
  return member._replace(
    best=jax.tree.map(
      lambda new, old: jnp.where(better, new, old), member.params, member.best
    ),
    best_loss=jnp.where(better, loss, member.best_loss),
    waited=jnp.where(better, 0, member.waited + 1),
    rounds=member.rounds + active,
  )


@functools.partial(jax.jit, static_argnames="count", donate_argnames="members")
def _train_round(members, examples, order, blocks, *, count, patience):
  """Trains all members for a round and records their validation losses.

  Args:
    members: all members, [seeds, grid, ...].
    examples: the examples.
    order: rows to learn from, [seeds, steps, batch].
    blocks: rows that decide when to stop, as of `_in_blocks`.
    count: number of these rows.
    patience: epochs without a better loss, as in `Search`.
  """

  def train_seed(members, order):
    def step(members, rows):
      return jax.vmap(_step, (0, None, None))(members, examples, rows), None

    def validate(member):
      found = jax.lax.map(
        lambda rows: _row_losses(member.params, examples, rows), blocks
      )
      return _keep_best(member, found.ravel()[:count].mean(), patience)

    members, _ = jax.lax.scan(step, members, order)
    return jax.vmap(validate)(members)

  return jax.vmap(train_seed)(members, order)


def draw_order(
  train: Int[np.ndarray, " train"],
  seeds: Sequence[int],
  number: int,
  batch: int,
  steps: int,
) -> Int[np.ndarray, "seeds steps batch"]:
  """Draws the rows of a round: each row once before any comes again.

  Args:
    train: rows to learn from.
    seeds: each seed has its own order.
    number: number of the round.
    batch: rows per step.
    steps: steps of the round.
  """
  passes = -(-batch * steps // len(train))
  orders = []
  for seed in seeds:
    rng = np.random.default_rng([seed, number])
    rows = np.concatenate([rng.permutation(train) for _ in range(passes)])
    orders.append(rows[: batch * steps].reshape(steps, batch))
  return np.stack(orders)


@jax.jit
def _new_members(params: Params, rates: Array, decays: Array) -> Member:
  """Returns all members before the first round; `params` are [seeds, ...]."""

  def one(params, rate, decay):
    return Member(
      params=params,
      optimizer=_adam(rate, decay).init(params),
      best=params,
      best_loss=jnp.float32(jnp.inf),
      waited=jnp.int32(0),
      rounds=jnp.int32(0),
    )

  over_grid = jax.vmap(one, (None, 0, 0))
  return jax.vmap(over_grid, (0, None, None))(params, rates, decays)


def fit(
  examples: Examples,
  train: Int[np.ndarray, " train"],
  validation: Int[np.ndarray, " validation"],
  search: Search,
) -> Member:
  """Trains every member until all have stopped.

  Args:
    examples: the examples.
    train: rows to learn from.
    validation: rows that decide when to stop.
    search: what is tried.

  Returns:
    All members, [seeds, grid, ...].
  """
  inputs, tags = examples.features.shape[1], examples.labels.shape[1]
  params = [
    start(search.kind, inputs, tags, jax.random.key(seed))
    for seed in search.seeds
  ]
  params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
  members = _new_members(params, *jnp.array(search.grid, jnp.float32).T)
  batch = min(search.batch, len(train))
  steps = max(len(train) // batch, LEAST_STEPS)
  blocks = jnp.asarray(_in_blocks(validation))
  for number in range(search.rounds):
    order = draw_order(train, search.seeds, number, batch, steps)
    members = _train_round(
      members,
      examples,
      order,
      blocks,
      count=len(validation),
      patience=search.patience,
    )
    if (np.asarray(members.waited) >= search.patience).all():
      break
  return members


@jax.jit
def _scores(params, features, blocks):
  found = jax.lax.map(lambda rows: logits(params, features[rows]), blocks)
  return found.reshape(-1, found.shape[-1])


def score(
  params: Params,
  features: Float[Array, "rows d"],
  rows: Int[np.ndarray, " some"],
) -> Float[np.ndarray, "some tags"]:
  """Returns the logits of some rows; few of them are in memory at once.

  Args:
    params: weights of one probe.
    features: standardised features of all rows.
    rows: the rows to score.
  """
  found = _scores(params, features, _in_blocks(rows))
  return np.asarray(found)[: len(rows)]
