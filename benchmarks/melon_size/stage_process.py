"""Runs a stage in a process of its own, and watches its memory."""

import dataclasses
import multiprocessing
import multiprocessing.connection
import pathlib

from benchmarks.melon_size import data_stages
from benchmarks.melon_size import evaluation_stages
from benchmarks.melon_size import made_melon
from benchmarks.melon_size import stage_timing
from pcl_jax.common import errors

STAGES = data_stages.STAGES | evaluation_stages.STAGES
_LOOK_S = 0.05  # Between two looks at the memory.


@dataclasses.dataclass(frozen=True)
class Measured:
  """One stage.

  Attributes:
    wall_s: seconds of the whole, without what prepares it.
    processor_s: seconds of all cores in it.
    memory: most bytes of the process, mapped files left out.
    note: of what.
    part: whether a part was measured, and the seconds follow from it.
  """

  wall_s: float
  processor_s: float
  memory: int
  note: str
  part: bool


def run_here(name: str, folder: pathlib.Path, sizes: made_melon.Sizes) -> dict:
  """Runs a stage in this process; returns all fields but the memory."""
  run = STAGES[name](folder, sizes)
  begin = stage_timing.now()
  done = run()
  seconds = stage_timing.now() - begin
  if done.seconds is not None:
    seconds = done.seconds
  return {
    "wall_s": float(seconds[0]),
    "processor_s": float(seconds[1]),
    "note": done.note,
    "part": done.seconds is not None,
  }


def _child(
  pipe: multiprocessing.connection.Connection,
  name: str,
  folder: pathlib.Path,
  sizes: made_melon.Sizes,
) -> None:
  pipe.send(run_here(name, folder, sizes))


def _memory(pid: int) -> int:
  """Returns the bytes of a process that are no mapped file; 0 if it is gone."""
  try:
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
  except OSError:
    return 0
  found = [one.split()[1] for one in lines if one.startswith("RssAnon:")]
  return 1024 * int(found[0]) if found else 0


def measure(
  name: str, folder: pathlib.Path, sizes: made_melon.Sizes
) -> Measured:
  """Runs a stage in a new process.

  Args:
    name: of the stage, in `STAGES`.
    folder: the data set's, with metadata and vectors.
    sizes: how large it is.

  Raises:
    RunError: the process ended without a result.
  """
  context = multiprocessing.get_context("spawn")
  receiver, sender = context.Pipe(duplex=False)
  process = context.Process(target=_child, args=(sender, name, folder, sizes))
  process.start()
  sender.close()
  most = 0
  while not receiver.poll(_LOOK_S):
    most = max(most, _memory(process.pid))
  try:
    found = receiver.recv()
  except EOFError:
    found = None
  process.join()
  if found is None:
    raise errors.RunError(
      f"stage {name!r} ended with status {process.exitcode} and no result; "
      "what it printed is above. With too little memory, give fewer --songs."
    )
  return Measured(memory=most, **found)
