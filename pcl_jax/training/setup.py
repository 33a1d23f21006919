"""What a run is made of, built from its config and checked before it starts."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import itertools
import json
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from pcl_jax.audio import channel_mix
from pcl_jax.audio import feature_augmentation
from pcl_jax.audio import melspectrogram
from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import run_progress
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import jax_setup
from pcl_jax.common import versions
from pcl_jax.data import dataset
from pcl_jax.data import false_negatives
from pcl_jax.data import loader
from pcl_jax.data import plans
from pcl_jax.data import read_order
from pcl_jax.data import resident_songs
from pcl_jax.data import strategies
from pcl_jax.models import encoders
from pcl_jax.training import config_check
from pcl_jax.training import optimizers
from pcl_jax.training import profiling
from pcl_jax.training import train_step

_MOST_EMPTY = 100  # Passes in a row that fill no batch.


@dataclasses.dataclass(frozen=True)
class Batches:
  """The batches of a run: how they are planned, and their loading."""

  config: ml_collections.ConfigDict
  strategy: strategies.Strategy
  data: dataset.DataSet
  # What enters a batch in addition to audio, a row for each song.
  tables: dict[str, np.ndarray]
  # Lists whose songs are no negatives of one another, as `sharing`, or are
  # positives of one another, as `positives`, where the loss needs them.
  shared: dict[str, false_negatives.SharedLists]
  sharding: jax.sharding.NamedSharding  # Over all devices.

  @functools.cached_property
  def first_plan(self) -> plans.Plan:
    """The first pass over the songs; by playlist and genre others differ."""
    return self._plan_pass(0)

  @property
  def total_steps(self) -> int:
    """How many steps a run takes that does not stop early."""
    return self.config.steps or self.config.epochs * len(self.first_plan)

  def plan_epoch(self, epoch: int) -> plans.Plan:
    """Plans the batches of an epoch, from 0.

    It is a pass over the songs or, with `validate_every_steps`, a round of so
    many steps: the first ones of as many passes as are needed. With a learning
    rate that knows the end of the run it is a round as long as the first pass.

    Raises:
      InputError: a batch is larger than nearly all passes.
    """
    steps = self.config.validate_every_steps
    if not steps and self.config.opt_params.lr_schedule == optimizers.CONSTANT:
      return next(self._passes(epoch, self.config.epochs))
    steps = steps or len(self.first_plan)
    # Where passes differ in length, one more may be needed, which is the first
    # of the next round as well.
    passes = self._passes(epoch * -(-steps // len(self.first_plan)), 1)
    parts = []
    while sum(map(len, parts)) < steps:
      parts.append(next(passes))
    return plans.joined(parts, steps)

  def _passes(self, first: int, apart: int) -> Iterator[plans.Plan]:
    """Yields passes that fill a batch, of all those so many numbers apart."""
    empty = 0
    for number in itertools.count(first, apart):
      plan = self._plan_pass(number) if number else self.first_plan
      if len(plan):
        empty = 0
        yield plan
      elif (empty := empty + 1) == _MOST_EMPTY:
        raise errors.InputError(
          f"config.data.batch_size is {self.config.data.batch_size} and "
          f"{empty} passes over the songs, one after another, had fewer pairs: "
          "choose a smaller batch size."
        )

  def _plan_pass(self, epoch: int) -> plans.Plan:
    return self.data.training_plan(
      self.strategy,
      self.config.data.batch_size,
      double_window=self.config.data.double_window,
      patches_per_song=self.config.data.patches_per_song,
      seed=self.config.seed,
      epoch=epoch,
    )

  def plan_validation(self) -> plans.Plan:
    """Plans the batches of a validation, the same after every epoch."""
    parts = self.sharding.mesh.size * self.config.train.microbatches
    return self.data.validation_plan(
      self.strategy,
      self.config.data.batch_size,
      config_check.items_multiple(self.strategy, parts),
      double_window=self.config.data.double_window,
    )

  @functools.cached_property
  def resident(self) -> resident_songs.ResidentSongs | None:
    """The songs on the devices; None where they stay in the song store."""
    if self.config.data.order != config_check.RESIDENT:
      return None
    console.say(
      f"copying {len(self.data.store)} songs to the memory of the devices"
    )
    return resident_songs.ResidentSongs(
      self.data.store, self.tables, self.sharding.mesh
    )

  def load(
    self,
    plan: plans.Plan,
    first_step: int = 0,
    is_stopped: Callable[[], bool] = bool,
  ) -> Iterator[dict[str, jax.Array]]:
    """Yields the batches of a plan, already on the devices.

    Ends early where `is_stopped` while a batch is waited for.
    """
    return loader.load(
      self.data.store,
      self.tables,
      plan,
      self.sharding,
      shared=self.shared,
      resident=self.resident,
      threads=self.config.data.threads,
      stall_s=self.config.data.stall_s,
      first_step=first_step,
      is_stopped=is_stopped,
    )


@dataclasses.dataclass(frozen=True)
class Setup:
  """What a run is made of; all of it stays the same while the run goes on."""

  config: ml_collections.ConfigDict
  batches: Batches
  key: jax.Array  # Of augmentation, mixup and dropout, on all devices.
  # Number of updates before -> learning rate; None if that is constant.
  schedule: optax.Schedule | None
  operations: int | None  # Of a step; None on CPUs, where nobody asks.
  state: train_step.State  # Before the first step, on all devices.
  train_step: Callable  # (state, batch, key) -> (state, terms).
  eval_step: Callable  # (state, batch, key) -> (terms, sample).
  # (params, batch statistics, batch, key) -> what is differentiated.
  compute_loss: Callable
  meta: dict[str, Any]  # What every checkpoint says about the run.

  def is_done(self, progress: run_progress.Progress) -> bool:
    """Returns whether a run has all its epochs, or all its steps."""
    if self.config.steps:
      return progress.step >= self.config.steps
    return progress.epoch >= self.config.epochs

  def steps_left(self, progress: run_progress.Progress) -> int:
    """Returns how many steps a run takes if it does not stop early."""
    done = progress.step
    if not self.config.steps:
      steps = len(self.batches.first_plan)
      done = progress.epoch * steps + progress.step_in_epoch
    return max(self.batches.total_steps - done, 0)

  def cut(
    self, plan: plans.Plan, progress: run_progress.Progress
  ) -> plans.Plan:
    """Leaves out the steps of an epoch that lie behind the end of a run."""
    begun = progress.step - progress.step_in_epoch
    if not self.config.steps or begun + len(plan) <= self.config.steps:
      return plan
    return plans.joined([plan], self.config.steps - begun)


def _batches_of(
  config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> Batches:
  """Checks a config's values and its batch, and opens the data set."""
  strategy = config_check.check_values(config)
  config_check.check_batch(
    config.data.batch_size, strategy, mesh.size, config.train.microbatches
  )
  blocks = None
  if config.data.order == "blocks":
    blocks = read_order.Blocks(
      config.data.num_blocks, config.data.cached_batches
    )
  is_resident = config.data.order == config_check.RESIDENT
  data = dataset.DataSet(config.data.dir, blocks, readahead=is_resident)
  tables = data.tables(
    strategy, config.data.max_num_tags, config.data.patches_per_song
  )
  data.check_pairs(strategy)
  if is_resident:
    resident_songs.check_memory(data.store, tables, mesh)
  return Batches(
    config=config,
    strategy=strategy,
    data=data,
    tables=tables,
    shared=_shared_of(config, strategy, data),
    sharding=jax.NamedSharding(mesh, jax.P("data")),
  )


