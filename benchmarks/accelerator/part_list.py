"""The parts, in their order, and the time that each is given."""

import dataclasses

from pcl_jax.common import errors

_TO_STOP_S = 10.0  # For a part that has to be stopped.


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of the benchmark: a module of this package with `measure`.

  Attributes:
    module: its name.
    most_s: seconds after which it is stopped.
    least_s: with fewer seconds left it does not begin.
  """

  module: str
  most_s: float
  least_s: float


# What answers the largest questions comes first.
PARTS = {
  "environment": Part("environment", 120, 20),
  "sample": Part("sample_songs", 20, 5),
  "parity": Part("parity", 240, 60),
  "steps_resnet": Part("step_race", 480, 90),
  "steps_sc_cnn": Part("step_race", 480, 90),
  "loop": Part("loop_runs", 540, 90),
  "resident": Part("resident_cut", 120, 20),
  "hybrid": Part("hybrid_run", 480, 120),
  "smoke": Part("smoke_runs", 400, 90),
  "loss": Part("tiled_loss", 240, 30),
  "determinism": Part("same_bits", 480, 60),
  "embedding": Part("embedding_rates", 240, 30),
  "search": Part("search_times", 240, 60),
  "warp": Part("warp_epochs", 180, 40),
  "flags": Part("xla_flags", 480, 60),
}


def chosen(text: str | None) -> list[str]:
  """Returns the parts that a list names, in the order of `PARTS`.

  Args:
    text: names with commas between; what stands before an underscore names all
      parts that begin with it (`steps`). All parts where it is None.

  Raises:
    InputError: a name is no part.
  """
  if text is None:
    return list(PARTS)
  wanted = [word.strip() for word in text.split(",") if word.strip()]
  groups = {name: {name, name.partition("_")[0]} for name in PARTS}
  known = set.union(*groups.values())
  unknown = [word for word in wanted if word not in known]
  if unknown or not wanted:
    raise errors.InputError(
      f"--parts={text} names {', '.join(unknown) or 'nothing'}, and the parts "
      f"are {', '.join(PARTS)} (steps is both of its kind)."
    )
  return [name for name in PARTS if groups[name] & set(wanted)]


def allotted(part: Part, left_s: float) -> float | None:
  """Returns the seconds that a part gets, None where it must be left out.

  Args:
    part: that would begin now.
    left_s: seconds until all has to be over.
  """
  seconds = min(part.most_s, left_s - _TO_STOP_S)
  return seconds if seconds >= part.least_s else None
