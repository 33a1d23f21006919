"""Trains many small probes at once: seeds times rates times weight decays.

All members share the features, which lie on the device once. Members of one
seed see the same songs in the same order and start from the same weights.
"""

from collections.abc import Sequence
import dataclasses
import functools
import itertools
from typing import Any

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
_ADAM = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)

Params = dict[str, dict[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Examples:
  """What probes learn from, as arrays.

  Attributes:
    features: standardised, float32 [rows, d]; a row is a song, or a patch.
    owners: which row of `labels` each is of, int32 [rows].
    labels: float32 [songs, tags].
    train: rows to learn from, int32 [train].
    validation: rows that decide when to stop, int32 [validation].
    one_each: exactly one tag a song: softmax instead of sigmoids.
  """

  features: jax.Array
  owners: jax.Array
  labels: jax.Array
  train: np.ndarray
  validation: np.ndarray
  one_each: bool


@dataclasses.dataclass(frozen=True)
class Search:
  """What is tried, and for how long.

  Attributes:
    kind: `linear` or `mlp`.
    seeds: of initial weights and of the order of the songs.
    rates: learning rates of Adam.
    decays: strengths of the penalty decay / 2 * |w|^2 on weights, not biases.
    batch: songs (or patches) a step.
    rounds: most epochs.
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


def start(kind: str, inputs: int, tags: int, key: Array) -> Params:
  """Draws the weights of one probe, as PyTorch's defaults.

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
  """Returns [batch, tags] of features [batch, d]."""
  if "hidden" in params:
    layer = params["hidden"]
    features = jax.nn.relu(features @ layer["kernel"] + layer["bias"][None])
  layer = params["output"]
  return features @ layer["kernel"] + layer["bias"][None]


def losses(
  scores: Float[Array, "batch tags"],
  labels: Float[Array, "batch tags"],
  one_each: bool,
) -> Float[Array, " batch"]:
  """Returns each song's cross-entropy, summed over the tags."""
  if one_each:
    return optax.softmax_cross_entropy(scores, labels)
  return optax.sigmoid_binary_cross_entropy(scores, labels).sum(axis=-1)


def _step(params, adam, rate, decay, features, labels, one_each):
  """Takes one step of one member."""

  def objective(params):
    return losses(logits(params, features), labels, one_each).mean()

  grads = jax.grad(objective)(params)
  for name, layer in params.items():
    grads[name]["kernel"] += decay * layer["kernel"]
  updates, adam = _ADAM.update(grads, adam, params)
  return jax.tree.map(lambda p, u: p - rate * u, params, updates), adam


def _keep_best(member: dict[str, Any], loss: Array, patience: int):
  """Notes a validation loss; keeps the weights where it is the lowest."""
  active = member["waited"] < patience
  better = active & (loss < member["best_loss"])
  return member | {
    "best": jax.tree.map(
      lambda new, old: jnp.where(better, new, old),
      member["params"],
      member["best"],
    ),
    "best_loss": jnp.where(better, loss, member["best_loss"]),
    "waited": jnp.where(better, 0, member["waited"] + 1),
    "rounds": member["rounds"] + active,
  }


def _over_members(function: Any, shared: int) -> Any:
  """Maps a function over seeds and, inside, over the grid.

  Args:
    function: of a member, and of `shared` arguments that members of a seed
      share.
    shared: their number.
  """
  inner = jax.vmap(function, in_axes=(0,) + (None,) * shared)
  return jax.vmap(inner)


@functools.partial(
  jax.jit,
  static_argnames=("one_each", "patience"),
  donate_argnames="members",
)
def _train_round(
  members, features, owners, labels, order, blocks, *, one_each, patience
):
  """Trains all members for a round and notes their validation loss.

  Args:
    members: of each seed and point of the grid, [seeds, grid, ...].
    features: [rows, d].
    owners: [rows].
    labels: [songs, tags].
    order: rows to learn from, [steps, seeds, batch].
    blocks: validation rows, [blocks, block], -1 where there is none.
    one_each: as in `losses`.
    patience: as in `Search`.
  """

  def step(member, x, y):
    params, adam = _step(
      member["params"],
      member["adam"],
      member["rate"],
      member["decay"],
      x,
      y,
      one_each,
    )
    return member | {"params": params, "adam": adam}

  def train_step(members, rows):
    x, y = features[rows], labels[owners[rows]]
    return _over_members(step, 2)(members, x, y), None

  members, _ = jax.lax.scan(train_step, members, order)
  loss = _validation_loss(
    members["params"], features, owners, labels, blocks, one_each
  )
  keep = functools.partial(_keep_best, patience=patience)
  return jax.vmap(jax.vmap(keep))(members, loss)


def _validation_loss(params, features, owners, labels, blocks, one_each):
  """Returns the mean loss of each member, [seeds, grid]."""

  def of_block(rows):
    x, y = features[rows], labels[owners[rows]]

    def total(params):
      one = losses(logits(params, x), y, one_each)
      return jnp.where(rows >= 0, one, 0.0).sum()

    return jax.vmap(jax.vmap(total))(params)

  return jax.lax.map(of_block, blocks).sum(axis=0) / (blocks >= 0).sum()


def _in_blocks(rows: np.ndarray) -> np.ndarray:
  """Lays rows into blocks of one size, -1 behind the last."""
  size = min(_BLOCK, len(rows))
  count = -(-len(rows) // size)
  blocks = np.full(count * size, -1, np.int32)
  blocks[: len(rows)] = rows
  return blocks.reshape(count, size)


def draw_order(
  train: Int[np.ndarray, " train"],
  seeds: Sequence[int],
  number: int,
  batch: int,
  steps: int,
) -> Int[np.ndarray, "steps seeds batch"]:
  """Draws what a round learns from: each row once before any comes again.

  Args:
    train: rows to learn from.
    seeds: each has an order of its own.
    number: of the round.
    batch: rows a step.
    steps: of the round.
  """
  passes = -(-batch * steps // len(train))
  orders = []
  for seed in seeds:
    rng = np.random.default_rng([seed, number])
    rows = np.concatenate([rng.permutation(train) for _ in range(passes)])
    orders.append(rows[: batch * steps].reshape(steps, batch))
  return np.stack(orders, axis=1)


def _new_members(search: Search, inputs: int, tags: int):
  """Returns all members before the first round, [seeds, grid, ...]."""
  grid = jnp.array(search.grid, jnp.float32)

  def of_one(params, point):
    return {
      "params": params,
      "best": params,
      "adam": _ADAM.init(params),
      "rate": point[0],
      "decay": point[1],
      "best_loss": jnp.float32(jnp.inf),
      "waited": jnp.int32(0),
      "rounds": jnp.int32(0),
    }

  params = [
    start(search.kind, inputs, tags, jax.random.key(seed))
    for seed in search.seeds
  ]
  params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
  inner = jax.vmap(of_one, in_axes=(None, 0))
  return jax.jit(jax.vmap(inner, in_axes=(0, None)))(params, grid)


def fit(examples: Examples, search: Search) -> dict[str, Any]:
  """Trains every member until each has stopped.

  Args:
    examples: to learn from.
    search: what is tried.

  Returns:
    `best`: the weights of each member at its lowest validation loss, [seeds,
    grid, ...]; `last`: those at the end; `best_loss` and `rounds`, [seeds,
    grid].
  """
  members = _new_members(
    search, examples.features.shape[1], examples.labels.shape[1]
  )
  batch = min(search.batch, len(examples.train))
  steps = max(len(examples.train) // batch, LEAST_STEPS)
  blocks = jnp.asarray(_in_blocks(examples.validation))
  for number in range(search.rounds):
    order = draw_order(examples.train, search.seeds, number, batch, steps)
    members = _train_round(
      members,
      examples.features,
      examples.owners,
      examples.labels,
      jnp.asarray(order),
      blocks,
      one_each=examples.one_each,
      patience=search.patience,
    )
    if not (np.asarray(members["waited"]) < search.patience).any():
      break
  return {
    "best": members["best"],
    "last": members["params"],
    "best_loss": members["best_loss"],
    "rounds": members["rounds"],
  }


@jax.jit
def _scores(params, features, blocks):
  found = jax.lax.map(lambda rows: logits(params, features[rows]), blocks)
  return found.reshape(-1, found.shape[-1])


def score(
  params: Params,
  features: Float[Array, "rows d"],
  rows: Int[np.ndarray, " some"],
) -> Float[np.ndarray, "some tags"]:
  """Returns the logits of some rows, block by block.

  Args:
    params: of one probe.
    features: standardised, of all rows.
    rows: that are wanted.
  """
  found = _scores(params, features, jnp.asarray(_in_blocks(rows)))
  return np.asarray(found)[: len(rows)]


def member(
  fitted: dict[str, Any], seed_number: int, grid_number: int
) -> Params:
  """Returns the best weights of one member of what `fit` returned."""
  return jax.tree.map(lambda x: x[seed_number, grid_number], fitted["best"])