def _shared_of(
  config: ml_collections.ConfigDict,
  strategy: strategies.Strategy,
  data: dataset.DataSet,
) -> dict[str, false_negatives.SharedLists]:
  shared = {}
  excluded = config.loss_params.exclude_sharing
  if config.loss_params.positives == config_check.ALL and strategy.pair_method:
    method = strategy.pair_method
    shared["positives"] = false_negatives.SharedLists.of_pairs(
      data.catalogue, method
    )
    # Positives are no negatives anyway.
    excluded = [kind for kind in excluded if kind != method.lower()]
  sharing = false_negatives.SharedLists.of(data.catalogue, excluded)
  return shared if sharing is None else shared | {"sharing": sharing}


def _schedule_of(batches: Batches) -> optax.Schedule | None:
  params = batches.config.opt_params
  if params.lr_schedule == optimizers.CONSTANT and not params.warmup_steps:
    return None
  return optimizers.make_schedule(
    params.lr_schedule, params.lr, params.warmup_steps, batches.total_steps
  )


def architecture_of(
  batches: Batches,
) -> tuple[dict[str, Any], np.ndarray | None]:
  """Returns arguments of each encoder, and the genre codes' first vectors.

  Raises:
    InputError: the embeddings would differ in size.
  """
  params = batches.config.model_params.to_dict()
  modes, audio = batches.strategy.modes, params["audio"]
  built, genre_table = {"audio": audio}, None
  sizes = {"model_params.audio.fc_output_dim": audio["fc_output_dim"]}
  if "cf" in modes:
    dims = batches.tables["cf"].shape[1]
    built["cf"] = params["cf"] | {"input_dim": dims}
    sizes["model_params.cf.output_dim"] = params["cf"]["output_dim"]
  if "genre_w2v" in modes:
    vectors = batches.data.vectors("genre_w2v", batches.strategy.name)
    genre_table = np.asarray(vectors, np.float32)
    built["genre_w2v"] = params["genre_w2v"]
    sizes["columns of genre_vectors.npy"] = genre_table.shape[1]
  if len(set(sizes.values())) > 1:
    listed = ", ".join(f"{key} is {value}" for key, value in sizes.items())
    raise errors.InputError(
      f"embeddings that are contrasted need one size: {listed}. Make them "
      "equal."
    )
  return built, genre_table


