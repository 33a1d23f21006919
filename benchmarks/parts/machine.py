"""What a benchmark says of the machine it ran on."""

import os
import pathlib
import platform

import jax
import numpy as np


def _processor() -> str:
  cpuinfo = pathlib.Path("/proc/cpuinfo")
  if cpuinfo.exists():
    for line in cpuinfo.read_text().splitlines():
      if line.startswith("model name"):
        return line.partition(":")[2].strip()
  return platform.processor() or platform.machine()


def describe() -> str:
  """Names processor, cores, load, device and versions, in one line."""
  return (
    f"{_processor()} ({platform.machine()}), "
    f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, "
    f"Python {platform.python_version()}, numpy {np.__version__}, "
    f"jax {jax.__version__} on {jax.devices()[0].device_kind}"
  )
