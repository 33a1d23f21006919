"""The processor cores that this process may use."""

import os


def count() -> int:
  """Returns how many cores this process may use, which may not be all."""
  try:
    return len(os.sched_getaffinity(0))
  except AttributeError:  # Only Linux has it.
    return os.cpu_count() or 1
