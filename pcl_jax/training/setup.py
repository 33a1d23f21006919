"""What a run is made of, built from its config and checked before it starts."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import json
import os
import pathlib
import tempfile
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.common import versions
from pcl_jax.data import dataset
from pcl_jax.data import false_negatives
from pcl_jax.data import read_order
from pcl_jax.data import strategies
from pcl_jax.models import encoders
from pcl_jax.training import config_check
from pcl_jax.training import optimizers
from pcl_jax.training import profiling
from pcl_jax.training import train_step


@dataclasses.dataclass(frozen=True)
class Run:
  """All that stays the same while a run goes on.

  Attributes:
    strategy: what is contrasted with what.
    data: the data set.
    tables: what enters a batch beside audio, a row for each song.
    sharing: lists whose songs are no negatives of one another, if any.
    batch_size: songs (CM) or pairs (others) in a global batch.
    double_window: largest distance of two patches of a song (SS), in frames.
    microbatches: parts of each device's rows.
    seed: of weights, batches, mixup and dropout.
    threads: readers of the loader; 0 for one per core.
    stall_s: how long a batch may take before the run is ended.
    sharding: of batches, split over all devices.
    key: of mixup and dropout, on all devices.
    learning_rate: a constant, or a function of the steps before.
    step_operations: of a step; None on CPUs, where nobody asks.
    state: as it is before the first step, on all devices.
    train_step: (state, batch, key) -> (state, terms).
    eval_step: (state, batch, key) -> terms.
    compute_loss: (params, batch statistics, batch, key) -> what the train step
      differentiates; not compiled.
    meta: what every checkpoint says about the run.
  """

  strategy: strategies.Strategy
  data: dataset.DataSet
  tables: dict[str, np.ndarray]
  sharing: false_negatives.SharedLists | None
  batch_size: int
  double_window: int
  microbatches: int
  seed: int
  threads: int
  stall_s: float
  sharding: jax.sharding.NamedSharding
  key: jax.Array
  learning_rate: float | optax.Schedule
  step_operations: float | None
  state: train_step.State
  train_step: Callable
  eval_step: Callable
  compute_loss: Callable
  meta: dict[str, Any]

  @property
  def items_multiple(self) -> int:
    """What the batch size is a multiple of, to be split evenly."""
    return config_check.items_multiple(
      self.strategy, self.sharding.mesh.size * self.microbatches
    )


def _blocks_of(config: ml_collections.ConfigDict) -> read_order.Blocks | None:
  if config.data.order == "shuffled":
    return None
  return read_order.Blocks(config.data.num_blocks, config.data.cached_batches)


def _strategy_of(
  config: ml_collections.ConfigDict, num_devices: int
) -> strategies.Strategy:
  """Checks a config's values and its batch; returns the strategy asked for."""
  strategy = config_check.check_values(config)
  config_check.check_batch(
    config.data.batch_size, strategy, num_devices, config.train.microbatches
  )
  return strategy


def _data_of(
  config: ml_collections.ConfigDict, strategy: strategies.Strategy
) -> tuple[
  dataset.DataSet, dict[str, np.ndarray], false_negatives.SharedLists | None
]:
  """Opens the data set; returns what enters a batch of it beside audio too."""
  data = dataset.DataSet(config.data.dir, _blocks_of(config))
  tables = data.tables(strategy, config.data.max_num_tags)
  sharing = false_negatives.SharedLists.of(
    data.catalogue, config.loss_params.exclude_sharing
  )
  return data, tables, sharing


def _learning_rate_of(
  config: ml_collections.ConfigDict,
  strategy: strategies.Strategy,
  data: dataset.DataSet,
) -> float | optax.Schedule:
  """Returns a constant, or a function of the steps before."""
  params = config.opt_params
  if params.lr_schedule == optimizers.CONSTANT and not params.warmup_steps:
    return params.lr
  plan = data.training_plan(
    strategy,
    config.data.batch_size,
    double_window=config.data.double_window,
    seed=config.seed,
    epoch=0,
  )
  return optimizers.make_schedule(
    params.lr_schedule,
    params.lr,
    params.warmup_steps,
    config.epochs * len(plan),
  )


def architecture_of(
  config: ml_collections.ConfigDict,
  strategy: strategies.Strategy,
  data: dataset.DataSet,
  tables: dict[str, np.ndarray],
) -> tuple[dict[str, Any], np.ndarray | None]:
  """Returns arguments of each encoder, and the genre codes' first vectors.

  Args:
    config: of the run.
    strategy: that it asks for.
    data: the data set.
    tables: what enters a batch beside audio.

  Raises:
    InputError: the embeddings would differ in size.
  """
  params = config.model_params.to_dict()
  audio = params["audio"]
  built, genre_table = {"audio": audio}, None
  sizes = {"model_params.audio.fc_output_dim": audio["fc_output_dim"]}
  if "cf" in strategy.modes:
    built["cf"] = params["cf"] | {"input_dim": tables["cf"].shape[1]}
    sizes["model_params.cf.output_dim"] = params["cf"]["output_dim"]
  if "genre_w2v" in strategy.modes:
    genre_table = np.asarray(data.genre_vectors(strategy), np.float32)
    built["genre_w2v"] = params["genre_w2v"]
    sizes["columns of genre_vectors.npy"] = genre_table.shape[1]
  if len(set(sizes.values())) > 1:
    listed = ", ".join(f"{key} is {value}" for key, value in sizes.items())
    raise errors.InputError(
      f"embeddings that are contrasted need one size: {listed}. Make them "
      "equal."
    )
  return built, genre_table


