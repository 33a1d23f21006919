"""Memory and time of a training step that saves memory, in several forms.

python -m benchmarks.memory
python -m benchmarks.memory --encoder=sc_cnn --batch=32 --parts=1,4 --rounds=3

Takes the whole batch at once, in microbatches, with remat, and
with both. Prints the memory that XLA plans for what lives within a step (not
the weights and the batch), the seconds of steps taken in turn, and both as a
share of those of the whole batch.
"""

import argparse
from collections.abc import Sequence
import itertools

from benchmarks.parts import machine
from benchmarks.parts import step_forms
from pcl_jax.common import errors


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and measures."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  step_forms.add_flags(parser, batch=128)
  parser.add_argument(
    "--parts",
    type=lambda text: [int(part) for part in text.split(",")],
    default="1,2,4,8",
    help="numbers of microbatches; 1 is the whole batch and always taken",
  )
  flags = parser.parse_args(argv)
  parts = sorted({1, *flags.parts})
  made = {
    form: step_forms.make_step(
      flags.encoder,
      flags.width,
      flags.batch,
      1,
      microbatches=form[0],
      remat=form[1],
    )
    for form in itertools.product(parts, (False, True))
  }
  seconds = step_forms.time_in_turn(
    {form: take for form, (take, _) in made.items()}, flags.rounds
  )
  print(
    f"{machine.describe()}; {flags.encoder}, {flags.batch} patches, "
    f"{flags.rounds} rounds: median [least, most]"
  )
  for form, (_, bytes_) in made.items():
    ratios = [
      a / b for a, b in zip(seconds[form], seconds[1, False], strict=True)
    ]
    print(
      f"{form[0]} part(s){', remat' if form[1] else '':<16} "
      f"{bytes_ / 1e6:>8,.0f} MB ({bytes_ / made[1, False][1]:.2f})   "
      f"{step_forms.spread(seconds[form])} s   "
      f"{step_forms.spread(ratios)} times"
    )


if __name__ == "__main__":
  errors.run_command(main)
