"""Every key of a run, its default and what it means; shared by all configs.

The names of the published YAML (`contrast_combos`, `audio_contrast_params`,
`model_params`, `opt_params`, `loss_params`) are kept. Any key can be set on
the command line, as in `--config.opt_params.lr=3e-4`.
"""

from collections.abc import Collection
import difflib
from typing import Any

import ml_collections

from pcl_jax.common import errors

# The paper's names of cross-modal strategies.
CROSS_MODAL = {
  "a_p": (("audio", "cf"),),
  "a_g": (("audio", "genre_w2v"),),
  "a_g_p": (("audio", "cf"), ("audio", "genre_w2v"), ("cf", "genre_w2v")),
}
# The paper's are the first three.
PAIR_METHODS = {
  "playlist": "Playlist",
  "artist": "Artist",
  "genre": "Genre",
  "album": "Album",
}
_HYBRID = {
  f"{pair}+{cross}": (CROSS_MODAL[cross], PAIR_METHODS[pair])
  for pair in PAIR_METHODS
  for cross in CROSS_MODAL
}
# Family -> variant -> contrast_combos and pair_generation_method; the default
# family and variant come first.
STRATEGIES = {
  "hybrid": {"playlist+a_g_p": _HYBRID["playlist+a_g_p"]} | _HYBRID,
  "ss": {"": ((("audio", "audio_self"),), "")},
  "cm": {cross: (combos, "") for cross, combos in CROSS_MODAL.items()},
  "aim": {pair: ((), method) for pair, method in PAIR_METHODS.items()},
}
BACKBONES = ("resnet", "sc_cnn")
# Words after a variant: a small run, and augmentation.
SMOKE, AUGMENTED = "smoke", "augmented"
_PAPER_WIDTHS = {"resnet": 64, "sc_cnn": 128}
# Strength of the L2 penalty, by encoder.
_PAPER_WEIGHT_DECAY = {"resnet": 0.0, "sc_cnn": 1e-4}


def get_config(backbone_type: str = "resnet") -> ml_collections.ConfigDict:
  """Returns every key with its default, for one of `BACKBONES`."""
  config = ml_collections.ConfigDict()
  # Whose audio encoder the run begins with: a bundle, the workdir of a run,
  # hf://USER/NAME, or a PyTorch state dict; empty for newly drawn weights.
  config.init_from = ""
  config.seed = 0  # Decides weights, batches, augmentation, mixup, dropout.
  config.epochs = 150
  # In place of epochs, so many steps; 0 for none. They are validated at the end
  # of each epoch or, if it is not 0, after so many steps, a round.
  config.steps = 0
  config.validate_every_steps = 0
  # Epochs, or rounds, without a better validation loss.
  config.early_stop_patience = 25
  # Pairs of the modes audio, audio_self, cf (playlists), genre_w2v.
  config.contrast_combos = ()
  config.audio_contrast_params = {
    "pair_generation_method": "",  # Playlist, Artist, Genre, Album, or empty.
    "mixup": True,
    "mixup_alpha": 7.0,  # Gains are drawn from Beta(alpha, beta).
    "mixup_beta": 2.0,
  }
  config.augmentation = _augmentation()
  config.data = _data()
  config.model_params = _model_params(backbone_type)
  config.opt_params = {
    "lr": 1e-4,
    # The rate is constant, as in the paper, or follows a cosine, which falls to
    # 0 at the end of the run. Before, it rises from 0 in so many steps.
    "lr_schedule": "constant",
    "warmup_steps": 0,
    # L2, added to the gradient before Adam's moments.
    "weight_decay": _PAPER_WEIGHT_DECAY[backbone_type],
  }
  config.loss_params = _loss_params()
  config.train = _train()
  # Who gets the numbers of metrics.jsonl too: tensorboard, wandb, mlflow.
  config.trackers = ("tensorboard",)
  config.wandb_params = {
    "project": "",  # On wandb, and MLflow's experiment; empty for pcl_jax.
    # Empty for the workdir's name; a run without --workdir is in runs/run_name.
    "run_name": "",
    "run_id": "",  # A run of wandb to go on with; empty for the workdir's own.
  }
  config.log_every_steps = 50
  config.save_every_steps = 500  # In addition to the end of each epoch.
  return config


def _augmentation() -> dict[str, Any]:
  # Of each patch in training, before mixup; 0 is none. dB are the audio's.
  return {
    "gain_db": 0.0,  # A gain up to so much, either way.
    "slope_db": 0.0,  # From the lowest to the highest band, either way.
    "equaliser_db": 0.0,  # Standard deviation of a smooth curve over the bands.
    # Noise in a range of bands, so far below the patch or up to 30 dB further.
    "noise_db": 0.0,
    # Silent gaps: their number, and the width of the largest.
    "time_masks": 0,
    "time_mask_frames": 32,
    "band_masks": 0,
    "band_mask_bands": 6,
    "stretch": 0.0,  # Change of tempo up to this share, either way.
  }


