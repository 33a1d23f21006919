"""Runs `python -m pcl_jax.evaluation.robustness`."""

from absl import logging

from pcl_jax.common import errors
from pcl_jax.evaluation.robustness import command

if __name__ == "__main__":
  logging.set_verbosity(logging.ERROR)  # Orbax warns of reading only.
  errors.run_command(command.main)
