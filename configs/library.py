"""An own library: batch, width, steps and rate by its size and the device.

python launch.py --config=configs/library.py:ss --workdir=runs/mine \
  --config.data.dir=data/mine

The rule is in pcl_jax/training/run_sizes.py and docs/training.md; any key can
be given all the same, as in --config.steps=5000.

Arguments: ss (default), artist, album, playlist, genre, hybrid (pairs of
  playlists, and playlist vectors); `augmented` alone or after a comma changes
  the patches at random; `smoke` likewise takes a small sample of its own, on a
  CPU, in seconds.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import ml_collections

from configs import common
from pcl_jax.data import false_negatives
from pcl_jax.training import run_sizes

# Argument -> family and variant of `common.STRATEGIES`.
_STRATEGIES = {
  "ss": ("ss", ""),
  "artist": ("aim", "artist"),
  "album": ("aim", "album"),
  "playlist": ("aim", "playlist"),
  "genre": ("aim", "genre"),
  "hybrid": ("hybrid", "playlist+a_p"),
}


class _Operation(NamedTuple):
  """An operation of a `FieldReference`."""

  fn: Callable[..., int]
  args: tuple


def _computed(
  function: Callable[[Any], int], of: ml_collections.FieldReference
) -> ml_collections.FieldReference:
  """Returns what follows another key, until it is set."""
  operation = _Operation(lambda _, value: function(value), (of,))
  return ml_collections.FieldReference(0, op=operation)


@functools.lru_cache
def _sizes(data_dir: str, method: str) -> run_sizes.RunSizes:
  library = run_sizes.library_of(data_dir, method)
  return run_sizes.choose(library, run_sizes.is_accelerated())


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  """Returns a configuration whose sizes follow `data.dir`."""
  chosen, options = common.split_argument(argument, _STRATEGIES)
  family, variant = _STRATEGIES[chosen]
  config = common.of_strategy(family, "resnet", variant)
  if common.AUGMENTED in options:
    common.augmented(config)
  method = config.audio_contrast_params.pair_generation_method
  config.data.dir = "data/mine"
  config.data.patches_per_song = 0
  config.opt_params.lr_schedule = "cosine"
  # As the rate falls to 0, the last weights are among the best.
  config.early_stop_patience = 1_000
  config.log_every_steps = 10
  if method.lower() in false_negatives.KINDS:
    # Two songs of an artist in other pairs are no negatives of each other.
    config.loss_params.exclude_sharing = (method.lower(),)
  if common.SMOKE in options:
    epochs = config.epochs
    common.make_small(config)
    config.update({"epochs": epochs, "steps": 4, "validate_every_steps": 2})
    return config
  config.opt_params.lr = run_sizes.RATE
  # Looked up when a key is read: --config.data.dir comes after this function.
  data_dir = config.data.get_ref("dir")

  def by_size(name: str) -> ml_collections.FieldReference:
    return _computed(
      lambda place: getattr(_sizes(place, method), name), data_dir
    )

  config.data.batch_size = by_size("batch_size")
  config.model_params.audio.width = by_size("width")
  config.steps = by_size("steps")
  steps = config.get_ref("steps")
  config.validate_every_steps = _computed(run_sizes.round_of, steps)
  config.opt_params.warmup_steps = _computed(run_sizes.warmup_of, steps)
  return config