def _data() -> dict[str, Any]:
  return {
    "dir": "data/melon",  # Made by the commands in preprocessing/.
    "batch_size": 384,  # Songs (CM) or pairs (others), on all devices.
    "threads": 0,  # Readers; 0 for one per core, four at most.
    # Patches are read shuffled (memory, SSD), or in sequential blocks that are
    # held in memory until so many batches are complete (slow disks), or cut by
    # the devices from all songs, resident in their memory.
    "order": "shuffled",
    "num_blocks": 600,
    "cached_batches": 50,
    "stall_s": 300.0,  # A batch that takes longer ends the run.
    "double_window": 625,  # SS: frames from one patch to the other.
    # Patches, or pairs, of a song in an epoch; 0 for as many as lie in it.
    "patches_per_song": 1,
    "max_num_tags": 10,  # Genre codes kept of a song.
    # If the directory is absent, a synthesised sample of so many songs is made
    # in it; 0 for none.
    "sample_songs": 0,
    "sample_seconds": 12.0,
  }


def _model_params(backbone_type: str) -> dict[str, Any]:
  return {
    "audio": {
      "backbone_type": backbone_type,
      "width": _PAPER_WIDTHS[backbone_type],  # Channels of the first layer.
      "fc_hidden_dim": 128,
      "fc_output_dim": 128,  # Size of the embedding that the loss sees.
      "fc_dropout": 0.0,
    },
    "cf": {"hidden_dim": 128, "output_dim": 128, "dropout": 0.3},
    "genre_w2v": {"n_head": 4, "d_k": 128, "d_v": 128, "dropout": 0.1},
  }


def _loss_params() -> dict[str, Any]:
  return {
    "contrastive_temperature": 0.1,
    # Of a row: its partner, as in the paper, or all songs of the batch that
    # share a list of the pair method, which then are no rivals ("all").
    "positives": "partner",
    # Songs that share what is named here ("playlist", "artist", "album") are no
    # negatives of one another.
    "exclude_sharing": (),
    # With more rows than this (two a pair or song) no array of all pairs is
    # made: tiles of so many rows and columns are computed one after the other.
    "tiled_above": 4096,
    "tile": 1024,
  }


def _train() -> dict[str, Any]:
  return {
    # Two ways to save memory: each device embeds its rows in so many parts, one
    # after the other; the inside of blocks is computed again for the gradient.
    "microbatches": 1,
    "remat": False,
    "compute_dtype": "float32",  # Of convolutions; or bfloat16.
    # Of float32 convolutions and products: default, high, highest, or empty for
    # JAX's own choice, which is less than float32 on GPUs and TPUs.
    "matmul_precision": "",
    # A step whose loss or gradient is not finite is skipped; so many skipped
    # steps in a row end the run.
    "max_nonfinite_steps": 5,
    # Folder of compiled programs; empty for one next to the workdir.
    "compilation_cache": "",
  }


def split_argument(
  argument: str, variants: Collection[str]
) -> tuple[str, frozenset[str]]:
  """Splits what follows the colon of `--config=FILE:ARGUMENT`.

  It is one of the variants, the first by default, and any of the words `smoke`
  and `augmented`, with commas between. Returns the variant and the words.
  """
  given = [word for word in argument.split(",") if word]
  options = frozenset(given) & {SMOKE, AUGMENTED}
  words = [word for word in given if word not in options]
  words = words or [next(iter(variants))]
  if len(words) > 1 or words[0] not in variants:
    named = [name for name in variants if name]
    valid = named + [SMOKE, AUGMENTED]
    valid += [f"{name},{SMOKE}" for name in named]
    near = difflib.get_close_matches(argument, valid, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    raise errors.InputError(
      f"the config argument {argument!r} (after the colon of --config) is "
      f"unknown; it is one of {', '.join(valid)}, or nothing.{meant}"
    )
  return words[0], options


def make_small(config: ml_collections.ConfigDict) -> None:
  """Makes a config small: seconds on a CPU, with data of its own."""
  config.epochs = 2
  config.data.dir = "data/smoke"
  config.data.sample_songs = 96
  config.data.sample_seconds = 6.0
  config.data.batch_size = 8
  config.model_params.audio.width = 4
  config.log_every_steps = 2
  config.save_every_steps = 4


def augmented(config: ml_collections.ConfigDict) -> None:
  """Turns on augmentation, by the strengths of docs/training.md."""
  config.augmentation.update(
    {
      "gain_db": 6.0,
      "slope_db": 12.0,
      "equaliser_db": 4.0,
      "noise_db": 20.0,
      "time_masks": 1,
      "band_masks": 1,
      "stretch": 0.05,
    }
  )


def of_strategy(
  family: str, backbone_type: str, argument: str
) -> ml_collections.ConfigDict:
  """Returns the paper's values for a variant of one of `STRATEGIES`."""
  variant, options = split_argument(argument, STRATEGIES[family])
  config = get_config(backbone_type)
  config.contrast_combos, method = STRATEGIES[family][variant]
  config.audio_contrast_params.pair_generation_method = method
  if family == "cm":
    config.audio_contrast_params.mixup_alpha = 5.0
    config.data.batch_size = 768
  if AUGMENTED in options:
    augmented(config)
  if SMOKE in options:
    make_small(config)
  return config
