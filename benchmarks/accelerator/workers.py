"""Processes that hold compiled steps and take some whenever they are asked.

So steps of several programs, of several checkouts even, are taken in turn on
one device. Requests and answers are lines of JSON.
"""

from collections.abc import Callable, Mapping
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import traceback
from typing import Any, Protocol

from benchmarks.accelerator import part_context
from pcl_jax.common import errors


class Steps(Protocol):
  """A program that takes a step of training at a time."""

  def take(self) -> Any:
    """Begins a step; returns what there is to wait for."""

  def wait(self, last: Any) -> None:
    """Waits until a step is done."""

  def digest(self, count: int) -> str:
    """Takes so many steps from the first state; returns their bits' digest."""


def serve(prepare: Callable[..., tuple[Steps, dict[str, Any]]]) -> None:
  """Answers requests on the standard input until it ends.

  Args:
    prepare: (**settings) -> what takes steps, and what there is to tell.
  """
  # Whatever else prints goes to the log.
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  held: dict[str, Steps] = {}
  for line in sys.stdin:
    try:
      answer = _answer(json.loads(line), held, prepare)
    except Exception as error:  # Out of memory, a compiler's: others go on.
      traceback.print_exc()
      first = (str(error).splitlines() or [""])[0]
      answer = {"error": f"{type(error).__name__}: {first[:300]}"}
    print(json.dumps(answer), file=answers, flush=True)


def _answer(
  request: dict[str, Any], held: dict[str, Steps], prepare: Callable
) -> dict[str, Any]:
  do, name = request.pop("do"), request.pop("name")
  if do == "prepare":
    begin = time.perf_counter()
    steps, about = prepare(**request)
    for _ in range(3):
      steps.wait(steps.take())
    held[name] = steps
    return about | {"ready_s": round(time.perf_counter() - begin, 1)}
  if do == "digest":
    return {"digest": held[name].digest(request["count"])}
  begin = time.perf_counter()
  for _ in range(request["count"]):
    last = held[name].take()
  held[name].wait(last)
  return {"seconds": (time.perf_counter() - begin) / request["count"]}


class Worker:
  """A worker process, as the part that asks it sees it."""

  def __init__(
    self,
    module: str,
    *,
    tree: pathlib.Path | None = None,
    environment: Mapping[str, str] | None = None,
  ):
    """Starts it.

    Args:
      module: of this package, which calls `serve`.
      tree: a checkout whose pcl_jax and configs it takes; None for this one.
      environment: variables in addition to those of this process.
    """
    self._stack = contextlib.ExitStack()
    folder = part_context.ROOT
    if tree is not None:
      # Found before this checkout's; benchmarks and tests are this one's.
      made = self._stack.enter_context(tempfile.TemporaryDirectory())
      folder = pathlib.Path(made)
      for name in ("pcl_jax", "configs"):
        (folder / name).symlink_to(tree / name)
    path = [str(folder), os.environ.get("PYTHONPATH", "")]
    self._process = subprocess.Popen(
      [sys.executable, "-m", f"benchmarks.accelerator.{module}"],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      cwd=folder,
      env={**os.environ, **(environment or {})}
      | {"PYTHONPATH": os.pathsep.join(filter(None, path))},
    )

  def ask(self, do: str, name: str, **settings: Any) -> dict[str, Any]:
    """Has it do something; returns its answer.

    Args:
      do: prepare, take or digest.
      name: of the program.
      **settings: what `serve` says of it.

    Raises:
      RunError: it could not, or it is no longer there.
    """
    try:
      print(
        json.dumps({"do": do, "name": name} | settings),
        file=self._process.stdin,
        flush=True,
      )
      line = self._process.stdout.readline()
    except BrokenPipeError:
      line = ""
    if not line:
      raise errors.RunError(f"its process ended ({self._process.wait()})")
    answer = json.loads(line)
    if "error" in answer:
      raise errors.RunError(answer["error"])
    return answer

  def close(self) -> None:
    """Ends it."""
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    self._process.wait()
    self._process.stdout.close()
    self._stack.close()
