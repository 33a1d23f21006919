"""One step of training and of validation, as pure functions over pytrees."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
from jax import flatten_util
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree
import numpy as np
import optax

from pcl_jax.audio import feature_augmentation
from pcl_jax.common import jax_setup
from pcl_jax.data import strategies
from pcl_jax.losses import collapse
from pcl_jax.losses import loss_terms
from pcl_jax.losses import nt_xent
from pcl_jax.training import mixup

SKIPPED = "skipped"  # Among the terms of a step, and of a validation batch.
# Of a feature, a decimal logarithm; silence is -2, what is loud is below 10.
HIGHEST_FEATURE = 100.0
HIGHEST_NUMBER = 1e18  # Of a gradient, whose square is a moment of Adam's.
State = dict[str, Any]  # params, batch_stats, opt_state, step.
Batch = Mapping[str, jax.Array]
_LISTS = "sharing", "positives"  # Of a batch, what rows share.
_COMPARED = "songs", "genre_w2v"  # Numbers that the loss compares.
COLLAPSE_ROWS = 512


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What a step computes in addition to the networks."""

  strategy: strategies.Strategy
  num_codes: int  # Of genres, for genre weights.
  temperature: float
  mixup_alpha: float | None  # None for no mixup.
  mixup_beta: float = 2.0
  augmentation: feature_augmentation.Strengths | None = None  # None for none.
  all_positives: bool = False  # Or the partner of each row alone.
  microbatches: int = 1  # Parts that are embedded one after the other.
  tiled_above: int = 4096  # As `nt_xent` takes them.
  tile: int = 1024
  precision: str | None = None  # Of float32 products; None for JAX's own.


