"""Every key of a run, its default and what it means; shared by all configs.

The names of the published YAML (`contrast_combos`, `audio_contrast_params`,
`model_params`, `opt_params`, `loss_params`) are kept. Any key can be set on
the command line, as in `--config.opt_params.lr=3e-4`.
"""

from collections.abc import Collection
import difflib

import ml_collections

from pcl_jax.common import errors

# The paper's names of cross-modal strategies.
CROSS_MODAL = {
  "a_p": (("audio", "cf"),),
  "a_g": (("audio", "genre_w2v"),),
  "a_g_p": (("audio", "cf"), ("audio", "genre_w2v"), ("cf", "genre_w2v")),
}
PAIR_METHODS = {"playlist": "Playlist", "artist": "Artist", "genre": "Genre"}
# The default first.
HYBRIDS = tuple(
  sorted(
    (f"{pair}+{cross}" for pair in PAIR_METHODS for cross in CROSS_MODAL),
    key=lambda name: name != "playlist+a_g_p",
  )
)
BACKBONES = ("resnet", "sc_cnn")
SMOKE = "smoke"
_PAPER_WIDTHS = {"resnet": 64, "sc_cnn": 128}
# Strength of the L2 penalty, by encoder.
_PAPER_WEIGHT_DECAY = {"resnet": 0.0, "sc_cnn": 1e-4}


def get_config(backbone_type: str = "resnet") -> ml_collections.ConfigDict:
  """Returns every key with its default; a family's file sets the rest.

  Args:
    backbone_type: `resnet` or `sc_cnn`.
  """
  config = ml_collections.ConfigDict()
  config.seed = 0  # Decides weights, batches, mixup and dropout.
  config.epochs = 150
  config.early_stop_patience = 25  # Epochs without a better validation loss.

  # Pairs of the modes audio, audio_self, cf (playlists), genre_w2v.
  config.contrast_combos = ()
  config.audio_contrast_params = ml_collections.ConfigDict()
  params = config.audio_contrast_params
  params.pair_generation_method = ""  # Playlist, Artist, Genre, or empty.
  params.mixup = True
  params.mixup_alpha = 7.0  # Gains are drawn from Beta(alpha, beta).
  params.mixup_beta = 2.0

  config.data = ml_collections.ConfigDict()
  config.data.dir = "data/melon"  # Made by the commands in preprocessing/.
  config.data.batch_size = 384  # Songs (CM) or pairs (others), all devices.
  config.data.threads = 0  # Readers; 0 for one per core, four at most.
  # Where patches are read: shuffled (memory, SSD), or in sequential blocks that
  # are held in memory until so many batches are there (slow disks).
  config.data.order = "shuffled"
  config.data.num_blocks = 600
  config.data.cached_batches = 50
  config.data.stall_s = 300.0  # A batch that takes longer ends the run.
  config.data.double_window = 625  # SS: frames from one patch to the other.
  config.data.max_num_tags = 10  # Genre codes kept of a song.
  # Where the directory is absent, a synthesised sample of so many songs is
  # made in it; 0 for none.
  config.data.sample_songs = 0
  config.data.sample_seconds = 20.0

  config.model_params = ml_collections.ConfigDict()
  config.model_params.audio = ml_collections.ConfigDict()
  audio = config.model_params.audio
  audio.backbone_type = backbone_type
  audio.width = _PAPER_WIDTHS[backbone_type]  # Channels of the first layer.
  audio.fc_hidden_dim = 128
  audio.fc_output_dim = 128  # Size of the embedding that the loss sees.
  audio.fc_dropout = 0.0
  config.model_params.cf = ml_collections.ConfigDict()
  config.model_params.cf.hidden_dim = 128
  config.model_params.cf.output_dim = 128
  config.model_params.cf.dropout = 0.3
  config.model_params.genre_w2v = ml_collections.ConfigDict()
  config.model_params.genre_w2v.n_head = 4
  config.model_params.genre_w2v.d_k = 128
  config.model_params.genre_w2v.d_v = 128
  config.model_params.genre_w2v.dropout = 0.1

  config.opt_params = ml_collections.ConfigDict()
  config.opt_params.lr = 1e-4
  # Over the run: constant as in the paper, or cosine, which falls to 0 at the
  # end of the last epoch; after so many steps in which it rises from 0.
  config.opt_params.lr_schedule = "constant"
  config.opt_params.warmup_steps = 0
  # L2, added to the gradient before Adam's moments.
  config.opt_params.weight_decay = _PAPER_WEIGHT_DECAY[backbone_type]
  config.loss_params = ml_collections.ConfigDict()
  config.loss_params.contrastive_temperature = 0.1
  # Songs that share a "playlist", "artist" or "album" are then no negatives of
  # one another.
  config.loss_params.exclude_sharing = ()
  # With more rows (two a pair or song) no array of all pairs is made; tiles of
  # so many rows and columns are computed one after the other.
  config.loss_params.tiled_above = 4096
  config.loss_params.tile = 1024

  config.train = ml_collections.ConfigDict()
  # What saves memory: parts of each device's rows that are embedded one after
  # the other, and computing the inside of blocks again for the gradient.
  config.train.microbatches = 1
  config.train.remat = False
  config.train.compute_dtype = "float32"  # Of convolutions; or bfloat16.
  # A step whose loss or gradient is not finite is skipped; so many in a row end
  # the run.
  config.train.max_nonfinite_steps = 5
  # Folder of compiled programs; empty for one beside the workdir.
  config.train.compilation_cache = ""

  config.log_every_steps = 50
  config.save_every_steps = 500  # Beside the save at the end of each epoch.
  return config


