"""A Slurm of its own: two nodes on the loopback, with own ports and files.

Needs Debian's slurmctld, slurmd, slurm-client and munge. Nothing of them has to
run, and nothing in /etc is read or changed.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import getpass
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import time

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
# By these names the nodes find each other; the first is where JAX's processes
# meet. The name `localhost` would stand for all nodes of a machine.
NODES = ("127.0.0.1", "127.0.0.2")
LOW, HIGH = (
  "low",
  "high",
)  # Partitions; a job of the second pre-empts the first.
_LIMIT_S = 300.0
_END_S = 30.0
_ASK_AGAIN_S = 0.05
_PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])

_CONFIG = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool_%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd_%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=120
ReturnToService=2
{nodes}
PartitionName={low} Nodes=ALL Default=YES PriorityTier=1 GraceTime=120
PartitionName={high} Nodes=ALL PriorityTier=2 PreemptMode=OFF
"""


def missing() -> list[str]:
  """Returns the programs that are not installed."""
  return [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]


def until(is_so: Callable[[], bool], what: str) -> None:
  """Waits until something is so.

  Raises:
    TimeoutError: it is not, after minutes.
  """
  end = time.monotonic() + _LIMIT_S
  while not is_so():
    if time.monotonic() > end:
      raise TimeoutError(what)
    time.sleep(_ASK_AGAIN_S)


def _free_ports(count: int) -> list[int]:
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
    for one in sockets:
      one.bind(("127.0.0.1", 0))
    return [one.getsockname()[1] for one in sockets]


class SlurmCluster:
  """Runs Slurm's commands; made by `running`."""

  def __init__(self, folder: pathlib.Path):
    self._environment = os.environ | {
      "SLURM_CONF": os.fspath(folder / "slurm.conf"),
      "PATH": _PATH,
    }

  def run(self, *command: str, **how: object) -> str:
    """Runs a command; returns what it prints.

    Raises:
      CalledProcessError: it failed.
    """
    environment = self._environment | how.pop("env", {})
    return subprocess.run(
      command,
      env=environment,
      stdout=subprocess.PIPE,
      text=True,
      check=True,
      timeout=_LIMIT_S,
      **how,
    ).stdout.strip()

  def start(self, *command: str, log: pathlib.Path) -> subprocess.Popen:
    """Starts a daemon of the cluster."""
    with log.open("wb") as said:
      return subprocess.Popen(
        command,
        env=self._environment,
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=subprocess.STDOUT,
        start_new_session=True,
      )

  def facts(self, job: str) -> dict[str, str]:
    """Returns what `scontrol` says of a job, by name."""
    words = self.run("scontrol", "--oneliner", "show", "job", job).split()
    return dict(word.split("=", 1) for word in words if "=" in word)

  def await_state(self, job: str, state: str) -> dict[str, str]:
    """Waits for a state of a job; returns the facts."""
    until(
      lambda: self.facts(job)["JobState"] == state, f"job {job} to be {state}"
    )
    return self.facts(job)

  def start_again(self, job: str) -> None:
    """Starts a job that was requeued; by itself Slurm waits two minutes.

    In the second in which a node has revoked the job's credential, it would
    refuse a new one, and the job would fail. On a slow machine nodes may end
    the job later than it is pending.
    """
    self.await_state(job, "PENDING")
    until(lambda: _are_idle(self), "two idle nodes")
    self.run("scontrol", "update", f"JobId={job}", "StartTime=now+3")


@contextlib.contextmanager
def running(folder: pathlib.Path) -> Iterator[SlurmCluster]:
  """Starts a cluster with files in a folder; ends it, and its jobs."""
  controller, *ports = _free_ports(1 + len(NODES))
  nodes = [
    f"NodeName={name} NodeAddr={name} Port={port} CPUs=1"
    for name, port in zip(NODES, ports, strict=True)
  ]
  (folder / "state").mkdir()
  (folder / "slurm.conf").write_text(
    _CONFIG.format(
      folder=folder,
      user=getpass.getuser(),
      controller=controller,
      nodes="\n".join(nodes),
      low=LOW,
      high=HIGH,
    )
  )
  (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
  (folder / "munge.key").chmod(0o600)
  cluster = SlurmCluster(folder)
  daemons: list[subprocess.Popen] = []
  try:
    for command in _daemons(folder):
      log = folder / f"{pathlib.Path(command[0]).name}_{len(daemons)}.log"
      daemons.append(cluster.start(*command, log=log))
      if command[0] == "munged":
        until((folder / "munge.socket").exists, "munged's socket")
    until(lambda: _are_idle(cluster), f"two idle nodes; see {folder}")
    yield cluster
  finally:
    with contextlib.suppress(subprocess.CalledProcessError, TimeoutError):
      cluster.run("scancel", f"--user={getpass.getuser()}")
      until(lambda: not cluster.run("squeue", "--noheader"), "no jobs")
    _end(daemons)


def _daemons(folder: pathlib.Path) -> Iterator[Sequence[str]]:
  files = {
    "key-file": "munge.key",
    "socket": "munge.socket",
    "pid-file": "munge.pid",
    "log-file": "munge.log",
    "seed-file": "munge.seed",
  }
  named = [f"--{flag}={folder / name}" for flag, name in files.items()]
  yield "munged", "--foreground", "--force", *named
  yield "slurmctld", "-D"
  for name in NODES:
    yield "slurmd", "-D", "-N", name


def _are_idle(cluster: SlurmCluster) -> bool:
  try:
    states = cluster.run(
      "sinfo",
      "--Node",
      "--noheader",
      f"--partition={LOW}",
      "--format=%t",
      stderr=subprocess.DEVNULL,
    )
  except subprocess.CalledProcessError:  # The controller does not listen yet.
    return False
  return states.split() == ["idle"] * len(NODES)


def _end(daemons: Sequence[subprocess.Popen]) -> None:
  """Ends all daemons, in the order opposite to that of their start."""
  for one in reversed(daemons):
    one.terminate()
    try:
      one.wait(_END_S)
    except subprocess.TimeoutExpired:
      one.kill()
      one.wait()
