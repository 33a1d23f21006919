"""What is said to people while a run goes on."""

import sys

import tqdm

from pcl_jax.common import hosts


def say(text: str) -> None:
  """Prints a line above the progress bar; of several processes the first."""
  if not hosts.is_first():
    return
  tqdm.tqdm.write(text, file=sys.stdout)
  sys.stdout.flush()


def warn(text: str) -> None:
  """Prints a warning, from whichever process it comes."""
  tqdm.tqdm.write(f"warning: {text}", file=sys.stderr)
  sys.stderr.flush()
