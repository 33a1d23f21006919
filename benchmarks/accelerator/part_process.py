"""A part in a process of its own, which is stopped when its time is over."""

import argparse
from collections.abc import Sequence
import contextlib
import importlib
import os
import pathlib
import signal
import subprocess
import sys
import time

from benchmarks.accelerator import part_context
from benchmarks.accelerator import part_list

_TO_END_S = 8.0  # Between SIGTERM and SIGKILL.
_SPARED = 0.05  # Share of its time in which a part should end by itself.


def _environment(scratch: pathlib.Path, tiny: bool) -> dict[str, str]:
  """Returns the variables of a part; what the user has set stays."""
  quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} if tiny else {}
  found = {
    # Two programs share the device: JAX shall not take most of it.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "JAX_COMPILATION_CACHE_DIR": str(scratch / "compiled"),
    "PYTHONUNBUFFERED": "1",
    "TF_CPP_MIN_LOG_LEVEL": "1",
  }
  found |= quick | os.environ
  path = [str(part_context.ROOT), found.get("PYTHONPATH", "")]
  return found | {"PYTHONPATH": os.pathsep.join(filter(None, path))}


def _signal(group: int, number: int) -> None:
  with contextlib.suppress(ProcessLookupError):
    os.killpg(group, number)


def run(
  name: str, flags: argparse.Namespace, seconds: float
) -> tuple[int | None, float]:
  """Runs a part; its output goes to NAME.log.

  All processes that it started end with it, except those in sessions of their
  own.

  Args:
    name: of the part.
    flags: of the command.
    seconds: after which it is stopped.

  Returns:
    Its exit code, None if it was stopped, and the seconds it took.
  """
  begin = time.monotonic()
  words = [
    sys.executable,
    "-m",
    "benchmarks.accelerator.part_process",
    name,
    f"--out={flags.out}",
    f"--scratch={flags.scratch}",
    f"--seconds={seconds * (1 - _SPARED)}",
    *(["--tiny"] if flags.tiny else []),
    *([f"--tree={flags.tree}"] if flags.tree else []),
  ]
  with open(flags.out / f"{name}.log", "a") as log:
    process = subprocess.Popen(
      words,
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
      cwd=part_context.ROOT,
      env=_environment(flags.scratch, flags.tiny),
      start_new_session=True,
    )
    code = None
    try:
      code = process.wait(seconds)
    except subprocess.TimeoutExpired:
      _signal(process.pid, signal.SIGTERM)
      with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_TO_END_S)
    finally:
      _signal(process.pid, signal.SIGKILL)
      process.wait()
  return code, time.monotonic() - begin


def main(argv: Sequence[str] | None = None) -> None:
  """Measures one part, as `run` asks for it."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("name", choices=part_list.PARTS)
  parser.add_argument("--out", type=pathlib.Path, required=True)
  parser.add_argument("--scratch", type=pathlib.Path, required=True)
  parser.add_argument("--seconds", type=float, required=True)
  parser.add_argument("--tiny", action="store_true")
  parser.add_argument("--tree", type=pathlib.Path)
  flags = parser.parse_args(argv)
  module = part_list.PARTS[flags.name].module
  importlib.import_module(f"benchmarks.accelerator.parts.{module}").measure(
    part_context.Context(
      part=flags.name,
      out=flags.out,
      scratch=flags.scratch,
      tiny=flags.tiny,
      tree=flags.tree,
      ends_at=time.time() + flags.seconds,
    )
  )


if __name__ == "__main__":
  main()
