"""The same training step in several forms, for the benchmarks that compare."""

import argparse
from collections.abc import Callable, Hashable, Mapping
import statistics
import time
from typing import Any

from flax import nnx
import jax
import numpy as np

from pcl_jax.audio import song_patches
from pcl_jax.data import song_store
from pcl_jax.data import strategies
from pcl_jax.models import audio_encoder
from pcl_jax.models import encoders
from pcl_jax.training import optimizers
from pcl_jax.training import train_step


def _random_batch(rows: int, mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
  """Returns patches on the devices, by the name that a step knows them by."""
  rng = np.random.default_rng(0)
  shape = (rows, song_patches.FRAMES, song_store.MEL_BANDS)
  patches = rng.uniform(-2, 1, shape).astype(np.float16)
  sharding = jax.NamedSharding(mesh, jax.P("data"))
  return {"audio": jax.device_put(patches, sharding)}


def make_step(
  encoder: str,
  width: int | None,
  rows: int,
  devices: int,
  *,
  microbatches: int = 1,
  remat: bool = False,
) -> tuple[Callable[[], Any], int]:
  """Compiles a step of strategy SS, with mixup, on a random batch.

  Args:
    encoder: `resnet` or `sc_cnn`.
    width: of the encoder; None for the paper's.
    rows: patches in the global batch.
    devices: how many to split it over.
    microbatches: parts of each device's rows.
    remat: computes the inside of blocks again.

  Returns:
    What takes one step after the other and returns its loss, and the bytes
    that XLA plans for what lives within a step, on one device.
  """
  mesh = train_step.make_mesh(jax.devices()[:devices])
  model = encoders.Encoders(
    audio_params={
      "backbone_type": encoder,
      "width": width,
      "remat": remat,
    },
    rngs=nnx.Rngs(0),
  )
  optimizer = optimizers.make_optimizer(1e-4, 1e-4)
  recipe = train_step.Recipe(
    strategies.parse([["audio", "audio_self"]], ""),
    1,
    0.1,
    5.0,
    microbatches=microbatches,
  )
  graphdef, state = train_step.new_state(model, optimizer)
  everywhere = jax.NamedSharding(mesh, jax.P())
  step, _ = train_step.make_steps(graphdef, optimizer, recipe, mesh)
  batch = _random_batch(rows, mesh)
  key = jax.device_put(jax.random.key(0), everywhere)
  held = {"state": jax.device_put(state, everywhere)}
  compiled = step.lower(held["state"], batch, key).compile()

  def take() -> float:
    held["state"], terms = compiled(held["state"], batch, key)
    return float(terms["total"])

  return take, compiled.memory_analysis().temp_size_in_bytes


def time_in_turn(
  steps: Mapping[Hashable, Callable[[], Any]], rounds: int
) -> dict[Hashable, list[float]]:
  """Times a step of each form in each round.

  Returns:
    Form -> seconds of its steps.
  """
  seconds = {name: [] for name in steps}
  for take in steps.values():
    take()
  for _ in range(rounds):
    for name, take in steps.items():
      begin = time.perf_counter()
      take()
      seconds[name].append(time.perf_counter() - begin)
  return seconds


def spread(values: list[float]) -> str:
  """Returns median, least and most."""
  return (
    f"{statistics.median(values):.3g} [{min(values):.3g}, {max(values):.3g}]"
  )


def add_flags(parser: argparse.ArgumentParser, batch: int) -> None:
  """Adds what every comparison of forms asks for."""
  parser.add_argument(
    "--encoder", choices=audio_encoder.BACKBONES, default="resnet"
  )
  parser.add_argument("--width", type=int, help="the paper's if not given")
  parser.add_argument("--batch", type=int, default=batch, help="patches")
  parser.add_argument("--rounds", type=int, default=5)