def make_mesh(devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
  """Lays devices in a line, so that those of a process hold adjoining rows.

  The mesh has one axis, `data`.
  """
  line = sorted(devices, key=lambda one: (one.process_index, one.id))
  # Auto: with explicit axes, rows times rows of the loss would not compile.
  auto = (jax.sharding.AxisType.Auto,)
  return jax.sharding.Mesh(np.array(line), ("data",), axis_types=auto)


def new_state(
  model: nnx.Module, optimizer: optax.GradientTransformation
) -> tuple[nnx.GraphDef, State]:
  """Returns the structure of a model, and a state of dictionaries of arrays."""
  graphdef, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
  params = nnx.to_pure_dict(params)
  state = {
    "params": params,
    "batch_stats": nnx.to_pure_dict(batch_stats),
    "opt_state": optimizer.init(params),
    "step": jnp.int32(0),
  }
  return graphdef, state


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

  The batch has rows of `audio` and of the modes that the strategy uses and,
  where pairs are excluded or there are several positives, numbers of the
  `songs`, and `sharing` and `positives` of the loader.
  The key decides augmentation, mixup and dropout; training turns on
  augmentation, dropout and the batch's own statistics.

  Returns:
    The total, each term by name, and the new batch statistics.
  """
  projections, new_stats = _project(
    graphdef, recipe, mesh, params, batch_stats, batch, key, training=training
  )
  terms = _terms(recipe, mesh, projections, batch)
  return terms["total"], (terms, new_stats)


def _project(
  graphdef: nnx.GraphDef,
  recipe: Recipe,
  mesh: jax.sharding.Mesh,
  params: Any,
  batch_stats: Any,
  batch: Batch,
  key: Key[Array, ""],
  *,
  training: bool,
) -> tuple[dict[str, Float[Array, "rows d"]], Any]:
  """Returns the projections of each mode, and the new batch statistics."""
  mix_key, drop_key = jax.random.split(key)
  audio = batch["audio"]
  if training and recipe.augmentation is not None:
    augment_key = jax.random.fold_in(key, 2)  # After the two of `split`.
    audio = feature_augmentation.augment(
      augment_key, audio.astype(jnp.float32), recipe.augmentation
    )
  if recipe.mixup_alpha is not None:
    gains = recipe.mixup_alpha, recipe.mixup_beta
    audio = mixup.mix(audio, *mixup.draw(mix_key, audio.shape[0], *gains))

  def embed(rows, key):
    # A copy, as variables of the outer trace cannot be changed in this one.
    model = nnx.merge(graphdef, params, batch_stats, copy=True)
    embeddings = model(rows, training, key)
    return embeddings, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

  rows = {k: v for k, v in batch.items() if k not in ("songs", *_LISTS)}
  rows["audio"] = audio.astype(jnp.float32)
  return embed_in_parts(
    embed, rows, drop_key, count=recipe.microbatches, mesh=mesh
  )


def _terms(
  recipe: Recipe,
  mesh: jax.sharding.Mesh,
  projections: dict[str, Float[Array, "rows d"]],
  batch: Batch,
) -> dict[str, Float[Array, ""]]:
  count = len(batch["audio"])
  if mesh.size > 1:
    # What the loss compares is gathered once, not term by term.
    compared = {k: v for k, v in batch.items() if k in _COMPARED}
    everywhere = jax.NamedSharding(mesh, jax.P())
    projections, compared = lax.with_sharding_constraint(
      (projections, compared), everywhere
    )
    batch = batch | compared
  songs = batch.get("songs")
  lists = {
    name: loss_terms.shared_lists(batch[name], count)
    for name in _LISTS
    if name in batch
  }
  positives = None
  if recipe.all_positives:
    positives = loss_terms.all_positives(
      recipe.strategy, count, songs, lists.get("positives")
    )
  contrast = functools.partial(
    nt_xent.nt_xent,
    temperature=recipe.temperature,
    mesh=mesh,
    tiled_above=recipe.tiled_above,
    tile=recipe.tile,
  )
  return loss_terms.loss_terms(
    recipe.strategy,
    projections,
    batch.get("genre_w2v"),
    num_codes=recipe.num_codes,
    contrast=contrast,
    excluded=loss_terms.no_negatives(songs, list(lists.values())),
    positives=positives,
  )


def embed_in_parts(
  part: Callable[[PyTree, Key[Array, ""] | None], tuple[PyTree, PyTree]],
  rows: PyTree,
  key: Key[Array, ""] | None,
  *,
  count: int,
  mesh: jax.sharding.Mesh,
) -> tuple[PyTree, PyTree]:
  """Embeds a batch part by part, with the memory of one part.

  The loss needs the embeddings of the whole batch, not its activations. So all
  parts are embedded and nothing else of them is kept, the loss gives the
  gradient of each embedding, and each part is embedded once more to carry it on
  to the parameters (Gao et al., "Scaling Deep Contrastive Learning Batch Size
  under Memory Limited Setup", RepL4NLP 2021): what `jax.checkpoint` does in a
  loop. Each device deals its own rows to the parts, so that none of them moves;
  `count` divides their number. `part` returns embeddings and batch statistics
  of some rows; it gets a key of its own, the same in both passes.

  Returns:
    Embeddings of all rows, in their order, and the mean of the parts' batch
    statistics.
  """
  if count == 1:
    return part(rows, key)
  keys = None if key is None else jax.random.split(key, count)
  dealt = jax.tree.map(functools.partial(_deal, count=count, mesh=mesh), rows)
  embeddings, statistics = lax.map(
    lambda arguments: jax.checkpoint(part)(*arguments), (dealt, keys)
  )
  return (
    jax.tree.map(functools.partial(_gather, mesh=mesh), embeddings),
    jax.tree.map(lambda x: jnp.mean(x, axis=0), statistics),
  )


def _deal(x: Array, count: int, mesh: jax.sharding.Mesh) -> Array:
  """Returns [count, rows / count, ...], each part split over the mesh."""
  x = x.reshape(mesh.size, count, -1, *x.shape[1:])
  x = jnp.swapaxes(x, 0, 1).reshape(count, -1, *x.shape[3:])
  split = jax.NamedSharding(mesh, jax.P(None, "data"))
  return lax.with_sharding_constraint(x, split)


def _gather(x: Array, mesh: jax.sharding.Mesh) -> Array:
  """Returns what was dealt in its old order, [rows, ...]."""
  x = x.reshape(len(x), mesh.size, -1, *x.shape[2:])
  x = jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[3:])
  split = jax.NamedSharding(mesh, jax.P("data"))
  return lax.with_sharding_constraint(x, split)


def _sample(
  audio: Float[Array, "rows d"], mesh: jax.sharding.Mesh
) -> Float[Array, "2 n d"]:
  """Returns the first rows of both halves, the same on all devices."""
  # As many of both halves, so that no row is without its partner.
  half = audio.shape[0] // 2
  count = min(half, COLLAPSE_ROWS // 2)
  parts = jnp.stack([audio[:count], audio[half : half + count]])
  everywhere = jax.NamedSharding(mesh, jax.P())
  return lax.with_sharding_constraint(parts, everywhere)


@functools.partial(jax.jit, static_argnames="paired")
def collapse_terms(
  samples: Sequence[Float[Array, "2 _ d"]], *, paired: bool
) -> dict[str, Float[Array, ""]]:
  """Measures how much of their space audio projections use.

  These are no terms of the loss. The samples are those of validation batches,
  whose first 512 rows are taken; in a paired strategy the two halves belong
  together.
  """
  rows = jnp.concatenate(samples, axis=1)[:, : COLLAPSE_ROWS // 2]
  first, second = rows
  found = collapse.diagnostics(jnp.concatenate([first, second]))
  if paired:
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
  """Takes one step of training: loss, gradients, update.

  The step's key is folded from the run's, so that a resumed run draws what the
  unbroken one would have drawn. Where the loss, a gradient or a batch statistic
  is not finite, or a feature cannot be one, nothing is learned: the whole state
  stays as it was, except the number of steps.

  Returns:
    The state after the step, and each term of the loss before it, among them
    `skipped`: 1 where nothing was learned, else 0.
  """
  key = jax.random.fold_in(key, state["step"])

  def loss(params):
    stats = state["batch_stats"]
    return compute_loss(
      graphdef, recipe, mesh, params, stats, batch, key, training=True
    )

  (_, (terms, batch_stats)), gradients = jax.value_and_grad(loss, has_aux=True)(
    state["params"]
  )
  new, is_good = _learn(optimizer, state, gradients, batch_stats, batch, terms)
  # A step is counted in any case: it names the draws of mixup and dropout.
  new["step"] = state["step"] + 1
  return new, terms | {SKIPPED: jnp.where(is_good, 0.0, 1.0)}


def _learn(
  optimizer: optax.GradientTransformation,
  state: State,
  gradients: Any,
  batch_stats: Any,
  batch: Batch,
  terms: dict[str, Float[Array, ""]],
) -> tuple[State, Bool[Array, ""]]:
  """Returns the state after an update, if all is good, and whether it is."""
  # All that was found is laid into one array, which is looked at. The optimizer
  # reads it too: XLA then makes one kernel of all updates of a shape.
  found, restore = flatten_util.ravel_pytree((gradients, batch_stats, terms))
  found = lax.optimization_barrier(found)
  gradients, batch_stats, _ = restore(found)
  # A feature so far off is damaged on the disk: most flips of an exponent end
  # there.
  is_good = is_below(batch["audio"], HIGHEST_FEATURE).all()
  is_good &= is_below(found, HIGHEST_NUMBER).all()
  updates, opt_state = optimizer.update(
    gradients, state["opt_state"], state["params"]
  )
  new = {
    "params": optax.apply_updates(state["params"], updates),
    "batch_stats": batch_stats,
    "opt_state": opt_state,
  }
  return _chosen(is_good, new, {name: state[name] for name in new}), is_good


def _chosen(is_good: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
  # A select: for a branch a GPU would have to ask its host.
  return jax.tree.map(functools.partial(jnp.where, is_good), new, old)


def is_below(x: Array, bound: float) -> Bool[Array, "..."]:
  """Tells of each number whether it is near 0; what is not a number is not."""
  return jnp.abs(x) < bound


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
  """Compiles the steps for a mesh, over which batches come split.

  Returns:
    train_step(state, batch, key) -> (state, terms), which donates the state,
    and eval_step(state, batch, key) -> (terms, sample), where the sample of the
    audio projections, [2, n, d], is for `collapse_terms`. Of a batch with a
    feature that cannot be one, `skipped` is 1 and the other terms are 0.
  """
  everywhere = jax.NamedSharding(mesh, jax.P())
  step = functools.partial(update, graphdef, optimizer, recipe, mesh)

  def eval_step(state, batch, key):
    weights = state["params"], state["batch_stats"]
    projections, _ = _project(
      graphdef, recipe, mesh, *weights, batch, key, training=False
    )
    terms = _terms(recipe, mesh, projections, batch)
    is_good = is_below(batch["audio"], HIGHEST_FEATURE).all()
    terms = {name: jnp.where(is_good, x, 0.0) for name, x in terms.items()}
    terms[SKIPPED] = jnp.where(is_good, 0.0, 1.0)
    return terms, _sample(projections["audio"], mesh)

  return (
    jax.jit(
      jax_setup.in_precision(step, recipe.precision),
      donate_argnums=0,
      out_shardings=everywhere,
    ),
    jax.jit(
      jax_setup.in_precision(eval_step, recipe.precision),
      out_shardings=everywhere,
    ),
  )
