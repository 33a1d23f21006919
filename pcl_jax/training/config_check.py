"""Which values a config may have."""

from collections.abc import Mapping
import math
from typing import Any

from flax import traverse_util
import ml_collections

from pcl_jax.audio import song_patches
from pcl_jax.common import errors
from pcl_jax.data import plans
from pcl_jax.data import strategies
from pcl_jax.training import optimizers
from pcl_jax.training import trackers

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
  "steps",
  "validate_every_steps",
  "augmentation.time_masks",
  "augmentation.band_masks",
  "data.threads",
  "data.cached_batches",
  "data.patches_per_song",
  "data.sample_songs",
  "loss_params.tiled_above",
  "opt_params.warmup_steps",
  "opt_params.weight_decay",
)
_RATES = (
  "augmentation.stretch",
  "model_params.audio.fc_dropout",
  "model_params.cf.dropout",
  "model_params.genre_w2v.dropout",
)
RESIDENT = "resident"  # An order with the batches of `shuffled`.
# Least and most.
_RANGES = {
  "seed": (0, 2**31 - 1),  # JAX takes it as an int32.
  "augmentation.gain_db": (0, 100),
  "augmentation.slope_db": (0, 100),
  "augmentation.equaliser_db": (0, 100),
  "augmentation.noise_db": (0, 100),
  "augmentation.time_mask_frames": (1, song_patches.FRAMES),
  "augmentation.band_mask_bands": (1, song_patches.BANDS),
}
ALL = "all"  # Of `loss_params.positives`.
_CHOICES = {
  "loss_params.positives": ("partner", ALL),
  "data.order": ("shuffled", "blocks", RESIDENT),
  "opt_params.lr_schedule": optimizers.SCHEDULES,
  "train.compute_dtype": ("float32", "bfloat16"),
  "train.matmul_precision": ("", "default", "high", "highest"),
}

DEFAULT_EPOCHS = 150  # The paper's.
_PLAN_BYTES = 8  # Of a patch: its song and first frame.
_MOST_PLAN_GB = 4


def items_multiple(strategy: strategies.Strategy, parts: int) -> int:
  """Returns the number that divides a batch size that splits into parts."""
  # A pair is two rows of the batch, and rows are what is split.
  return parts // math.gcd(parts, 2) if strategy.paired else parts


def check_values(config: ml_collections.ConfigDict) -> strategies.Strategy:
  """Refuses values that no run can have; returns the strategy asked for.

  Neither data nor devices are needed.

  Raises:
    InputError: names the key, the value and the rule.
  """
  rules = [(key, "above 0", lambda value: value > 0) for key in _ABOVE_0]
  rules += [
    (key, "0 or more", lambda value: value >= 0) for key in _NOT_NEGATIVE
  ]
  rules += [(key, "in [0, 1)", lambda value: 0 <= value < 1) for key in _RATES]
  rules += [
    (key, f"from {a} to {b}", lambda value, a=a, b=b: a <= value <= b)
    for key, (a, b) in _RANGES.items()
  ]
  values = flatten(config.to_dict())
  for key, rule, holds in rules:
    value = values[key]
    number = isinstance(value, int | float) and math.isfinite(value)
    if not number or not holds(value):
      raise errors.InputError(
        f"config.{key} is {value!r}; it must be a number {rule}. Correct it in "
        f"the config file or with --config.{key}=..."
      )
  _check_length(config)
  patches = config.data.patches_per_song
  if patches > plans.MOST_PASSES:
    raise errors.InputError(
      f"config.data.patches_per_song is {patches}; it is at most "
      f"{plans.MOST_PASSES}. Give 0 for as many as lie in each song, or train "
      "longer (config.epochs, config.steps)."
    )
  for key, choices in _CHOICES.items():
    if values[key] not in choices:
      listed = ", ".join(choice or "empty" for choice in choices)
      raise errors.InputError(
        f"config.{key} is {values[key]!r}; it is one of {listed}."
      )
  trackers.check(config.trackers)
  strategy = strategies.parse(
    config.contrast_combos, config.audio_contrast_params.pair_generation_method
  )
  if config.loss_params.positives == ALL and not strategy.paired:
    raise errors.InputError(
      f"config.loss_params.positives is {ALL!r} and strategy {strategy.name} "
      "has no pairs of songs whose lists would say what is positive. Leave it "
      "at 'partner', or choose SS or a pair method "
      "(audio_contrast_params.pair_generation_method)."
    )
  return strategy


def _check_length(config: ml_collections.ConfigDict) -> None:
  """Refuses two lengths of a run, and rounds that it cannot have."""
  steps, every = config.steps, config.validate_every_steps
  if steps and config.epochs != DEFAULT_EPOCHS:
    raise errors.InputError(
      f"config.steps is {steps} and config.epochs is {config.epochs}: both are "
      f"the length of the run. Leave config.steps at 0, or config.epochs at "
      f"its default of {DEFAULT_EPOCHS}, which config.steps replaces."
    )
  if every and not 0 < every <= steps:
    raise errors.InputError(
      f"config.validate_every_steps is {every} and config.steps is {steps}: "
      "the run would have no validation before its end, or no end. Give a run "
      "of steps (--config.steps=...) as many or more, or 0 to validate at the "
      "end of each epoch."
    )
  size_gb = every * 2 * config.data.batch_size * _PLAN_BYTES / 1e9
  if size_gb > _MOST_PLAN_GB:
    raise errors.InputError(
      f"config.validate_every_steps is {every}: the plan of so many batches of "
      f"{config.data.batch_size} takes {size_gb:.3g} GB of memory, and at most "
      f"{_MOST_PLAN_GB} GB are allowed. Validate more often."
    )


def check_batch(
  batch_size: int,
  strategy: strategies.Strategy,
  devices: int,
  microbatches: int = 1,
) -> None:
  """Refuses a global batch of one, or that cannot be split evenly.

  Raises:
    InputError: names the nearest sizes that can.
  """
  if batch_size == 1:
    raise errors.InputError(
      f"config.data.batch_size is 1 {'pair' if strategy.paired else 'song'}: "
      "the loss compares a song with the others of its batch, and where there "
      "are none it is always 0 and nothing is learned. Give 2 or more."
    )
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


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the leaves of nested dictionaries by their dotted names."""
  return traverse_util.flatten_dict(tree, sep=".")
