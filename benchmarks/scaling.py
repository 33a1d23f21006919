"""A training step on 1, 2, 4 and 8 devices, of the same global batch.

python -m benchmarks.scaling
python -m benchmarks.scaling --width=8 --batch=32 --rounds=3

On a CPU eight devices are forced on the cores there are: what is seen then is
the cost of splitting the batch and of joining gradients and statistics, not a
gain. On a machine with several GPUs or TPUs their own number is used. Prints
seconds of steps taken in turn, their ratio to those on one device, the share of
the ideal rate (1 / devices of the time; on forced devices, of the same time),
and how far the loss is from that on one device.
"""

import argparse
from collections.abc import Sequence

import jax

from benchmarks.parts import machine
from benchmarks.parts import step_forms
from pcl_jax.common import errors


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and measures."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  step_forms.add_flags(parser, batch=64)
  flags = parser.parse_args(argv)
  jax.config.update("jax_num_cpu_devices", 8)
  forced = jax.devices()[0].platform == "cpu"
  counts = [n for n in (1, 2, 4, 8) if n <= len(jax.devices())]
  made = {
    n: step_forms.make_step(flags.encoder, flags.width, flags.batch, n)
    for n in counts
  }
  first = {n: take() for n, (take, _) in made.items()}
  seconds = step_forms.time_in_turn(
    {n: take for n, (take, _) in made.items()}, flags.rounds
  )
  print(
    f"{machine.describe()}{', devices forced' if forced else ''}; "
    f"{flags.encoder}, {flags.batch} patches in all, {flags.rounds} rounds: "
    "median [least, most]"
  )
  for n, (_, bytes_) in made.items():
    ratios = [a / b for a, b in zip(seconds[n], seconds[1], strict=True)]
    shares = [1 / (ratio if forced else ratio * n) for ratio in ratios]
    print(
      f"{n} device(s)  {step_forms.spread(seconds[n])} s   "
      f"{step_forms.spread(ratios)} times   ideal "
      f"{step_forms.spread(shares)}   "
      f"{bytes_ / 1e6:,.0f} MB each   loss off by "
      f"{abs(first[n] / first[1] - 1):.1e}"
    )


if __name__ == "__main__":
  errors.run_command(main)
