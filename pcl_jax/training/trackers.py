"""Experiment trackers: TensorBoard, Weights & Biases and MLflow.

metrics.jsonl is what a run relies on. A tracker gets the same numbers, may fail
at any moment, and then costs one warning. Those that speak to a server do so in
a thread of their own, so that training never waits for them.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import importlib.util
import json
import os
import pathlib
import queue
import re
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from flax import traverse_util

from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import hosts
from pcl_jax.common import storage

if TYPE_CHECKING:  # The report imports this, and its extra lacks the package.
  import ml_collections

IDS = "trackers.json"  # In the workdir: the run's name on each server.
PROJECT = "pcl_jax"
_CONNECT_S = 15  # Then the numbers are kept, until there is a server.
_FLUSH_S = 20.0  # As long a run waits at its end for what is not yet sent.
_MOST_WAITING = 10_000  # Rows; a server that is so far behind is given up.
_NOT_IN_NAMES = re.compile(r"[^\w./: -]")  # MLflow allows no others.


@runtime_checkable
class Tracker(Protocol):
  """Takes numbers by name; any method may raise."""

  def add(self, row: Mapping[str, float | int], step: int) -> None:
    """Adds numbers, after so many steps."""

  def close(self) -> None:
    """Sends what is left."""


@dataclasses.dataclass(frozen=True)
class TrackedRun:
  """What a tracker is told of a run.

  Attributes:
    workdir: its folder.
    first_step: what was tracked after this step is overwritten.
    project: name of the project or experiment.
    name: name of the run.
    run_id: identity of the run on wandb; empty to have one made.
    config: every key of the config, by its dotted name.
  """

  workdir: pathlib.Path
  first_step: int = 0
  project: str = PROJECT
  name: str = ""
  run_id: str = ""
  config: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class _TensorBoard:
  """Event files, which a thread of the library writes."""

  def __init__(self, run: TrackedRun):
    import tensorboardX

    self._writer = tensorboardX.SummaryWriter(
      os.fspath(run.workdir / "tensorboard"),
      purge_step=run.first_step + 1 if run.first_step else None,
      flush_secs=10,
      # Holds whole rows: adding must not wait for a thread that died amid one.
      max_queue=1_000,
    )

  def add(self, row: Mapping[str, float | int], step: int) -> None:
    # A dead thread would let the queue fill up and block.
    if not self._writer.file_writer.event_writer._worker.is_alive():
      raise RuntimeError("its thread has died")
    for name, value in row.items():
      self._writer.add_scalar(name, value, step)

  def close(self) -> None:
    self._writer.close()


class _Wandb:
  """A run of Weights & Biases; without a server it is kept in the workdir."""

  def __init__(self, run: TrackedRun):
    import wandb

    ids = _read_ids(run.workdir)
    name = run.run_id or ids.get("wandb") or secrets.token_hex(4)
    _keep_id(run.workdir, "wandb", name)

    def start(**how: Any) -> Any:
      return wandb.init(
        project=run.project,
        name=run.name,
        id=name,
        resume="allow",
        dir=os.fspath(run.workdir),
        config=dict(run.config),
        settings=wandb.Settings(console="off", init_timeout=_CONNECT_S),
        **how,
      )

    try:
      # It would ask for a key on the terminal, in the midst of the training.
      is_online = os.environ.get("WANDB_MODE", "online") == "online"
      if is_online and not wandb.login(prompt=False, verify=False):
        raise ConnectionError("no API key; `wandb login` keeps one")
      self._run = start()
    except Exception as error:  # noqa: BLE001  Whatever it raises.
      console.warn(
        f"wandb cannot be used as it is set ({_reason(error)}): its numbers "
        f"are kept in {run.workdir / 'wandb'}; `wandb sync` sends them later"
      )
      wandb.teardown()  # It holds the run that could not be started.
      self._run = start(mode="offline")
    # Not wandb's own step: that cannot go back to where a run goes on from.
    self._run.define_metric("*", step_metric="step")

  def add(self, row: Mapping[str, float | int], step: int) -> None:
    self._run.log({**row, "step": step})

  def close(self) -> None:
    self._run.finish()


class _Mlflow:
  """A run of MLflow, on the server or in the file that MLflow is set to."""

  def __init__(self, run: TrackedRun):
    import mlflow
    from mlflow import entities

    self._entities, self._client = entities, mlflow.MlflowClient()
    there = _read_ids(run.workdir).get("mlflow")
    if there:
      self._id = there
      self._client.update_run(there, status="RUNNING")
      return
    found = self._client.get_experiment_by_name(run.project)
    experiment = (
      found.experiment_id
      if found
      else self._client.create_experiment(run.project)
    )
    made = self._client.create_run(experiment, run_name=run.name)
    self._id = made.info.run_id
    _keep_id(run.workdir, "mlflow", self._id)
    params = [
      entities.Param(key, str(value)) for key, value in run.config.items()
    ]
    self._client.log_batch(self._id, params=params)

  def add(self, row: Mapping[str, float | int], step: int) -> None:
    now_ms = int(time.time() * 1000)
    self._client.log_batch(
      self._id,
      metrics=[
        self._entities.Metric(_NOT_IN_NAMES.sub("-", name), value, now_ms, step)
        for name, value in row.items()
      ],
    )

  def close(self) -> None:
    self._client.set_terminated(self._id)


def _reason(error: Exception) -> str:
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:200]


def _read_ids(workdir: pathlib.Path) -> dict[str, str]:
  path = workdir / IDS
  return storage.read_json(path) if path.exists() else {}


_ids_lock = threading.Lock()


def _keep_id(workdir: pathlib.Path, tracker: str, name: str) -> None:
  with _ids_lock:
    ids = _read_ids(workdir)
    if ids.get(tracker) != name:
      storage.write_json(workdir / IDS, ids | {tracker: name})


class _InThread:
  """Opens and feeds a tracker in a thread, which training does not wait for."""

  def __init__(self, open_tracker: Callable[[], Tracker]):
    self._rows: queue.Queue = queue.Queue(_MOST_WAITING)
    self._error: Exception | None = None
    self._thread = threading.Thread(
      target=self._work, args=(open_tracker,), daemon=True
    )
    self._thread.start()

  def _work(self, open_tracker: Callable[[], Tracker]) -> None:
    try:
      tracker = open_tracker()
      while (row := self._rows.get()) is not None:
        tracker.add(*row)
      tracker.close()
    except Exception as error:  # noqa: BLE001  Raised where training sees it.
      self._error = error

  def add(self, row: Mapping[str, float | int], step: int) -> None:
    if self._error is not None:
      raise self._error
    self._rows.put_nowait((row, step))

  def close(self) -> None:
    self._rows.put_nowait(None)
    self._thread.join(_FLUSH_S)
    if self._error is not None:
      raise self._error
    if self._thread.is_alive():
      raise TimeoutError(f"it did not take all within {_FLUSH_S:.0f} s")


@dataclasses.dataclass(frozen=True)
class _Kind:
  label: str
  module: str
  extra: str
  open_tracker: Callable[[TrackedRun], Tracker]


_KINDS = {
  "tensorboard": _Kind("TensorBoard", "tensorboardX", "all", _TensorBoard),
  "wandb": _Kind(
    "wandb", "wandb", "wandb", lambda run: _InThread(lambda: _Wandb(run))
  ),
  "mlflow": _Kind(
    "MLflow", "mlflow", "mlflow", lambda run: _InThread(lambda: _Mlflow(run))
  ),
}


class _Guarded:
  """A tracker that may fail once, which is said, and is left alone then."""

  def __init__(self, kind: _Kind, run: TrackedRun):
    self._label, self._tracker = kind.label, None
    self._tracker = self._attempt(lambda: kind.open_tracker(run))

  def _attempt(self, act: Callable[[], Any]) -> Any:
    try:
      return act()
    except Exception as error:  # noqa: BLE001  Whatever a tracker raises.
      self._tracker = None
      console.warn(
        f"no more numbers are given to {self._label} "
        f"({type(error).__name__}: {_reason(error)}). Training goes on; "
        "metrics.jsonl has all numbers"
      )

  def add(self, row: Mapping[str, float | int], step: int) -> None:
    if self._tracker is not None:
      self._attempt(lambda: self._tracker.add(row, step))

  def close(self) -> None:
    if self._tracker is not None:
      self._attempt(lambda: self._tracker.close())


def check(names: Sequence[str]) -> None:
  """Refuses trackers that do not exist or are not installed.

  Raises:
    InputError: names the tracker, and what to install.
  """
  for name in names:
    if name not in _KINDS:
      raise errors.InputError(
        f"config.trackers has {name!r}; it holds any of {', '.join(_KINDS)}: "
        """give --config.trackers="('tensorboard','wandb')", or ()."""
      )
    kind = _KINDS[name]
    if importlib.util.find_spec(kind.module) is None:
      raise errors.InputError(
        f"config.trackers has {name!r}, and the package {kind.module} is not "
        f'installed: install it with pip install "pcl_jax[{kind.extra}]", or '
        "leave it out."
      )


def open_all(
  config: "ml_collections.ConfigDict", workdir: pathlib.Path, first_step: int
) -> list[Tracker]:
  """Opens the trackers of a config in the first process; others have none.

  Args:
    config: of the run.
    workdir: its folder.
    first_step: the step that it goes on from.
  """
  if not hosts.is_first():
    return []
  names = config.wandb_params
  run = TrackedRun(
    workdir=workdir,
    first_step=first_step,
    project=names.project or PROJECT,
    name=names.run_name or file_names.shown(workdir.absolute().name),
    run_id=names.run_id,
    config=traverse_util.flatten_dict(json.loads(config.to_json()), sep="."),
  )
  return [_Guarded(_KINDS[name], run) for name in config.trackers]
