"""Commands of the project, as a user types them, for the parts that need runs.

Their output goes to the log of the part.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time

from benchmarks.accelerator import part_context
from pcl_jax.common import errors

ON_CPU = {"JAX_PLATFORMS": "cpu"}


def start(
  *words: str | pathlib.Path,
  root: pathlib.Path = part_context.ROOT,
  environment: dict[str, str] | None = None,
  log: pathlib.Path | None = None,
) -> subprocess.Popen:
  """Starts Python with some words, in a checkout of the project.

  Args:
    *words: of the command line.
    root: the checkout's folder.
    environment: variables in addition to those of this process.
    log: file for its output; None for the part's.
  """
  path = [str(root), os.environ.get("PYTHONPATH", "")]
  variables = {**os.environ, **(environment or {})}
  variables["PYTHONPATH"] = os.pathsep.join(filter(None, path))
  print("$", *words, flush=True)
  output = None if log is None else open(log, "a")  # noqa: SIM115
  try:
    return subprocess.Popen(
      [sys.executable, *map(str, words)],
      cwd=root,
      env=variables,
      stdout=output,
      stderr=None if log is None else subprocess.STDOUT,
    )
  finally:
    if output is not None:
      output.close()


def finish(
  process: subprocess.Popen, seconds: float, *, ask_at: float | None = None
) -> float:
  """Waits for a command; returns for how long.

  Args:
    process: of the command.
    seconds: after which it is killed.
    ask_at: seconds after which it gets SIGTERM, upon which training saves.

  Raises:
    RunError: it failed, or was killed.
  """
  begin = time.monotonic()
  try:
    if ask_at is not None:
      try:
        process.wait(ask_at)
      except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
    process.wait(max(seconds, 1.0))
  except subprocess.TimeoutExpired:
    process.kill()
    process.wait()
    raise errors.RunError(
      f"{' '.join(process.args[1:4])} was killed after {seconds:.0f} s"
    ) from None
  if process.returncode:
    raise errors.RunError(
      f"{' '.join(process.args[1:4])} ended with exit code {process.returncode}"
    )
  return time.monotonic() - begin


def make_sample(
  out: pathlib.Path, songs: int, seconds: float
) -> list[str | pathlib.Path]:
  """Returns the words that synthesise a sample."""
  words = ["-m", "preprocessing.sample_data", f"--out={out}"]
  return words + [f"--songs={songs}", f"--seconds={seconds}"]
