"""Several processes, on one host or many, that train as one.

Each process drives its own devices and reads its own rows of the batch; the
others notice its end by the heartbeats of `jax.distributed`.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import json
import os
import socket
import sys
import time
import traceback
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from pcl_jax.common import errors
from pcl_jax.common import locks

# Environment variables in which launchers count the processes of a job, or its
# slices of TPUs.
_COUNTS = (
  "SLURM_STEP_NUM_TASKS",
  "OMPI_COMM_WORLD_SIZE",
  "MEGASCALE_NUM_SLICES",
)
_ADDRESS = "JAX_COORDINATOR_ADDRESS"
_TPU_HOSTS = "TPU_WORKER_HOSTNAMES"  # GKE; names separated by commas.
_CONNECT_S = 300.0
_HEARTBEAT_S = 20  # After this time a process that died is missed.
_SHUTDOWN_S = 20  # How long to wait for the others to end.
_ASK_AGAIN_S = 0.5
_LONGEST = 200  # Characters of a value in a message.


def are_expected(environment: Mapping[str, str] = os.environ) -> bool:
  """Tells whether a launcher has started this process as one of several."""
  counts = [environment.get(name, "") for name in _COUNTS]
  return (
    any(count.isdecimal() and int(count) > 1 for count in counts)
    or "," in environment.get(_TPU_HOSTS, "")
    or bool(environment.get(_ADDRESS))
  )


def are_asked_for(distributed: bool | None, **given: str | int | None) -> bool:
  """Tells whether a process is to join others.

  Args:
    distributed: what --distributed says; None where it is not given.
    **given: values of the flags that tell of the others, by name.

  Raises:
    InputError: flags tell of other processes, and --nodistributed of none.
  """
  names = [name for name, value in given.items() if value is not None]
  if distributed is False and names:
    raise errors.InputError(
      f"--{names[0]}={given[names[0]]} tells of other processes, and "
      "--nodistributed of none: leave one of them out."
    )
  if distributed is not None:
    return distributed
  return bool(names) or are_expected()


def connect(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Joins the other processes; must come before any device is used.

  Process 0 listens on the coordinator, HOST:PORT. Arguments that are None are
  taken from the environment of Slurm, Open MPI, GKE or Cloud TPU.

  Raises:
    InputError: an argument is neither given nor in the environment.
    RunError: process 0 did not answer.
  """
  if process_id is not None and num_processes is not None:
    if not 0 <= process_id < num_processes:
      raise errors.InputError(
        f"--process_id is {process_id} of --num_processes={num_processes}: "
        "processes are numbered from 0 to one less than their number."
      )
  coordinator = coordinator or os.environ.get(_ADDRESS)
  if coordinator is not None:
    _await_coordinator(coordinator, process_id)
  try:
    jax.distributed.initialize(
      coordinator,
      num_processes,
      process_id,
      initialization_timeout=int(_CONNECT_S),
      heartbeat_timeout_seconds=_HEARTBEAT_S,
      shutdown_timeout_seconds=_SHUTDOWN_S,
    )
  except ValueError as error:
    raise errors.InputError(
      f"--distributed: {error} Start each process with --coordinator=HOST:PORT "
      "--num_processes=N --process_id=0 (1, 2...), or all with srun, mpirun or "
      "on a TPU slice, whose environment says so."
    ) from error
  _check_even()


def _await_coordinator(coordinator: str, process_id: int | None) -> None:
  """Waits until process 0 listens; jax would end without a message."""
  host, _, port = coordinator.rpartition(":")
  if not host or not port.isdecimal():
    raise errors.InputError(
      f"--coordinator={coordinator} is not of the form HOST:PORT, as in "
      "--coordinator=node0:12355; give the address of process 0."
    )
  end = time.monotonic() + _CONNECT_S
  while process_id:
    try:
      socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
      return
    except OSError as error:
      if time.monotonic() > end:
        raise errors.RunError(
          f"process 0 does not answer at {coordinator} ({error}). Start it "
          f"within {_CONNECT_S:.0f} s of the others, and give all of them its "
          "address and a port that no firewall closes."
        ) from error
    time.sleep(_ASK_AGAIN_S)


def _check_even() -> None:
  counts = np.bincount([one.process_index for one in jax.devices()])
  if len(set(counts.tolist())) > 1:
    listed = ", ".join(f"{i}: {count}" for i, count in enumerate(counts))
    raise errors.InputError(
      f"the processes have different numbers of devices ({listed}): each reads "
      "an equal part of the batch. Start them on like hosts, or hide devices "
      "with CUDA_VISIBLE_DEVICES."
    )


def is_first() -> bool:
  """Tells whether this process is the one that writes and prints."""
  return jax.process_index() == 0


def await_first(task: Callable[[], None]) -> None:
  """Runs a task in process 0 while the others wait for its end."""
  if is_first():
    task()
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices("the first process's task")


def _gather(value: Any) -> list[Any]:
  """Returns each process's plain value, in the order of the processes."""
  coded = np.frombuffer(json.dumps(value).encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(len(coded)))
  padded = np.zeros(int(sizes.max()), np.uint8)
  padded[: len(coded)] = coded
  rows = multihost_utils.process_allgather(padded)
  return [
    json.loads(bytes(row[:size]))
    for row, size in zip(np.asarray(rows), sizes.tolist(), strict=True)
  ]


def text_of_first(text: str) -> str:
  """Returns the text of process 0, in all processes."""
  return text if jax.process_count() == 1 else _gather(text)[0]


@contextlib.contextmanager
def hold_workdir(workdir: str | os.PathLike[str]) -> Iterator[None]:
  """Holds a run's folder, as `locks.hold`, in the first process.

  Raises:
    InputError: another trainer holds it; raised in all processes.
  """
  refusal = ""
  with contextlib.ExitStack() as stack:
    if is_first():
      try:
        stack.enter_context(locks.hold(workdir, "a trainer"))
      except errors.InputError as error:
        refusal = str(error)
    refusal = text_of_first(refusal)
    if refusal:
      raise errors.InputError(f"--workdir: {refusal}")
    yield


def check_same(what: Mapping[str, Any]) -> None:
  """Refuses to train where the processes do not agree on values by name.

  Raises:
    InputError: some differ; the message has the values of two processes.
  """
  if jax.process_count() == 1:
    return
  first, *others = _gather(dict(what))
  for number, other in enumerate(others, start=1):
    differing = [
      f"{key} is {first.get(key)!r:.{_LONGEST}} in process 0 and "
      f"{other.get(key)!r:.{_LONGEST}} in process {number}"
      for key in sorted(first.keys() | other.keys())
      if first.get(key) != other.get(key)
    ]
    if differing:
      raise errors.InputError(
        f"the processes of this run differ: {'; '.join(differing)}. Start all "
        "with the same command line, data set and package versions."
      )


def run_command(main: Callable[[], int | None]) -> None:
  """Runs a command's `main`, whose failure ends all processes.

  A process that fails exits at once, since the others would wait for it at
  their exit for long. If process 0 fails, the others end with it; process 0
  misses the heartbeats of any other.
  """
  try:
    errors.run_command(main)
  except SystemExit as end:
    if end.code:
      _leave(int(end.code))
    raise
  except BaseException:
    _leave(errors.EXIT_FAILED, traceback.format_exc())
    raise


def _leave(code: int, said: str = "") -> None:
  # This is asked first, since counting processes initialises the devices.
  if jax.distributed.is_initialized() and jax.process_count() > 1:
    number = jax.process_index()
    said += f"process {number} ends with exit code {code}, and with it the run"
    print(said, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
