"""One step of training and of validation, as pure functions over pytrees."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree
import numpy as np
import optax

from pcl_jax.data import strategies
from pcl_jax.losses import collapse
from pcl_jax.losses import loss_terms
from pcl_jax.losses import nt_xent
from pcl_jax.training import microbatches
from pcl_jax.training import mixup

SKIPPED = "skipped"  # Beside the terms of a training step.
STOP = "stop"  # In a batch and beside the terms: a process was told to end.
_HIGHEST = 100.0  # Of a feature; silence is -2, what is loud is below 10.
State = dict[str, Any]  # params, batch_stats, opt_state, step.
Batch = Mapping[str, jax.Array]
_COLLAPSE_ROWS = 512


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What a step computes beside the networks.

  Attributes:
    strategy: terms of the loss.
    num_codes: number of genre codes, for genre weights.
    temperature: of the losses.
    mixup_alpha: of the Beta distribution of the gains; None for no mixup.
    mixup_beta: likewise.
    microbatches: parts of the batch that are embedded one after the other.
    tiled_above: rows above which the loss goes by tiles.
    tile: most rows and columns of a tile.
  """

  strategy: strategies.Strategy
  num_codes: int
  temperature: float
  mixup_alpha: float | None
  mixup_beta: float = 2.0
  microbatches: int = 1
  tiled_above: int = 4096
  tile: int = 1024


