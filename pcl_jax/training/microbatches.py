"""A batch in parts that pass through the encoders one after the other.

The loss needs the embeddings of the whole batch, not its activations. So all
parts are embedded and nothing else of them is kept, the loss gives the gradient
of each embedding, and each part is embedded once more to carry it on to the
parameters (Gao et al., "Scaling Deep Contrastive Learning Batch Size under
Memory Limited Setup", RepL4NLP 2021): what `jax.checkpoint` does in a loop.
"""

from collections.abc import Callable
import functools

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree


def embed(
  part: Callable[[PyTree, Key[Array, ""] | None], tuple[PyTree, PyTree]],
  rows: PyTree,
  key: Key[Array, ""] | None,
  *,
  count: int,
  mesh: jax.sharding.Mesh,
) -> tuple[PyTree, PyTree]:
  """Embeds a batch part by part, with the memory of one part.

  Each device deals its own rows to the parts, so that none of them moves.

  Args:
    part: embeds some rows: (rows, key) -> (embeddings, batch statistics).
    rows: arrays [rows, ...], split over the mesh.
    key: decides dropout; each part draws from one of its own, the same in
      both passes.
    count: of the parts; divides the rows of each device.
    mesh: of one axis, `data`.

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