def split_argument(
  argument: str, variants: Collection[str]
) -> tuple[str, bool]:
  """Splits what follows the colon of `--config=FILE:ARGUMENT`.

  Args:
    argument: a variant, `smoke`, both with a comma between, or empty.
    variants: valid variants; the first is the default.

  Returns:
    The variant (empty where there are none) and whether to make it small.

  Raises:
    InputError: anything else.
  """
  words = [word for word in argument.split(",") if word]
  smoke = SMOKE in words
  words = [word for word in words if word != SMOKE]
  variants = list(variants)
  if not words:
    return (variants[0] if variants else ""), smoke
  if len(words) > 1 or words[0] not in variants:
    valid = variants + [SMOKE] + [f"{name},{SMOKE}" for name in variants]
    near = difflib.get_close_matches(argument, valid, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    raise errors.InputError(
      f"the config argument {argument!r} (after the colon of --config) is "
      f"unknown; it is one of {', '.join(valid)}, or nothing.{meant}"
    )
  return words[0], smoke


def make_small(config: ml_collections.ConfigDict) -> None:
  """Turns a config into its smoke variant: seconds on a CPU, own data."""
  config.epochs = 2
  config.data.dir = "data/smoke"
  config.data.sample_songs = 96
  config.data.sample_seconds = 6.0
  config.data.batch_size = 8
  config.model_params.audio.width = 4
  config.log_every_steps = 2
  config.save_every_steps = 4


def self_supervised(
  backbone_type: str, argument: str
) -> ml_collections.ConfigDict:
  """Returns strategy SS: two patches of a song."""
  _, smoke = split_argument(argument, ())
  config = get_config(backbone_type)
  config.contrast_combos = (("audio", "audio_self"),)
  if smoke:
    make_small(config)
  return config


def cross_modal(backbone_type: str, argument: str) -> ml_collections.ConfigDict:
  """Returns strategy CM: audio against playlist and genre vectors."""
  variant, smoke = split_argument(argument, CROSS_MODAL)
  config = get_config(backbone_type)
  config.contrast_combos = CROSS_MODAL[variant]
  config.audio_contrast_params.mixup_alpha = 5.0
  config.data.batch_size = 768
  if smoke:
    make_small(config)
  return config


def audio_intra_modal(
  backbone_type: str, argument: str
) -> ml_collections.ConfigDict:
  """Returns strategy A-IM: songs that share a playlist, artist or genre."""
  variant, smoke = split_argument(argument, PAIR_METHODS)
  config = get_config(backbone_type)
  config.audio_contrast_params.pair_generation_method = PAIR_METHODS[variant]
  if smoke:
    make_small(config)
  return config


def hybrid(backbone_type: str, argument: str) -> ml_collections.ConfigDict:
  """Returns strategy Hybrid: CM and A-IM, their losses added."""
  variant, smoke = split_argument(argument, HYBRIDS)
  pair, cross = variant.split("+")
  config = get_config(backbone_type)
  config.contrast_combos = CROSS_MODAL[cross]
  config.audio_contrast_params.pair_generation_method = PAIR_METHODS[pair]
  if smoke:
    make_small(config)
  return config
