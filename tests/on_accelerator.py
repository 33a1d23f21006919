"""Holds the device that JAX finds to the numbers of the published code.

python -m tests.on_accelerator
python -m tests.on_accelerator --trajectories=cm_a_p_resnet

The tests of pytest run on CPUs; this runs on a GPU or TPU. Float32 products are
computed with full precision first, then with the device's own choice, which is
TensorFloat-32 on newer GPUs and bfloat16 on TPUs. Prints each difference and
what it may be, and ends with exit code 1 where one is too large.
"""

import argparse
from collections.abc import Iterator, Sequence
import contextlib
from typing import NamedTuple

import jax
import numpy as np

from pcl_jax.audio import melspectrogram
from pcl_jax.audio import traced_feature
from pcl_jax.common import errors
from pcl_jax.embedding.tables import search
from pcl_jax.losses import nt_xent
from pcl_jax.training import train_step
from tests.support.published import golden_encoders
from tests.support.published import golden_weights
from tests.support.published import trajectories

TRAJECTORIES = ("cm_a_p_resnet", "hybrid_playlist_g_p_sc_cnn")
# How many times a CPU's difference a device may have with full precision: its
# sums have another order. These and the next are guesses: no accelerator has
# been held to them yet.
_TIMES = {"cpu": 1.0, "gpu": 4.0, "tpu": 10.0}
# Parts of the largest number, and of losses, with the device's own precision.
# Later steps of a trajectory multiply what the first ones rounded.
_REDUCED = {"eval": 1e-2, "train": 3e-2, "first step": 1e-2}
_LOSSES = {"n4_d16_t0.1": 0.1, "n32_d128_t0.1": 0.1, "n96_d128_t0.1": 0.1}
_LOSS = 1e-5
_FEATURE = 1e-5
_COSINE = 1e-6


class Check(NamedTuple):
  """A difference from a golden number; None allows any."""

  name: str
  difference: float
  allowed: float | None

  @property
  def is_good(self) -> bool:
    """Whether the difference is one that is allowed."""
    return self.allowed is None or self.difference <= self.allowed


def _allowed(
  key: str, on_cpu: float, platform: str, precision: str | None
) -> float | None:
  if precision is None and platform != "cpu":
    return _REDUCED.get(key)
  return on_cpu * _TIMES[platform]


def _encoders(platform: str, precision: str | None) -> Iterator[Check]:
  golden = golden_encoders.numbers("encoders.npz")
  for name in ("resnet", "sc_cnn"):
    _, outputs, _, _ = golden_encoders.run(name, golden)
    for mode, found in outputs.items():
      worst = max(
        golden_encoders.share(one, golden[f"{name}/{mode}/{part}"])
        for one, part in zip(found, ("features", "projection"), strict=True)
      )
      on_cpu = golden_encoders.SHARES[mode]
      allowed = _allowed(mode, on_cpu, platform, precision)
      yield Check(f"encoder {name}, {mode}", worst, allowed)


def _losses(platform: str) -> Iterator[Check]:
  stored = golden_encoders.numbers("losses.npz")
  mesh = train_step.make_mesh(jax.devices()[:1])
  for name, temperature in _LOSSES.items():
    z = stored[f"loss/{name}/z"]
    half = len(z) // 2
    for form, tiled_above in (("dense", len(z)), ("by tiles", 0)):

      def loss(z, half=half, tiled_above=tiled_above, temperature=temperature):
        return nt_xent.nt_xent(
          z[:half],
          z[half:],
          temperature=temperature,
          mesh=mesh,
          tiled_above=tiled_above,
          tile=16,
        )

      value, gradient = jax.jit(jax.value_and_grad(loss))(z)
      worst = max(
        abs(float(value) / float(stored[f"loss/{name}/loss"]) - 1),
        golden_encoders.share(gradient, stored[f"loss/{name}/grad"]),
      )
      yield Check(f"loss {name} {form}", worst, _LOSS * _TIMES[platform])


def _trajectory(
  name: str, platform: str, precision: str | None
) -> Iterator[Check]:
  for key, worst in trajectories.differences(name).items():
    on_cpu = trajectories.ALLOWED[key]
    allowed = _allowed(key, on_cpu, platform, precision)
    yield Check(f"trajectory {name}, {key}", worst, allowed)


def _feature(platform: str) -> Iterator[Check]:
  stored = golden_encoders.numbers("melspectrogram.npz")
  for name in ("chirp", "silence", "trumpet", "sugar_plum"):
    samples = stored[f"{name}/pcm16"].astype(np.float32) / 32_768
    found = np.asarray(jax.jit(traced_feature.log_mel)(samples))
    worst = np.abs(found - melspectrogram.log_mel(samples)).max()
    allowed = _FEATURE * _TIMES[platform]
    yield Check(f"feature {name}", float(worst), allowed)


def _search(platform: str) -> Iterator[Check]:
  rng = np.random.default_rng(0)
  queries = rng.standard_normal((64, 128)).astype(np.float32)
  candidates = rng.standard_normal((50_000, 128)).astype(np.float32)
  found, cosines = search.top_k(queries, candidates, 20)
  exact = search.unit(queries.astype(np.float64))
  exact = exact @ search.unit(candidates.astype(np.float64)).T
  there = np.take_along_axis(exact, found, axis=1)
  best = -np.sort(-exact, axis=1)[:, :20]
  allowed = _COSINE * _TIMES[platform]
  yield Check("search, cosines", np.abs(cosines - there).max(), allowed)
  yield Check("search, songs", np.abs(there - best).max(), allowed)


def _of_precision(
  names: Sequence[str], platform: str, precision: str | None
) -> Iterator[Check]:
  asked = contextlib.nullcontext()
  if precision is not None:
    asked = jax.default_matmul_precision(precision)
  with asked:
    yield from _encoders(platform, precision)
    yield from _losses(platform)
    yield from _feature(platform)
    yield from _search(platform)
    for name in names:
      yield from _trajectory(name, platform, precision)


def checks(names: Sequence[str] | None = None) -> Iterator[Check]:
  """Yields the differences on the first device, by precision.

  Args:
    names: of golden trajectories; None for `TRAJECTORIES`.
  """
  platform = jax.devices()[0].platform
  platform = platform if platform in _TIMES else "gpu"
  for precision in (None,) if platform == "cpu" else ("highest", None):
    label = precision or "the device's own"
    for check in _of_precision(names or TRAJECTORIES, platform, precision):
      yield check._replace(name=f"{check.name}, precision {label}")


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the differences; returns 1 if one is too large."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  known = golden_weights.reference()["trajectories"]
  parser.add_argument("--trajectories", help="with commas between")
  flags = parser.parse_args(argv)
  names = flags.trajectories and flags.trajectories.split(",")
  for name in names or ():
    if name not in known:
      raise errors.InputError(
        f"--trajectories names {name}; there are {', '.join(known)}."
      )
  device = jax.devices()[0]
  print(f"{device.device_kind}, jax {jax.__version__}")
  too_large = 0
  for check in checks(names):
    allowed = "any" if check.allowed is None else f"{check.allowed:.1e}"
    print(
      f"{'ok  ' if check.is_good else 'OVER'} {check.name}: "
      f"{check.difference:.1e} (allowed {allowed})",
      flush=True,
    )
    too_large += not check.is_good
  return 1 if too_large else 0


if __name__ == "__main__":
  errors.run_command(main)
