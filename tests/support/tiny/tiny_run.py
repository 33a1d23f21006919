"""A tiny data set with all its vectors, and configs that train on it."""

from collections.abc import Callable, Sequence
import dataclasses
import itertools
import json
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from configs import common
from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import restore
from pcl_jax.data import dataset
from pcl_jax.data import song_store
from pcl_jax.training import loop
from pcl_jax.training import setup
from tests.support import quick_backbone
from tests.support.tiny import tiny_data

STEPS, EPOCHS = 4, 3  # Of `quick_config`: 36 training songs, 8 a batch.
LAST = STEPS * EPOCHS
GENRE_DIMS = 128
PLAYLIST_DIMS = 301


def make_data_set(
  path: pathlib.Path,
  frames: int | tuple[int, int] = (260, 420),
  **catalogue: Any,
) -> pathlib.Path:
  """Makes a data set of random features and vectors; returns its folder.

  Args:
    path: of the folder, which is made.
    frames: of every song, or their range (`tiny_data.tiny_store`).
    **catalogue: arguments of `tiny_catalogue`.
  """
  path.mkdir(parents=True)
  made = tiny_data.tiny_catalogue(**catalogue)
  made.save(path)
  tiny_data.tiny_store(path / song_store.FILE_NAME, made, frames)
  rng = np.random.default_rng(0)
  for name, shape in (
    (dataset.PLAYLIST_VECTORS, (len(made), PLAYLIST_DIMS)),
    (dataset.GENRE_VECTORS, (len(made.genre_codes) + 1, GENRE_DIMS)),
  ):
    np.save(path / name, rng.normal(size=shape).astype(np.float32))
  return path


def small_config(
  data_dir: pathlib.Path, **keys: Any
) -> ml_collections.ConfigDict:
  """Returns strategy SS with a small SC-CNN: 4 steps an epoch, all logged.

  Args:
    data_dir: of the data set.
    **keys: others, with __ for the dot: data__batch_size=4.
  """
  config = common.of_strategy("ss", "sc_cnn", "smoke")
  config.data.dir = str(data_dir)
  config.data.sample_songs = 0
  config.data.threads = 1
  config.log_every_steps = 1
  config.save_every_steps = 3
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in keys.items()}
  )
  return config


def narrow_config(
  data_dir: pathlib.Path, **keys: Any
) -> ml_collections.ConfigDict:
  """Returns `small_config` with layers of one channel.

  Args:
    data_dir: of the data set.
    **keys: others, with __ for the dot.
  """
  return small_config(data_dir, **({"model_params__audio__width": 1} | keys))


def quick_config(
  data_dir: pathlib.Path, **keys: Any
) -> ml_collections.ConfigDict:
  """Returns `narrow_config` of three epochs, with the quick backbone.

  Args:
    data_dir: folder of the data set.
    **keys: other keys, with __ for the dot.
  """
  quick = {
    "model_params__audio__backbone_type": quick_backbone.NAME,
    "epochs": EPOCHS,
  }
  return narrow_config(data_dir, **(quick | keys))


def train_on_one(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> dict[str, Any]:
  """Trains on one device."""
  return loop.train_and_evaluate(config, workdir, devices=jax.devices()[:1])


def rows_of(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the rows of metrics.jsonl, without the figures of time."""
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  timed = ("songs_per_s", "data_wait_share")
  return [{k: v for k, v in row.items() if k not in timed} for row in rows]


# What a config may differ in while its compiled steps stay the same.
_LOOP_KEYS = dict.fromkeys(
  (
    "epochs",
    "steps",
    "validate_every_steps",
    "early_stop_patience",
    "log_every_steps",
    "save_every_steps",
    "train.max_nonfinite_steps",
  ),
  1,
) | {"init_from": "", "trackers": ()}
_built: dict[tuple, tuple[setup.Setup, Any]] = {}
_build = setup.build


def build_once(
  config: ml_collections.ConfigDict,
  devices: Sequence[jax.Device] | None = None,
) -> setup.Setup:
  """Builds a run as `setup.build` does, but compiles it once in a session.

  Args:
    config: config of the run.
    devices: the devices to train on; the first ones, where they are given.
  """
  key = config.copy_and_resolve_references()
  key.update_from_flattened_dict(_LOOP_KEYS)
  key = (key.to_json(), None if devices is None else len(devices))
  if key not in _built:
    run = _build(config, devices)
    _built[key] = run, jax.device_get(run.state)
  run, state = _built[key]  # The state was donated to the first step.
  everywhere = jax.NamedSharding(run.batches.sharding.mesh, jax.P())
  return dataclasses.replace(
    run,
    config=config,
    batches=dataclasses.replace(run.batches, config=config),
    state=jax.device_put(state, everywhere),
    meta=run.meta | {"config": json.loads(config.to_json())},
  )


def forget_built() -> None:
  """Frees what `build_once` keeps."""
  _built.clear()


class Interrupted(Exception):
  """Stands for whatever ends a process."""


def wrap_step(patch: Any, wrap: Callable[[Callable], Callable]) -> None:
  """Puts `wrap(train_step)` in place of the next runs' train step."""
  build = setup.build

  def wrapped(*args):
    run = build(*args)
    return dataclasses.replace(run, train_step=wrap(run.train_step))

  patch.setattr(setup, "build", wrapped)


def interrupt_after(patch: Any, steps: int) -> None:
  """Ends the next run after so many of its steps."""

  def wrap(train_step):
    count = itertools.count()

    def step(*args):
      if next(count) == steps:
        raise Interrupted
      return train_step(*args)

    return step

  wrap_step(patch, wrap)


def at_step(
  number: int, act: Callable[[], Any]
) -> Callable[[Callable], Callable]:
  """Returns what acts while a step of the next start is under way."""

  def wrap(step):
    count = itertools.count(1)

    def acting(*arguments):
      if next(count) == number:
        act()
      return step(*arguments)

    return acting

  return wrap


def latest_step_of(workdir: pathlib.Path) -> int | None:
  """Returns the newest step on file."""
  return checkpoint_files.CheckpointFiles(workdir).latest()


def state_of(
  workdir: pathlib.Path, config: ml_collections.ConfigDict, step: int
) -> dict[str, Any]:
  """Returns the state on file of a run on one device."""
  run = setup.build(config, jax.devices()[:1])
  files = checkpoint_files.CheckpointFiles(workdir)
  state = restore.read_state(files, step, run.state)
  return jax.device_get(state)


def assert_same_end(
  workdir: pathlib.Path,
  expected: pathlib.Path,
  config: ml_collections.ConfigDict,
  step: int,
) -> None:
  """Asserts that rows, and states after a step, are bitwise the same."""
  assert rows_of(workdir) == rows_of(expected)
  jax.tree.map(
    np.testing.assert_array_equal,
    state_of(workdir, config, step),
    state_of(expected, config, step),
  )
