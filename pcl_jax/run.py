"""What a run is made of, built from its config and checked before it starts."""

from collections.abc import Callable, Sequence
import dataclasses
import json
import math
import os
import pathlib
import tempfile
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
  return devices // math.gcd(devices, 2) if strategy.paired else devices


_ABOVE_0 = (
  "epochs",
  "early_stop_patience",
  "log_every_steps",
  "save_every_steps",
  "audio_contrast_params.mixup_alpha",
  "audio_contrast_params.mixup_beta",
  "data.batch_size",
  "data.double_window",
  "data.max_num_tags",
  "data.sample_seconds",
  "model_params.audio.width",
  "model_params.audio.fc_hidden_dim",
  "model_params.audio.fc_output_dim",
  "model_params.cf.hidden_dim",
  "model_params.cf.output_dim",
  "model_params.genre_w2v.n_head",
  "model_params.genre_w2v.d_k",
  "model_params.genre_w2v.d_v",
  "opt_params.lr",
  "loss_params.contrastive_temperature",
)
_NOT_NEGATIVE = (
  "seed",
  "data.threads",
  "data.sample_songs",
  "opt_params.weight_decay",
)
_RATES = (
  "model_params.audio.fc_dropout",
  "model_params.cf.dropout",
  "model_params.genre_w2v.dropout",
)


# A run cannot go on in the middle of an epoch with other ones.
_DECIDE_BATCHES = ("seed", "data.batch_size", "data.double_window")


def check_values(config: ml_collections.ConfigDict) -> strategies.Strategy:
  """Refuses values that no run can have; needs neither data nor devices.

  Returns:
    The strategy that the config asks for.

  Raises:
    InputError: names the key, the value and the rule.
  """
  rules = [(key, "above 0", lambda value: value > 0) for key in _ABOVE_0]
  rules += [
    (key, "0 or more", lambda value: value >= 0) for key in _NOT_NEGATIVE
  ]
  rules += [(key, "in [0, 1)", lambda value: 0 <= value < 1) for key in _RATES]
  for key, rule, holds in rules:
    value = config
    for part in key.split("."):
      value = value[part]
    number = isinstance(value, int | float) and math.isfinite(value)
    if not number or not holds(value):
      raise errors.InputError(
        f"config.{key} is {value!r}; it must be a number {rule}. Correct it in "
        f"the config file or with --config.{key}=..."
      )
  return strategies.parse(
    config.contrast_combos, config.audio_contrast_params.pair_generation_method
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
  )


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
  strategy = check_values(config)
  devices = jax.devices() if devices is None else devices
  check_batch(config.data.batch_size, strategy, len(devices))
  data = dataset.DataSet(config.data.dir)
  tables = data.tables(strategy, config.data.max_num_tags)
  architecture, genre_table = architecture_of(config, strategy, data, tables)
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
  # Auto: with explicit axes, rows times rows of the loss would not compile.
  mesh = jax.make_mesh(
    (len(devices),),
    ("data",),
    axis_types=(jax.sharding.AxisType.Auto,),
    devices=devices,
  )
  recipe = recipe_of(config, strategy, len(data.catalogue.genre_codes))
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


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat |= _flat(value, f"{prefix}{key}.")
    else:
      flat[f"{prefix}{key}"] = value
  return flat


def check_continues(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
  """Refuses to go on with a checkpoint of what would be another run.

  Args:
    then: what the checkpoint says about itself.
    now: `meta` of the run that would go on with it.

  Returns:
    The other keys of the config that have changed, with both values.

  Raises:
    InputError: strategy, architecture, data set, feature or a key that decides
      the batches is another.
  """
  remedy = (
    "Give the config it was trained with, or another --workdir; the "
    "checkpoints stay as they are."
  )
  melspectrogram.check_settings(then["feature"], "the checkpoint in --workdir")
  for what in ("strategy", "architecture", "data"):
    if then[what] != now[what]:
      a, b = (_flat({what: meta[what]}) for meta in (then, now))
      differing = _differing(a, b)
      raise errors.InputError(
        f"the checkpoint in --workdir is of another {what}: "
        f"{'; '.join(differing)}. {remedy}"
      )
  a, b = _flat(then["config"]), _flat(now["config"])
  deciding = [
    line for key in _DECIDE_BATCHES for line in _differing(a, b, [key])
  ]
  if deciding:
    raise errors.InputError(
      "the checkpoint in --workdir was trained with other batches: "
      f"{'; '.join(deciding)}. {remedy}"
    )
  return _differing(a, b)


def _differing(
  then: dict[str, Any], now: dict[str, Any], keys: Sequence[str] | None = None
) -> list[str]:
  keys = sorted(then.keys() | now.keys()) if keys is None else keys
  return [
    f"{key} was {then.get(key)!r} and is {now.get(key)!r} now"
    for key in keys
    if then.get(key) != now.get(key)
  ]


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
  return errors.InputError(
    f"--workdir={path} cannot be written ({error}). Give a folder you may "
    "write to, on a disk that is not full."
  )
