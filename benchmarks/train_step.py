"""Seconds of a whole training step, ours against PyTorch's.

python -m benchmarks.train_step
python -m benchmarks.train_step --encoder=sc_cnn --batch=128 --rounds=5
python -m benchmarks.train_step --variants=ours_bfloat16,careful

Needs `pip install torch`, which nothing else does. Builds the paper's audio
encoder and its training step (mixup, forward, NT-Xent of strategy SS, backward,
Adam with L2) as `launch.py` does and in plain PyTorch, from the same weights,
then takes one step of each in turn, on the same random batch, which lies on the
device. Prints the median, least and most of the seconds and of the ratios round
by round. Operations are those of plain convolutions and matrix products, which
PyTorch counts, for all variants; XLA's count of what it compiled stands beside
ours (there the body of a loop counts once).

Variants:
  ours           float32
  ours_bfloat16  bfloat16 convolutions
  eager          PyTorch as published: float32, not compiled
  careful        PyTorch compiled, channels last, bfloat16 autocast

The first and third are taken on a CPU, all four on a GPU.
"""

import argparse
from collections.abc import Callable, Sequence
import importlib
import os
import platform
import statistics
import time
from typing import Any

import flax
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parts import machine
from pcl_jax.common import errors
from pcl_jax.data import strategies
from pcl_jax.interop import torch_names
from pcl_jax.models import audio_encoder
from pcl_jax.models import encoders
from pcl_jax.training import optimizers
from pcl_jax.training import train_step

SETTINGS = {"learning_rate": 1e-4, "weight_decay": 1e-4, "temperature": 0.1}
MIXUP = (5.0, 2.0)
FRAMES, BANDS = 256, 48
_VARIANTS = ("ours", "ours_bfloat16", "eager", "careful")
_ON_CPU = ("ours", "eager")


def _load_model(
  arrays: dict[str, np.ndarray], compute_dtype: Any
) -> encoders.Encoders:
  """Returns the encoders of a run, with PyTorch's weights in that of audio."""
  encoder = torch_names.load_encoder(arrays, compute_dtype=compute_dtype)
  model = nnx.eval_shape(
    lambda: encoders.Encoders(
      audio_params={"backbone_type": "resnet"}, rngs=nnx.Rngs(0)
    )
  )
  model.audio = encoder
  return model


def our_step(
  arrays: dict[str, np.ndarray],
  *,
  mixup: tuple[float, float] | None,
  compute_dtype: Any = jnp.float32,
  batch: int | None = None,
) -> tuple[Callable[[Any], jax.Array], float]:
  """Builds our step of training, as a run does.

  Args:
    arrays: PyTorch's names to weights.
    mixup: parameters of the gains; None for no mixup.
    compute_dtype: of the convolutions.
    batch: rows to count operations for; None not to.

  Returns:
    step(mel) -> the loss before the step, and XLA's count of a step's floating
    point operations; 0 without `batch`.
  """
  model = _load_model(arrays, compute_dtype)
  optimizer = optimizers.make_optimizer(
    SETTINGS["learning_rate"], SETTINGS["weight_decay"]
  )
  recipe = train_step.Recipe(
    strategy=strategies.parse([("audio", "audio_self")], None),
    num_codes=1,
    temperature=SETTINGS["temperature"],
    mixup_alpha=mixup[0] if mixup else None,
    mixup_beta=mixup[1] if mixup else 2.0,
  )
  auto = (jax.sharding.AxisType.Auto,)
  mesh = jax.make_mesh((1,), ("data",), axis_types=auto)
  graphdef, state = train_step.new_state(model, optimizer)
  # Copies: loaded arrays may alias PyTorch's, and the step donates its state.
  state = jax.tree.map(jnp.copy, state)
  state = jax.device_put(state, jax.NamedSharding(mesh, jax.P()))
  update, _ = train_step.make_steps(graphdef, optimizer, recipe, mesh)
  key = jax.random.key(0)
  operations = 0.0
  if batch is not None:
    shape = jax.ShapeDtypeStruct((batch, FRAMES, BANDS), jnp.float32)
    update = update.lower(state, {"audio": shape}, key).compile()
    operations = update.cost_analysis().get("flops", 0.0)

  def step(mel):
    nonlocal state
    state, terms = update(state, {"audio": mel}, key)
    return terms["total"]

  return step, operations


def both_steps(encoder: Any, *, mixup: tuple[float, float] | None) -> tuple:
  """Returns PyTorch's step and ours, from the same weights."""
  networks = importlib.import_module("benchmarks.parts.torch_networks")
  ours, _ = our_step(networks.arrays_of(encoder), mixup=mixup)
  return networks.make_step(encoder, **SETTINGS, mixup=mixup), ours


