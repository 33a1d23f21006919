"""Runs `python -m pcl_jax.checkpoint`."""

from pcl_jax.checkpoint import manager
from pcl_jax.common import errors

if __name__ == "__main__":
  errors.run_command(manager.main)
