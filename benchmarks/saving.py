"""What a checkpoint costs the training that goes on meanwhile.

python -m benchmarks.saving --out=/tmp/saving
python -m benchmarks.saving --out=/tmp/saving --encoder=sc_cnn --step_s=0.2

Saves the state of a network of the paper's size again and again and prints how
long a save holds training up, how long it goes on in the background, and the
first as a share of the steps between two saves. --step_s is the duration of a
step; the default is that of docs/benchmarks.md, of 64 patches on two cores. It
also prints the shortest step at which a save still costs 5 % of the default
interval.
"""

import argparse
from collections.abc import Sequence
import os
import platform
import time

from flax import nnx
import jax

from benchmarks.parts import step_forms
from configs import common
from pcl_jax.checkpoint import manager
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.models import audio_encoder
from pcl_jax.models import encoders
from pcl_jax.training import optimizers
from pcl_jax.training import train_step

_ALLOWED = 0.05


def _state(encoder: str) -> train_step.State:
  model = encoders.Encoders(
    audio_params={"backbone_type": encoder}, rngs=nnx.Rngs(0)
  )
  _, state = train_step.new_state(model, optimizers.make_optimizer(1e-4, 0.0))
  everywhere = jax.NamedSharding(
    train_step.make_mesh(jax.devices()[:1]), jax.P()
  )
  # Adam's moments, which are zeros at first, would be too easy to compress.
  state["opt_state"] = jax.tree.map(
    lambda x: (
      jax.random.normal(jax.random.key(x.size), x.shape, x.dtype)
      if x.ndim
      else x
    ),
    state["opt_state"],
  )
  return jax.device_put(state, everywhere)


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and measures."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--out", type=file_names.path, required=True, help="folder for checkpoints"
  )
  parser.add_argument(
    "--encoder", choices=audio_encoder.BACKBONES, default="resnet"
  )
  parser.add_argument("--step_s", type=float, default=1.69)
  parser.add_argument("--rounds", type=int, default=7)
  flags = parser.parse_args(argv)
  state = jax.block_until_ready(_state(flags.encoder))
  megabytes = sum(x.nbytes for x in jax.tree.leaves(state)) / 1e6
  checkpoints = manager.Checkpoints(flags.out)
  blocking, whole = [], []
  for step in range(1, flags.rounds + 2):
    begin = time.perf_counter()
    checkpoints.save(state, {"progress": {"step": step}}, {"total": 1 / step})
    blocking.append(time.perf_counter() - begin)
    checkpoints.wait()
    whole.append(time.perf_counter() - begin)
  checkpoints.finish()
  checkpoints.close()
  interval = common.get_config().save_every_steps
  shares = [100 * s / (interval * flags.step_s) for s in blocking[1:]]
  print(
    f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python "
    f"{platform.python_version()}, jax {jax.__version__} on "
    f"{jax.devices()[0].device_kind}; {flags.encoder}, {megabytes:.0f} MB, "
    f"{flags.rounds} rounds: median [least, most]\n"
    f"a save holds training up  {step_forms.spread(blocking[1:])} s "
    f"(the first {blocking[0]:.3g} s)\n"
    f"until it is on file       {step_forms.spread(whole[1:])} s\n"
    f"share of {interval} steps of {flags.step_s} s: "
    f"{step_forms.spread(shares)} %\n"
    f"5 % of {interval} steps for steps of "
    f"{max(blocking[1:]) / _ALLOWED / interval:.3g} s or more"
  )


if __name__ == "__main__":
  errors.run_command(main)
