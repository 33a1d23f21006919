"""The golden numbers of the published code, on the device there is."""

from benchmarks.accelerator import part_context
from tests import on_accelerator

_TO_COMPILE_S = 30.0


def measure(context: part_context.Context) -> None:
  """Records each difference from a golden number, and what it may be."""
  names = on_accelerator.TRAJECTORIES[:1] if context.tiny else None
  for check in on_accelerator.checks(names):
    context.record(
      check.name,
      difference=check.difference,
      allowed=check.allowed,
      error=None if check.is_good else "too large",
    )
    if not context.has(_TO_COMPILE_S, "what follows"):
      break
