"""Which values a config may have."""

import math
from typing import Any

import ml_collections

from pcl_jax.common import errors
from pcl_jax.data import strategies
from pcl_jax.training import optimizers

_ABOVE_0 = (
  "epochs",
  "early_stop_patience",
  "log_every_steps",
  "save_every_steps",
  "audio_contrast_params.mixup_alpha",
  "audio_contrast_params.mixup_beta",
  "data.batch_size",
  "data.double_window",
  "data.num_blocks",
  "data.stall_s",
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
  "train.microbatches",
  "train.max_nonfinite_steps",
  "loss_params.tile",
  "opt_params.lr",
  "loss_params.contrastive_temperature",
)
_NOT_NEGATIVE = (
  "seed",
  "data.threads",
  "data.cached_batches",
  "data.sample_songs",
  "loss_params.tiled_above",
  "opt_params.warmup_steps",
  "opt_params.weight_decay",
)
_RATES = (
  "model_params.audio.fc_dropout",
  "model_params.cf.dropout",
  "model_params.genre_w2v.dropout",
)

_CHOICES = {
  "data.order": ("shuffled", "blocks"),
  "opt_params.lr_schedule": optimizers.SCHEDULES,
  "train.compute_dtype": ("float32", "bfloat16"),
}


def items_multiple(strategy: strategies.Strategy, parts: int) -> int:
  """Returns what a batch size is a multiple of, to be split into parts."""
  # A pair is two rows of the batch, and rows are what is split.
  return parts // math.gcd(parts, 2) if strategy.paired else parts


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
    value = _value_of(config, key)
    number = isinstance(value, int | float) and math.isfinite(value)
    if not number or not holds(value):
      raise errors.InputError(
        f"config.{key} is {value!r}; it must be a number {rule}. Correct it in "
        f"the config file or with --config.{key}=..."
      )
  for key, choices in _CHOICES.items():
    if _value_of(config, key) not in choices:
      raise errors.InputError(
        f"config.{key} is {_value_of(config, key)!r}; it is one of "
        f"{', '.join(choices)}."
      )
  return strategies.parse(
    config.contrast_combos, config.audio_contrast_params.pair_generation_method
  )


def _value_of(config: ml_collections.ConfigDict, key: str) -> Any:
  for part in key.split("."):
    config = config[part]
  return config


def check_batch(
  batch_size: int,
  strategy: strategies.Strategy,
  devices: int,
  microbatches: int = 1,
) -> None:
  """Refuses a global batch that cannot be split evenly.

  Raises:
    InputError: names the nearest sizes that can.
  """
  multiple = items_multiple(strategy, devices * microbatches)
  if batch_size % multiple:
    below = batch_size // multiple * multiple
    parts = ""
    if microbatches > 1:
      parts = f" with {microbatches} microbatches (config.train) each"
    nearest = [str(n) for n in (below, below + multiple) if n]
    raise errors.InputError(
      f"config.data.batch_size is {batch_size} "
      f"{'pairs' if strategy.paired else 'songs'} and there are {devices} "
      f"devices{parts}: it must be a multiple of {multiple}. The nearest are "
      f"{' and '.join(nearest)}."
    )


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns the leaves of nested dictionaries by their dotted names."""
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[f"{prefix}{key}"] = value
  return flat
