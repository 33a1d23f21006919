"""Trainings of the study of real recordings, and of the encoder in the box.

A recipe is a strategy of configs/library.py with changes after it, as in
album+augmented+all: `augmented` changes the feature of each patch at random,
`all` takes all songs of the batch that share the list as positives, and
`unmixed` leaves mixup out. A finished run leaves a result.json and vectors.npy,
a vector of each song, in its folder; rendered scores, which are never looked
for, have zeros.
"""

import argparse
from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import os
import pathlib
import time

import jax
import ml_collections
import numpy as np

from benchmarks.real_music import real_scores
from benchmarks.strategies import strategy_runs
from benchmarks.strategies import strategy_table
from configs import common
from configs import library
from pcl_jax.audio import song_patches
from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import jax_setup
from pcl_jax.common import storage
from pcl_jax.common import versions
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.embedding import song_encoder
from pcl_jax.training import loop
from pcl_jax.training import run_sizes

UNTRAINED = strategy_table.UNTRAINED
VECTORS = "vectors.npy"
CHANGES = ("augmented", "all", "unmixed")
STRATEGIES = ("ss", "artist", "album", "playlist", "hybrid")
_ROUNDS = 4
_BATCH_PATCHES = 256  # That are embedded at once.


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What all runs of a study share.

  Attributes:
    steps: of each run.
    batch_size: pairs.
    width: of the ResNet.
    compute_dtype: of the convolutions.
    order: in which patches are read; `resident` for songs on the device.
  """

  steps: int
  batch_size: int
  width: int
  compute_dtype: str = "float32"
  order: str = "shuffled"


def config_of(
  recipe: str,
  seed: int,
  data_dir: pathlib.Path,
  sizes: Sizes,
  out: pathlib.Path,
) -> ml_collections.ConfigDict:
  """Returns the config of a run.

  Args:
    recipe: a strategy and its changes, or `untrained`.
    seed: of the run.
    data_dir: the data set, or a fold of it.
    sizes: what all runs share.
    out: a folder above all runs, where compiled programs are kept.
  """
  strategy, *changes = recipe.split("+")
  if recipe == UNTRAINED:
    strategy = STRATEGIES[0]
  config = library.get_config(strategy)
  config.seed = seed
  config.data.dir = str(data_dir)
  config.steps = sizes.steps
  config.data.batch_size = sizes.batch_size
  config.model_params.audio.width = sizes.width
  config.train.compute_dtype = sizes.compute_dtype
  config.data.order = sizes.order
  config.train.compilation_cache = str(out / loop.CACHE)
  config.validate_every_steps = max(sizes.steps // _ROUNDS, 1)
  config.save_every_steps = sizes.steps
  if "augmented" in changes:
    common.augmented(config)
  if "all" in changes:
    config.loss_params.positives = "all"
  if "unmixed" in changes:
    config.audio_contrast_params.mixup = False
  # Keys that follow others cannot be sent to another process.
  return config.copy_and_resolve_references()


def hours(data: dataset.DataSet, split: int | None = None) -> float:
  """Returns the hours of audio of all songs, or of those of a split."""
  frames = data.store.frames
  if split is not None:
    frames = frames[data.catalogue.rows_of(split)]
  patches = frames.sum(dtype=np.int64) / song_patches.FRAMES
  return float(patches) * song_patches.SECONDS / 3600


def run_one(
  name: str,
  config: ml_collections.ConfigDict,
  folder: pathlib.Path,
  cores: set[int],
) -> None:
  """Trains, embeds the recordings and looks them up; in a process of its own.

  Args:
    name: of the recipe, or `untrained`.
    config: of the run.
    folder: its workdir.
    cores: that it may use.
  """
  os.sched_setaffinity(0, cores)
  begin = time.perf_counter()
  folder.mkdir(parents=True, exist_ok=True)
  with (
    open(folder / "log.txt", "a") as log,
    contextlib.redirect_stdout(log),
    contextlib.redirect_stderr(log),
  ):
    jax_setup.start()
    encoder, took = strategy_runs.encoder_of(name, config, folder)
    if name != UNTRAINED and took["steps"] < config.steps:
      raise errors.RunError(f"stopped after step {took['steps']}")
    trained_s = time.perf_counter() - begin
    data = dataset.DataSet(config.data.dir)
    songs = real_scores.recordings(data)
    found = song_encoder.embed_songs(
      encoder, data.store, songs, batch_patches=_BATCH_PATCHES
    )
    rows = np.zeros((len(data.store), found.shape[1]), np.float32)
    rows[songs] = found
    np.save(folder / VECTORS, rows.astype(np.float16))
    result = took | {
      "recipe": name,
      "settings": strategy_runs.settings_of(name, config, data.fingerprint()),
      "scores": real_scores.measure(data, rows),
      "training_hours": hours(data, catalogues.TRAIN),
      "trained_s": trained_s,
      "whole_s": time.perf_counter() - begin,
      "device": jax.devices()[0].device_kind,
      "versions": versions.installed(),
    }
  storage.write_json(folder / strategy_runs.RESULT, result, indent=None)


def recipe(text: str) -> str:
  """Reads a recipe of a command line.

  Raises:
    ArgumentTypeError: it is none.
  """
  strategy, *changes = text.split("+")
  ordered = [one for one in CHANGES if one in changes]
  if text != UNTRAINED and (strategy not in STRATEGIES or changes != ordered):
    raise argparse.ArgumentTypeError(
      f"{text!r} is no recipe: it is one of {', '.join(STRATEGIES)} and, after "
      f"it, any of +{', +'.join(CHANGES)} in this order"
    )
  return text


def stages_of(stages: Sequence[str]) -> Callable[[str], list[str]]:
  """Returns what reads some of the stages of a command, in their order."""

  def read(text: str) -> list[str]:
    found = text.split(",")
    for one in found:
      if one not in stages:
        raise argparse.ArgumentTypeError(
          f"{one!r} is none of {', '.join(stages)}"
        )
    return [one for one in stages if one in found]

  return read


def add_flags(parser: argparse.ArgumentParser) -> None:
  """Adds the flags of seeds, sizes and processes to a command."""
  add, accelerated = parser.add_argument, run_sizes.is_accelerated()
  add(
    "--seeds",
    type=strategy_runs.seeds,
    default=[0, 1, 2],
    help="with commas (0,1,2)",
  )
  for name, here, there, text in (
    ("steps", 500, 1500, "of a run"),
    ("batch_size", 64, 128, "pairs"),
    (
      "width",
      16,
      44,
      "of the ResNet; at 44 the weights are 10.7 MB in float16",
    ),
  ):
    add(
      f"--{name}",
      type=command_line.count,
      default=there if accelerated else here,
      help=f"{text} (here %(default)s; {there} on an accelerator)",
    )
  dtypes = ("float32", "bfloat16")
  text = "of the convolutions (%(default)s)"
  add("--compute_dtype", choices=dtypes, default=dtypes[accelerated], help=text)
  orders = ("shuffled", "resident")
  text = "whether the songs lie on the device (%(default)s)"
  add("--order", choices=orders, default=orders[accelerated], help=text)
  text = "runs at once, which share cores and device (%(default)s)"
  add("--workers", type=command_line.count, default=1, help=text)


def sizes_of(flags: argparse.Namespace) -> Sizes:
  """Returns what `add_flags` has read of the sizes."""
  fields = dataclasses.fields(Sizes)
  return Sizes(**{one.name: getattr(flags, one.name) for one in fields})