def make_mesh(devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
  """Lays devices in a line, so that those of a process hold adjoining rows.

  Returns:
    A mesh of one axis, `data`.
  """
  line = sorted(devices, key=lambda one: (one.process_index, one.id))
  # Auto: with explicit axes, rows times rows of the loss would not compile.
  auto = (jax.sharding.AxisType.Auto,)
  return jax.sharding.Mesh(np.array(line), ("data",), axis_types=auto)


def new_state(
  model: nnx.Module, optimizer: optax.GradientTransformation
) -> tuple[nnx.GraphDef, State]:
  """Splits a model into what a jitted function may take.

  Returns:
    The structure of the model, and the state: dictionaries of arrays.
  """
  graphdef, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
  params = nnx.to_pure_dict(params)
  state = {
    "params": params,
    "batch_stats": nnx.to_pure_dict(batch_stats),
    "opt_state": optimizer.init(params),
    "step": jnp.int32(0),
  }
  return graphdef, state


def _mix(
  recipe: Recipe, audio: Float[Array, "rows frames bands"], key: Key[Array, ""]
) -> Float[Array, "rows frames bands"]:
  """Mixes patches up, where the recipe asks for it."""
  if recipe.mixup_alpha is None:
    return audio
  gains, order = mixup.draw(
    key, audio.shape[0], recipe.mixup_alpha, recipe.mixup_beta
  )
  return mixup.mix(audio, gains, order)


def compute_loss(
  graphdef: nnx.GraphDef,
  recipe: Recipe,
  mesh: jax.sharding.Mesh,
  params: Any,
  batch_stats: Any,
  batch: Batch,
  key: Key[Array, ""],
  *,
  training: bool,
) -> tuple[Float[Array, ""], tuple[dict[str, Float[Array, ""]], Any]]:
  """Computes the loss of one global batch.

  Args:
    graphdef: structure of the encoders.
    recipe: terms, temperature, mixup.
    mesh: that the batch is split over.
    params: of the encoders.
    batch_stats: of their batch norms.
    batch: rows of `audio` and of the modes the strategy uses; where pairs are
      excluded, `sharing` of the loader.
    key: decides mixup and dropout.
    training: turns on dropout and the batch's own statistics.

  Returns:
    The total, each term by name (in validation diagnostics of collapse too),
    and the new batch statistics.
  """
  mix_key, drop_key = jax.random.split(key)
  audio = _mix(recipe, batch["audio"].astype(jnp.float32), mix_key)

  def embed(rows, key):
    # A copy, as variables of the outer trace cannot be changed in this one.
    model = nnx.merge(graphdef, params, batch_stats, copy=True)
    embeddings = model(rows, training, key)
    return embeddings, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

  rows = {**batch, "audio": audio}
  entries = rows.pop("sharing", None)
  projections, new_stats = microbatches.embed(
    embed,
    rows,
    drop_key,
    count=recipe.microbatches,
    mesh=mesh,
  )
  terms = loss_terms.loss_terms(
    recipe.strategy,
    projections,
    batch.get("genre_w2v"),
    num_codes=recipe.num_codes,
    contrast=functools.partial(
      nt_xent.nt_xent,
      temperature=recipe.temperature,
      mesh=mesh,
      tiled_above=recipe.tiled_above,
      tile=recipe.tile,
    ),
    excluded=None
    if entries is None
    else loss_terms.false_negatives(entries, audio.shape[0]),
  )
  if not training:
    terms |= collapse_terms(projections["audio"], recipe.strategy, mesh)
  return terms["total"], (terms, new_stats)


def collapse_terms(
  audio: Float[Array, "rows d"],
  strategy: strategies.Strategy,
  mesh: jax.sharding.Mesh,
) -> dict[str, Float[Array, ""]]:
  """Tells how much of their space the audio projections of a batch use.

  Args:
    audio: projections of the batch's patches, [rows, d].
    strategy: whether the two halves of the rows belong together.
    mesh: that the rows are split over.

  Returns:
    Diagnostics of the first 512 rows, by name: no terms of the loss.
  """
  # As many of both halves, so that no row is without its partner.
  half = audio.shape[0] // 2
  count = min(half, _COLLAPSE_ROWS // 2)
  parts = jnp.stack([audio[:count], audio[half : half + count]])
  everywhere = jax.NamedSharding(mesh, jax.P())
  first, second = jax.lax.with_sharding_constraint(parts, everywhere)
  found = collapse.diagnostics(jnp.concatenate([first, second]))
  if strategy.paired:
    found["alignment"] = collapse.alignments(first, second).mean()
  return {f"collapse_{name}": value for name, value in found.items()}


def update(
  graphdef: nnx.GraphDef,
  optimizer: optax.GradientTransformation,
  recipe: Recipe,
  mesh: jax.sharding.Mesh,
  state: State,
  batch: Batch,
  key: Key[Array, ""],
) -> tuple[State, dict[str, Float[Array, ""]]]:
  """Takes one step of training.

  Args:
    graphdef: structure of the encoders.
    optimizer: that made `state["opt_state"]`.
    recipe: terms, temperature, mixup.
    mesh: that the batch is split over.
    state: of the run before the step.
    batch: one global batch.
    key: of the run; the step's own is folded from it, so that a resumed run
      draws what the unbroken one would have.

  Where the loss, a gradient or a batch statistic is not finite, or a feature
  cannot be one, nothing is learnt of the batch: all of the state stays, but for
  the number of steps.

  Returns:
    The state after the step, and each term of the loss before it. Beside them
    `skipped`: 1 where nothing was learnt, else 0; and the largest of the
    batch's `stop`, where it has one: a number of each device.
  """
  stop = batch.get(STOP)
  batch = {name: array for name, array in batch.items() if name != STOP}
  (_, (terms, batch_stats)), grads = jax.value_and_grad(
    lambda params: compute_loss(
      graphdef,
      recipe,
      mesh,
      params,
      state["batch_stats"],
      batch,
      jax.random.fold_in(key, state["step"]),
      training=True,
    ),
    has_aux=True,
  )(state["params"])
  updates, opt_state = optimizer.update(
    grads, state["opt_state"], state["params"], step=state["step"]
  )
  new = {
    "params": optax.apply_updates(state["params"], updates),
    "batch_stats": batch_stats,
    "opt_state": opt_state,
  }
  # A gradient that is not finite shows in Adam's moments. A feature so far off
  # is damaged on the disk: most flips of an exponent end there.
  is_good = all_finite((terms, new)) & is_plausible(batch["audio"])
  old = {kind: state[kind] for kind in new}
  # A branch and no select: what is chosen is then computed, and rounded, as it
  # would be without a choice.
  new = jax.lax.cond(is_good, lambda a, _: a, lambda _, b: b, new, old)
  # A step is counted in any case: it names the draws of mixup and dropout.
  new["step"] = state["step"] + 1
  flags = {SKIPPED: jnp.where(is_good, 0.0, 1.0)}
  if stop is not None:
    flags[STOP] = stop.max()
  return new, terms | flags


def is_plausible(audio: Float[Array, "..."]) -> Bool[Array, ""]:
  """Tells whether patches may be decimal logarithms of a sound's power."""
  return jnp.abs(audio).max() < _HIGHEST


def take_flags(terms: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Takes what is no term of the loss out of what a step returned."""
  return {name: terms.pop(name) for name in (SKIPPED, STOP) if name in terms}


def all_finite(tree: PyTree) -> Bool[Array, ""]:
  """Tells whether all numbers of all arrays are finite; stays on the device."""
  found = [jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]
  return jnp.stack(found).all() if found else jnp.bool_(True)


def make_steps(
  graphdef: nnx.GraphDef,
  optimizer: optax.GradientTransformation,
  recipe: Recipe,
  mesh: jax.sharding.Mesh,
) -> tuple[Callable, Callable]:
  """Compiles the steps for a mesh with one axis, `data`.

  Args:
    graphdef: structure of the encoders.
    optimizer: of the run.
    recipe: terms, temperature, mixup.
    mesh: batches come split over it, the state is the same on all devices.

  Returns:
    train_step(state, batch, key) -> (state, terms), which donates the state,
    and eval_step(state, batch, key) -> terms.
  """
  everywhere = jax.NamedSharding(mesh, jax.P())

  def train_step(state, batch, key):
    return update(graphdef, optimizer, recipe, mesh, state, batch, key)

  def eval_step(state, batch, key):
    _, (terms, _) = compute_loss(
      graphdef,
      recipe,
      mesh,
      state["params"],
      state["batch_stats"],
      batch,
      key,
      training=False,
    )
    return terms

  return (
    jax.jit(train_step, donate_argnums=0, out_shardings=everywhere),
    jax.jit(eval_step, out_shardings=everywhere),
  )