def recipe_of(batches: Batches) -> train_step.Recipe:
  """Returns what a step computes in addition to the networks."""
  config = batches.config
  mixup = config.audio_contrast_params
  strengths = feature_augmentation.Strengths(**config.augmentation.to_dict())
  return train_step.Recipe(
    strategy=batches.strategy,
    num_codes=len(batches.data.catalogue.genre_codes),
    temperature=config.loss_params.contrastive_temperature,
    all_positives=config.loss_params.positives == config_check.ALL,
    mixup_alpha=mixup.mixup_alpha if mixup.mixup else None,
    mixup_beta=mixup.mixup_beta,
    augmentation=strengths if strengths.is_on else None,
    microbatches=config.train.microbatches,
    tiled_above=config.loss_params.tiled_above,
    tile=config.loss_params.tile,
    precision=config.train.matmul_precision or None,
  )


def _model_of(
  config: ml_collections.ConfigDict,
  architecture: dict[str, Any],
  genre_table: np.ndarray | None,
) -> encoders.Encoders:
  how = {
    "compute_dtype": jnp.dtype(config.train.compute_dtype),
    "remat": config.train.remat,
  }
  return encoders.Encoders(
    audio_params=architecture["audio"] | how,
    cf_params=architecture.get("cf"),
    genre_params=architecture.get("genre_w2v"),
    genre_table=genre_table,
    rngs=nnx.Rngs(config.seed),
  )


def _meta_of(batches: Batches, architecture: dict[str, Any]) -> dict[str, Any]:
  return {
    "format_version": checkpoint_files.FORMAT_VERSION,
    "strategy": batches.strategy.name,
    "architecture": architecture,
    "feature": melspectrogram.SETTINGS.as_dict(
      channel_mix.of(batches.data.store.meta["feature"])
    ),
    "config": json.loads(batches.config.to_json()),
    "data": {
      "fingerprint": batches.data.fingerprint(batches.strategy),
      "songs": len(batches.data.store),
    },
    "versions": versions.installed(),
  }


def build(
  config: ml_collections.ConfigDict,
  devices: Sequence[jax.Device] | None = None,
) -> Setup:
  """Builds a run from its config, on some devices or all.

  Raises:
    InputError: the config or the data set breaks a rule.
  """
  mesh = train_step.make_mesh(jax.devices() if devices is None else devices)
  everywhere = jax.NamedSharding(mesh, jax.P())
  batches = _batches_of(config, mesh)
  architecture, genre_table = architecture_of(batches)
  schedule = _schedule_of(batches)
  params = config.opt_params
  optimizer = optimizers.make_optimizer(
    schedule or params.lr, params.weight_decay
  )
  recipe = recipe_of(batches)
  graphdef, state = train_step.new_state(
    _model_of(config, architecture, genre_table), optimizer
  )
  steps = train_step.make_steps(graphdef, optimizer, recipe, mesh)
  operations = None
  if mesh.devices[0].platform != "cpu":  # A second, for what CPUs' logs lack.
    rows = config.data.batch_size * (1 + batches.strategy.paired)
    shapes = profiling.shapes_of_batch(rows, batches.tables)
    operations = profiling.step_operations(
      graphdef, recipe, mesh, state, shapes
    )
  return Setup(
    config=config,
    batches=batches,
    key=jax.jit(jax.random.key, out_shardings=everywhere)(config.seed),
    schedule=schedule,
    operations=operations,
    state=jax.device_put(state, everywhere),
    train_step=steps[0],
    eval_step=steps[1],
    compute_loss=jax_setup.in_precision(
      functools.partial(
        train_step.compute_loss, graphdef, recipe, mesh, training=True
      ),
      recipe.precision,
    ),
    meta=_meta_of(batches, architecture),
  )