def _steps(
  flags: argparse.Namespace, variants: Sequence[str]
) -> tuple[dict[str, Callable[[], None]], dict[str, float]]:
  """Returns for each variant a step that waits until all is done.

  Also operations of a step, by XLA, for ours.
  """
  networks = importlib.import_module("benchmarks.parts.torch_networks")
  torch = networks.torch
  device = "cuda" if jax.default_backend() == "gpu" else "cpu"
  torch.manual_seed(0)
  arrays = networks.arrays_of(networks.AudioEncoder(flags.encoder, flags.width))
  mel = np.random.default_rng(0).standard_normal((flags.batch, FRAMES, BANDS))
  mel = mel.astype(np.float32)
  steps, operations = {}, {}
  for name in variants:
    if name.startswith("ours"):
      dtype = jnp.bfloat16 if name == "ours_bfloat16" else jnp.float32
      ours, operations[name] = our_step(
        arrays, mixup=MIXUP, compute_dtype=dtype, batch=flags.batch
      )
      here = jax.device_put(mel)
      steps[name] = lambda step=ours, mel=here: jax.block_until_ready(step(mel))
    else:
      encoder = networks.AudioEncoder(flags.encoder, flags.width)
      encoder.load_state_dict({k: torch.tensor(v) for k, v in arrays.items()})
      theirs = networks.make_step(
        encoder.to(device), **SETTINGS, mixup=MIXUP, careful=name == "careful"
      )
      there = networks.image_of(mel).to(device)
      if name == "careful":
        there = there.contiguous(memory_format=torch.channels_last)
      # Reading the loss and waiting for the update that follows it.
      wait = torch.cuda.synchronize if device == "cuda" else lambda: None
      steps[name] = lambda step=theirs, x=there, wait=wait: (step(x), wait())
  return steps, operations


def count_operations(name: str, batch: int, width: int | None) -> int:
  """Returns PyTorch's count of a plain step's floating point operations."""
  networks = importlib.import_module("benchmarks.parts.torch_networks")
  counter = importlib.import_module("torch.utils.flop_counter")
  # Of shapes alone: nothing is computed.
  with (
    networks.torch.device("meta"),
    counter.FlopCounterMode(display=False) as c,
  ):
    encoder = networks.AudioEncoder(name, width)
    images = networks.torch.zeros(batch, 1, BANDS, FRAMES)
    networks.nt_xent(encoder(images), 0.1).backward()
  return c.get_total_flops()


def measure(
  steps: dict[str, Callable[[], None]], rounds: int
) -> dict[str, list[float]]:
  """Takes the steps in turn; returns seconds in each round, by name."""
  seconds = {name: [] for name in steps}
  for number in range(rounds + 1):
    for name, step in steps.items():
      begin = time.perf_counter()
      step()
      if number:  # The first time compiles and makes room.
        seconds[name].append(time.perf_counter() - begin)
  return seconds


def _line(name: str, values: Sequence[float], unit: str, digits: int) -> str:
  return (
    f"{name:<28}{statistics.median(values):>10,.{digits}f} {unit} "
    f"[{min(values):,.{digits}f}, {max(values):,.{digits}f}]"
  )


def _versions() -> str:
  torch = importlib.import_module("torch")
  return (
    f"Python {platform.python_version()}, jax {jax.__version__}, flax "
    f"{flax.__version__}, torch {torch.__version__}"
  )


def _report(
  seconds: dict[str, list[float]],
  compiled: dict[str, float],
  operations: int,
  batch: int,
) -> None:
  print(f"{operations / 1e9:,.0f} GFLOP a step")
  for name, values in seconds.items():
    print(_line(name, values, "s", 3))
    rate = batch / statistics.median(values)
    speed = operations / statistics.median(values) / 1e9
    print(f"{'':<28}{rate:>10,.1f} songs/s, {speed:,.0f} GFLOP/s", end="")
    counted = compiled.get(name)
    print(f"; XLA counts {counted / 1e9:,.0f} GFLOP" if counted else "")
  for ours in (name for name in seconds if name.startswith("ours")):
    for other in (name for name in seconds if not name.startswith("ours")):
      pairs = zip(seconds[ours], seconds[other], strict=True)
      ratios = [a / b for a, b in pairs]
      print(_line(f"{ours} / {other}", ratios, "times", 2))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--encoder", choices=sorted(audio_encoder.BACKBONES))
  parser.add_argument("--batch", type=int, default=64, help="patches")
  parser.add_argument("--width", type=int, help="default: the paper's")
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--threads", type=int, help="default: all cores")
  parser.add_argument("--variants", help="comma-separated; default: see above")
  flags = parser.parse_args(argv)
  unknown = set((flags.variants or "ours").split(",")) - set(_VARIANTS)
  if unknown:
    raise errors.InputError(
      f"--variants={flags.variants} names {', '.join(sorted(unknown))}: choose "
      f"from {', '.join(_VARIANTS)}."
    )
  for name in ("batch", "rounds", "threads", "width"):
    value = getattr(flags, name)
    if value is not None and value < (2 if name == "batch" else 1):
      raise errors.InputError(f"--{name}={value} is too small.")
  if flags.batch % 2:
    raise errors.InputError(
      f"--batch={flags.batch} is odd, but every song comes with two patches: "
      f"give an even number."
    )
  return flags


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and measures."""
  flags = _parse(argv)
  # Both on one device: JAX shall not take three quarters of it at its start.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  if flags.threads is not None:
    # Before any of them starts threads, which inherit it.
    cores = sorted(os.sched_getaffinity(0))[: flags.threads]
    os.sched_setaffinity(0, cores)
  torch = importlib.import_module("benchmarks.parts.torch_networks").torch
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  default = _ON_CPU if jax.default_backend() == "cpu" else _VARIANTS
  variants = flags.variants.split(",") if flags.variants else default
  print(f"{machine.describe()}\n{_versions()}")
  names = [flags.encoder] if flags.encoder else sorted(audio_encoder.BACKBONES)
  for flags.encoder in names:
    print(
      f"\n{flags.encoder}, batch {flags.batch}, {flags.rounds} rounds: median "
      f"[least, most]"
    )
    steps, compiled = _steps(flags, variants)
    operations = count_operations(flags.encoder, flags.batch, flags.width)
    seconds = measure(steps, flags.rounds)
    _report(seconds, compiled, operations, flags.batch)


if __name__ == "__main__":
  errors.run_command(main)
