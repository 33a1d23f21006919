"""What a run is made of, built from its config and checked before it starts."""

from collections.abc import Callable, Sequence
import dataclasses
import json
import os
import pathlib
from typing import Any

from flax import nnx
import jax
import ml_collections
import numpy as np

from pcl_jax import errors
from pcl_jax import melspectrogram
from pcl_jax import strategy as strategies
from pcl_jax import train_step
from pcl_jax.data import dataset
from pcl_jax.models import encoders


@dataclasses.dataclass(frozen=True)
class Run:
  """All that stays the same while a run goes on.

  Attributes:
    strategy: what is contrasted with what.
    data: the data set.
    tables: what enters a batch beside audio, a row for each song.
    batch_size: songs (CM) or pairs (others) in a global batch.
    double_window: largest distance of two patches of a song (SS), in frames.
    seed: of weights, batches, mixup and dropout.
    threads: readers of the loader; 0 for one per core.
    sharding: of batches, split over all devices.
    state: as it is before the first step, on all devices.
    train_step: (state, batch, key) -> (state, terms).
    eval_step: (state, batch, key) -> terms.
    meta: what every checkpoint says about the run.
  """

  strategy: strategies.Strategy
  data: dataset.DataSet
  tables: dict[str, np.ndarray]
  batch_size: int
  double_window: int
  seed: int
  threads: int
  sharding: jax.sharding.NamedSharding
  state: train_step.State
  train_step: Callable
  eval_step: Callable
  meta: dict[str, Any]

  @property
  def items_multiple(self) -> int:
    """What the batch size is a multiple of, to be split over the devices."""
    return _items_multiple(self.strategy, self.sharding.mesh.size)


def _items_multiple(strategy: strategies.Strategy, devices: int) -> int:
  # A pair is two rows of the batch, and rows are what is split.
  return devices // np.gcd(devices, 2) if strategy.paired else devices


def check_values(config: ml_collections.ConfigDict) -> None:
  """Refuses values that no run can have.

  Raises:
    InputError: names the key, the value and the rule.
  """
  positive = (
    "epochs",
    "early_stop_patience",
    "log_every_steps",
    "save_every_steps",
    "audio_contrast_params.mixup_alpha",
    "audio_contrast_params.mixup_beta",
    "data.batch_size",
    "data.double_window",
    "data.max_num_tags",
    "model_params.audio.width",
    "model_params.audio.fc_hidden_dim",
    "model_params.audio.fc_output_dim",
    "opt_params.lr",
    "loss_params.contrastive_temperature",
  )
  rules = [(key, "above 0", lambda value: value > 0) for key in positive]
  not_negative = ("seed", "data.threads", "opt_params.weight_decay")
  rules += [
    (key, "0 or more", lambda value: value >= 0) for key in not_negative
  ]
  rates = (
    "model_params.audio.fc_dropout",
    "model_params.cf.dropout",
    "model_params.genre_w2v.dropout",
  )
  rules += [(k, "in [0, 1)", lambda value: 0 <= value < 1) for k in rates]
  for key, rule, holds in rules:
    value = config
    for part in key.split("."):
      value = value[part]
    if not holds(value):
      raise errors.InputError(
        f"config.{key} is {value}; it must be {rule}. Correct it in the config "
        f"file or with --config.{key}=..."
      )


def check_batch(
  batch_size: int, strategy: strategies.Strategy, devices: int
) -> None:
  """Refuses a global batch that cannot be split evenly over the devices.

  Raises:
    InputError: names the nearest sizes that can.
  """
  multiple = _items_multiple(strategy, devices)
  if batch_size % multiple:
    below = batch_size // multiple * multiple
    nearest = [str(n) for n in (below, below + multiple) if n]
    raise errors.InputError(
      f"config.data.batch_size is {batch_size} "
      f"{'pairs' if strategy.paired else 'songs'} and there are {devices} "
      f"devices: it must be a multiple of {multiple}. The nearest are "
      f"{' and '.join(nearest)}."
    )


def _architecture(
  config: ml_collections.ConfigDict,
  strategy: strategies.Strategy,
  data: dataset.DataSet,
  tables: dict[str, np.ndarray],
) -> tuple[dict[str, Any], np.ndarray | None]:
  """Returns arguments of each encoder, and the genre codes' first vectors."""
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
  check_values(config)
  strategy = strategies.parse(
    config.contrast_combos, config.audio_contrast_params.pair_generation_method
  )
  devices = jax.devices() if devices is None else devices
  check_batch(config.data.batch_size, strategy, len(devices))
  data = dataset.DataSet(config.data.dir)
  tables = data.tables(strategy, config.data.max_num_tags)
  architecture, genre_table = _architecture(config, strategy, data, tables)
  model = encoders.Encoders(
    audio_params=architecture["audio"],
    cf_params=architecture.get("cf"),
    genre_params=architecture.get("genre_w2v"),
    genre_table=genre_table,
    rngs=nnx.Rngs(config.seed),
  )
  optimizer = train_step.make_optimizer(
    config.opt_params.lr, config.opt_params.weight_decay
  )
  mixup = config.audio_contrast_params
  recipe = train_step.Recipe(
    strategy=strategy,
    num_codes=len(data.catalogue.genre_codes),
    temperature=config.loss_params.contrastive_temperature,
    mixup_alpha=mixup.mixup_alpha if mixup.mixup else None,
    mixup_beta=mixup.mixup_beta,
  )
  # Auto: with explicit axes, rows times rows of the loss would not compile.
  mesh = jax.make_mesh(
    (len(devices),),
    ("data",),
    axis_types=(jax.sharding.AxisType.Auto,),
    devices=devices,
  )
  graphdef, state = train_step.new_state(model, optimizer)
  steps = train_step.make_steps(graphdef, optimizer, recipe, mesh)
  return Run(
    strategy=strategy,
    data=data,
    tables=tables,
    batch_size=config.data.batch_size,
    double_window=config.data.double_window,
    seed=config.seed,
    threads=config.data.threads,
    sharding=jax.NamedSharding(mesh, jax.P("data")),
    state=jax.device_put(state, jax.NamedSharding(mesh, jax.P())),
    train_step=steps[0],
    eval_step=steps[1],
    meta={
      "strategy": strategy.name,
      "architecture": architecture,
      "feature": melspectrogram.SETTINGS.as_dict(),
      "config": json.loads(config.to_json()),
      "data": {"fingerprint": data.fingerprint(), "songs": len(data.store)},
      "versions": {"jax": jax.__version__},
    },
  )


def make_workdir(
  workdir: str | os.PathLike[str], config: ml_collections.ConfigDict
) -> pathlib.Path:
  """Makes a run's folder and writes its config into it.

  Raises:
    InputError: it cannot be written.
  """
  path = pathlib.Path(workdir)
  try:
    path.mkdir(parents=True, exist_ok=True)
    partial = path / "config.json.partial"
    partial.write_text(config.to_json(indent=2) + "\n")
    partial.replace(path / "config.json")
  except OSError as error:
    raise errors.InputError(
      f"--workdir={workdir} cannot be written ({error}). Give a folder you "
      "may write to, on a disk that is not full."
    ) from error
  return path
