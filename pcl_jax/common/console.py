"""Lines printed while a progress bar is shown."""

import sys

import tqdm

from pcl_jax.common import hosts


def say(text: str) -> None:
  """Prints a line above the progress bar; only the first process does."""
  if not hosts.is_first():
    return
  tqdm.tqdm.write(text, file=sys.stdout)
  sys.stdout.flush()


def warn(text: str) -> None:
  """Prints a warning above the progress bar, in any process."""
  tqdm.tqdm.write(f"warning: {text}", file=sys.stderr)
  sys.stderr.flush()
