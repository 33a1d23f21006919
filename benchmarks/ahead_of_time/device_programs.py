"""What runs on devices, as compiled functions and shapes of their arguments."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from pcl_jax.audio import song_patches
from pcl_jax.data import song_store
from pcl_jax.data import strategies
from pcl_jax.evaluation.tagging import probe_training
from pcl_jax.losses import loss_terms
from pcl_jax.losses import nt_xent
from pcl_jax.models import audio_encoder
from pcl_jax.models import encoders
from pcl_jax.training import optimizers
from pcl_jax.training import train_step
from preprocessing.vectors import warp

_A_P, _A_G, _G_P = ("audio", "cf"), ("audio", "genre_w2v"), ("cf", "genre_w2v")
STRATEGIES = {
  "ss": strategies.parse([("audio", "audio_self")], ""),
  "cm": strategies.parse([_A_P, _A_G, _G_P], ""),
  "aim": strategies.parse([], "Genre"),
  "hybrid": strategies.parse([_A_P, _A_G, _G_P], "Playlist"),
}
PATCHES = 768  # The paper's batch: 384 pairs.
_CODES, _TAGS, _DIMS = 225, 10, 301
_shape = jax.ShapeDtypeStruct


class DeviceProgram(NamedTuple):
  """A function under `jax.jit`, its arguments and its static arguments."""

  function: Any
  arguments: tuple
  options: dict[str, Any] = {}

  def trace(self) -> Any:
    """Traces it; `lower` of the result needs no device."""
    return self.function.trace(*self.arguments, **self.options)


def steps(
  strategy: str,
  backbone: str,
  mesh: jax.sharding.Mesh,
  *,
  dtype: Any = jnp.bfloat16,
  width: int | None = None,
  rows: int = PATCHES,
  remat: bool = False,
  **recipe: Any,
) -> tuple[DeviceProgram, DeviceProgram]:
  """Returns the steps of training and of validation.

  Args:
    strategy: a key of `STRATEGIES`.
    backbone: a key of `audio_encoder.BACKBONES`.
    mesh: of the devices.
    dtype: of the convolutions.
    width: of the encoder; None for the paper's.
    rows: patches of the global batch.
    remat: computes the inside of blocks twice.
    **recipe: other fields of `train_step.Recipe`.
  """
  used = STRATEGIES[strategy]
  model = nnx.eval_shape(
    lambda: encoders.Encoders(
      audio_params={
        "backbone_type": backbone,
        "width": width,
        "compute_dtype": dtype,
        "remat": remat,
      },
      cf_params={"input_dim": _DIMS} if "cf" in used.modes else None,
      genre_params={} if "genre_w2v" in used.modes else None,
      genre_table=np.zeros((_CODES + 1, 128), np.float32),
      rngs=nnx.Rngs(0),
    )
  )
  optimizer = optimizers.make_optimizer(1e-4, 1e-4)
  graphdef, state = train_step.new_state(model, optimizer)
  made = {"mixup_alpha": 7.0} | recipe
  train, evaluate = train_step.make_steps(
    graphdef, optimizer, train_step.Recipe(used, _CODES, 0.1, **made), mesh
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  everywhere = jax.NamedSharding(mesh, jax.P())
  state, key = on(everywhere, (state, key))
  split = jax.NamedSharding(mesh, jax.P("data"))
  arguments = state, on(split, _batch(used, rows)), key
  return DeviceProgram(train, arguments), DeviceProgram(evaluate, arguments)


def on(sharding: jax.sharding.Sharding, tree: Any) -> Any:
  """Returns the shapes of arrays, as they lie on devices."""
  return jax.tree.map(
    lambda x: _shape(x.shape, x.dtype, sharding=sharding), tree
  )


def _batch(
  strategy: strategies.Strategy, rows: int
) -> dict[str, jax.ShapeDtypeStruct]:
  patch = song_patches.FRAMES, song_store.MEL_BANDS
  batch = {"audio": _shape((rows, *patch), jnp.float16)}
  if "cf" in strategy.modes:
    batch["cf"] = _shape((rows, _DIMS), jnp.float32)
  if strategy.needs_tags:
    batch["genre_w2v"] = _shape((rows, _TAGS), jnp.int32)
  if strategy.pair_method:
    batch["songs"] = _shape((rows,), jnp.int32)
  return batch


def embedder(backbone: str, dtype: Any, width: int | None) -> DeviceProgram:
  """Returns what embeds 64 patches."""
  encoder = nnx.eval_shape(
    lambda: audio_encoder.AudioEncoder(
      backbone, width=width, compute_dtype=dtype, rngs=nnx.Rngs(0)
    )
  )
  graphdef, *variables = nnx.split(encoder, nnx.Param, nnx.BatchStat)

  @jax.jit
  def embed(variables, patches):
    return nnx.merge(graphdef, *variables)(patches, False)[0]

  shape = 64, song_patches.FRAMES, song_store.MEL_BANDS
  return DeviceProgram(embed, (variables, _shape(shape, jnp.float16)))


def tiled_loss(rows: int, mesh: jax.sharding.Mesh) -> DeviceProgram:
  """Returns NT-Xent with genre weights by tiles, and its gradient."""

  def loss(anchors, positives, tags):
    return nt_xent.nt_xent(
      anchors,
      positives,
      loss_terms.shared_genres(tags, _CODES),
      temperature=0.1,
      mesh=mesh,
      tiled_above=0,
    )

  half = _shape((rows // 2, 128), jnp.float32)
  tags = _shape((rows, _TAGS), jnp.int32)
  split = jax.NamedSharding(mesh, jax.P("data"))
  return DeviceProgram(
    jax.jit(jax.value_and_grad(loss, argnums=(0, 1))),
    on(split, (half, half, tags)),
  )


def others() -> Iterator[tuple[str, DeviceProgram]]:
  """Yields playlist vectors and probes, which run on one device, by name."""
  playlists, songs, entries, dims = 1000, 2000, 10_000, 301
  tables = warp.Tables(
    *(_shape((n, dims), jnp.float32) for n in (playlists, playlists)),
    *(_shape((n, dims), jnp.float32) for n in (songs, songs)),
  )
  places = _shape((entries,), jnp.int32)
  offsets = _shape((playlists + 1,), jnp.int32)
  weights = _shape((41,), jnp.float32)
  number, rate = _shape((), jnp.int32), _shape((), jnp.float32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  yield (
    "playlist vectors",
    DeviceProgram(
      warp._run_segment,
      (tables, (places, places, offsets, weights), places, number, key, rate),
      {"lanes": 64, "static": (8, 40, 10)},
    ),
  )
  search = probe_training.Search(kind="mlp")
  yield from _probes(search, rows=500, dims=64, tags=50)


def _probes(
  search: probe_training.Search, *, rows: int, dims: int, tags: int
) -> Iterator[tuple[str, DeviceProgram]]:
  params = jax.eval_shape(
    lambda: probe_training.start(search.kind, dims, tags, jax.random.key(0))
  )
  seeds = len(search.seeds)
  several = jax.tree.map(lambda x: _shape((seeds, *x.shape), x.dtype), params)
  grid = _shape((len(search.grid),), jnp.float32)
  members = jax.eval_shape(probe_training._new_members, several, grid, grid)
  features = _shape((rows, dims), jnp.float32)
  blocks = _shape((2, rows // 4), jnp.int32)

  def train_round(members, features, song_index, labels, order, blocks):
    examples = probe_training.Examples(features, song_index, labels, False)
    settings = {"count": rows // 2, "patience": search.patience}
    return probe_training._train_round(
      members, examples, order, blocks, **settings
    )

  songs = _shape((rows,), jnp.int32), _shape((rows, tags), jnp.float32)
  order = _shape((seeds, 2, search.batch), jnp.int32)
  yield (
    "probes",
    DeviceProgram(
      jax.jit(train_round), (members, features, *songs, order, blocks)
    ),
  )
  yield (
    "scores of a probe",
    DeviceProgram(probe_training._scores, (params, features, blocks)),
  )