def recipe_of(
  config: ml_collections.ConfigDict,
  strategy: strategies.Strategy,
  num_codes: int,
) -> train_step.Recipe:
  """Returns what a step computes beside the networks.

  Args:
    config: of the run.
    strategy: that it asks for.
    num_codes: genre codes of the data set.
  """
  mixup = config.audio_contrast_params
  return train_step.Recipe(
    strategy=strategy,
    num_codes=num_codes,
    temperature=config.loss_params.contrastive_temperature,
    mixup_alpha=mixup.mixup_alpha if mixup.mixup else None,
    mixup_beta=mixup.mixup_beta,
    microbatches=config.train.microbatches,
    tiled_above=config.loss_params.tiled_above,
    tile=config.loss_params.tile,
  )


def _model_of(
  config: ml_collections.ConfigDict,
  architecture: dict[str, Any],
  genre_table: np.ndarray | None,
  *,
  remat: bool,
) -> encoders.Encoders:
  how = {
    "compute_dtype": jnp.dtype(config.train.compute_dtype),
    "remat": remat,
  }
  return encoders.Encoders(
    audio_params=architecture["audio"] | how,
    cf_params=architecture.get("cf"),
    genre_params=architecture.get("genre_w2v"),
    genre_table=genre_table,
    rngs=nnx.Rngs(config.seed),
  )


def _meta_of(
  config: ml_collections.ConfigDict,
  strategy: strategies.Strategy,
  architecture: dict[str, Any],
  data: dataset.DataSet,
) -> dict[str, Any]:
  return {
    "strategy": strategy.name,
    "architecture": architecture,
    "feature": melspectrogram.SETTINGS.as_dict(),
    "config": json.loads(config.to_json()),
    "data": {
      "fingerprint": data.fingerprint(strategy),
      "songs": len(data.store),
    },
    "versions": versions.installed(),
  }


def build(
  config: ml_collections.ConfigDict,
  devices: Sequence[jax.Device] | None = None,
) -> Run:
  """Builds a run from its config.

  Args:
    config: as the files in configs/ give it.
    devices: to train on; None for all.

  Raises:
    InputError: the config or the data set breaks a rule.
  """
  devices = jax.devices() if devices is None else devices
  strategy = _strategy_of(config, len(devices))
  data, tables, sharing = _data_of(config, strategy)
  architecture, genre_table = architecture_of(config, strategy, data, tables)
  make_model = functools.partial(_model_of, config, architecture, genre_table)
  learning_rate = _learning_rate_of(config, strategy, data)
  optimizer = optimizers.make_optimizer(
    learning_rate, config.opt_params.weight_decay
  )
  mesh = train_step.make_mesh(devices)
  everywhere = jax.NamedSharding(mesh, jax.P())
  recipe = recipe_of(config, strategy, len(data.catalogue.genre_codes))
  graphdef, state = train_step.new_state(
    make_model(remat=config.train.remat), optimizer
  )
  steps = train_step.make_steps(graphdef, optimizer, recipe, mesh)
  operations = None
  if devices[0].platform != "cpu":  # Seconds, for figures that CPUs lack.
    plain = nnx.eval_shape(lambda: make_model(remat=False))
    rows = config.data.batch_size * (1 + strategy.paired)
    shapes = profiling.shapes_of_batch(rows, tables)
    operations = profiling.step_operations(
      nnx.graphdef(plain), optimizer, recipe, mesh, state, shapes
    )
  return Run(
    strategy=strategy,
    data=data,
    tables=tables,
    sharing=sharing,
    batch_size=config.data.batch_size,
    double_window=config.data.double_window,
    microbatches=config.train.microbatches,
    seed=config.seed,
    threads=config.data.threads,
    stall_s=config.data.stall_s,
    sharding=jax.NamedSharding(mesh, jax.P("data")),
    key=jax.jit(jax.random.key, out_shardings=everywhere)(config.seed),
    learning_rate=learning_rate,
    step_operations=operations,
    state=jax.device_put(state, everywhere),
    train_step=steps[0],
    eval_step=steps[1],
    compute_loss=functools.partial(
      train_step.compute_loss, graphdef, recipe, mesh, training=True
    ),
    meta=_meta_of(config, strategy, architecture, data),
  )


def make_workdir(workdir: str | os.PathLike[str]) -> pathlib.Path:
  """Makes a run's folder; what is in it stays.

  Raises:
    InputError: it cannot be made or written.
  """
  path = pathlib.Path(workdir)
  try:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      pass
  except OSError as error:
    raise _unwritable(path, error) from error
  return path


def write_config(
  workdir: str | os.PathLike[str], config: ml_collections.ConfigDict
) -> None:
  """Writes config.json into a run's folder.

  Raises:
    InputError: it cannot be written.
  """
  path = pathlib.Path(workdir)
  try:
    partial = path / "config.json.partial"
    partial.write_text(config.to_json(indent=2) + "\n")
    partial.replace(path / "config.json")
  except OSError as error:
    raise _unwritable(path, error) from error


def _unwritable(path: pathlib.Path, error: OSError) -> errors.InputError:
  if path.exists() and not path.is_dir():
    return errors.InputError(
      f"--workdir={path} is a file. Give the name of a folder, which is made "
      "where it is absent."
    )
  return errors.InputError(
    f"--workdir={path} cannot be written ({error}). Give a folder you may "
    "write to, on a disk that is not full."
  )
