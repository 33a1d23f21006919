"""Tests of experiment trackers, with stand-ins and with the real ones."""

import json
import sys
import threading
import types

import pytest

from configs import common
from pcl_jax.common import errors
from pcl_jax.common import hosts
from pcl_jax.training import metric_writers
from pcl_jax.training import trackers
from tests.support import event_files
from tests.support.tiny import tiny_run


class _Wandb(types.ModuleType):
  """Stands for wandb: notes what it is told."""

  def __init__(self, fault=""):
    super().__init__("wandb")
    self.__spec__ = types.SimpleNamespace(name="wandb")
    self.fault, self.started, self.rows, self.ended = fault, [], [], 0
    self.has_key = True

  def login(self, *, prompt, verify):
    assert (prompt, verify) == (False, False)
    return self.has_key

  def teardown(self):
    self.started.append({"mode": "torn down"})

  def Settings(self, **how):  # noqa: N802
    return how

  def init(self, **how):
    self.started.append(how)
    if self.fault == "server" and "mode" not in how:
      raise ConnectionError("no answer")
    if self.fault == "opening":
      raise RuntimeError("it is\nbroken")
    return self

  def define_metric(self, name, step_metric):
    assert (name, step_metric) == ("*", "step")

  def log(self, row):
    if self.fault == "writing":
      raise RuntimeError("it is broken")
    self.rows.append(row)

  def finish(self):
    self.ended += 1
    if self.fault == "closing":
      raise RuntimeError("it is broken")


class _Mlflow(types.ModuleType):
  """Stands for mlflow and its client: notes what it is told."""

  def __init__(self):
    super().__init__("mlflow")
    self.__spec__ = types.SimpleNamespace(name="mlflow")
    self.entities = types.SimpleNamespace(
      Metric=lambda key, value, timestamp, step: (key, value, step),
      Param=lambda key, value: (key, value),
    )
    self.metrics, self.params, self.made, self.states = [], [], [], []

  def MlflowClient(self):  # noqa: N802
    return self

  def get_experiment_by_name(self, name):
    return None if not self.made else types.SimpleNamespace(experiment_id=name)

  def create_experiment(self, name):
    return name

  def create_run(self, experiment, run_name):
    self.made.append((experiment, run_name))
    return types.SimpleNamespace(info=types.SimpleNamespace(run_id="r1"))

  def update_run(self, run_id, status):
    self.states.append((run_id, status))

  def set_terminated(self, run_id):
    self.states.append((run_id, "FINISHED"))

  def log_batch(self, run_id, metrics=(), params=()):
    assert run_id == "r1"
    self.metrics += metrics
    self.params += params


@pytest.fixture
def wandb(monkeypatch) -> _Wandb:
  fake = _Wandb()
  monkeypatch.setitem(sys.modules, "wandb", fake)
  return fake


@pytest.fixture
def mlflow(monkeypatch) -> _Mlflow:
  fake = _Mlflow()
  monkeypatch.setitem(sys.modules, "mlflow", fake)
  monkeypatch.setitem(sys.modules, "mlflow.entities", fake.entities)
  return fake


def _config(*names, **params):
  config = common.of_strategy("ss", "resnet", "")
  config.trackers = names
  config.wandb_params.update(params)
  return config


def _write(workdir, config, steps, first_step=0):
  followers = trackers.open_all(config, workdir, first_step)
  writer = metric_writers.MetricWriter(workdir, first_step, followers)
  for step in steps:
    writer.write(
      "train", step, {"total": step / 2, "epoch": 0, "audio+cf": 1.0}
    )
  writer.close()


def test_wandb_gets_every_number_under_the_names_of_the_config(wandb, tmp_path):
  config = _config("wandb", project="p", run_name="n", run_id="i")
  _write(tmp_path, config, [1, 2])
  (how,) = wandb.started
  assert (how["project"], how["name"], how["id"]) == ("p", "n", "i")
  assert (how["resume"], how["dir"]) == ("allow", str(tmp_path))
  assert how["config"]["opt_params.lr"] == 1e-4
  assert wandb.rows == [
    {"train/total": step / 2, "train/epoch": 0}
    | {"train/audio+cf": 1.0, "step": step}
    for step in (1, 2)
  ]
  assert wandb.ended == 1
  assert not (tmp_path / "tensorboard").exists()


def test_a_run_that_goes_on_continues_the_same_curves(wandb, mlflow, tmp_path):
  config = _config("wandb", "mlflow")
  workdir = tmp_path / "mine"
  workdir.mkdir()
  _write(workdir, config, [1, 2, 3])
  _write(workdir, config, [3, 4], first_step=2)
  first, second = wandb.started
  assert first["id"] == second["id"] and first["id"]
  assert (first["project"], first["name"]) == ("pcl_jax", "mine")
  assert mlflow.made == [("pcl_jax", "mine")]
  for steps in (
    [row["step"] for row in wandb.rows],
    [step for key, _, step in mlflow.metrics if key == "train/total"],
  ):
    assert steps == [1, 2, 3, 3, 4]
  assert mlflow.states == [
    ("r1", "FINISHED"), ("r1", "RUNNING"), ("r1", "FINISHED")
  ]  # fmt: skip
  assert dict(mlflow.params)["opt_params.lr"] == "0.0001"


def test_mlflow_gets_names_that_it_allows(mlflow, tmp_path):
  _write(tmp_path, _config("mlflow"), [1])
  assert [key for key, _, _ in mlflow.metrics] == [
    "train/total", "train/epoch", "train/audio-cf"
  ]  # fmt: skip


@pytest.mark.parametrize("fault", ["opening", "writing", "closing"])
def test_a_dead_tracker_costs_one_warning_and_no_row(
  fault, wandb, mlflow, tmp_path, capsys
):
  wandb.fault = fault
  _write(tmp_path, _config("wandb", "mlflow"), range(1, 40))
  lines = (tmp_path / metric_writers.FILE_NAME).read_text().splitlines()
  assert [json.loads(line)["step"] for line in lines] == list(range(1, 40))
  assert len(mlflow.metrics) == 3 * 39
  said = capsys.readouterr().err
  assert said.count("no more numbers are given to wandb (RuntimeError: it") == 1
  assert said.count("\n") == 1 + (fault == "opening")


@pytest.mark.parametrize(
  "has_key, tries, reason",
  [
    (True, [None, "torn down", "offline"], "no answer"),
    (False, ["torn down", "offline"], "no API key"),
  ],
)
def test_without_a_server_or_a_key_numbers_are_kept_in_the_workdir(
  has_key, tries, reason, wandb, tmp_path, monkeypatch, capsys
):
  monkeypatch.delenv("WANDB_MODE", raising=False)
  wandb.fault, wandb.has_key = "server", has_key
  _write(tmp_path, _config("wandb"), [1, 2])
  assert [how.get("mode") for how in wandb.started] == tries
  assert [row["step"] for row in wandb.rows] == [1, 2]
  said = capsys.readouterr().err
  assert f"({reason}" in said and "wandb sync" in said
  assert said.count("\n") == 1


def test_training_does_not_wait_for_a_tracker_that_hangs(
  wandb, tmp_path, monkeypatch, capsys
):
  awaited = threading.Event()
  monkeypatch.setattr(trackers, "_FLUSH_S", 0.0)
  monkeypatch.setattr(wandb, "log", lambda _: awaited.wait())
  try:
    _write(tmp_path, _config("wandb"), range(5))
  finally:
    awaited.set()
  assert "TimeoutError: it did not take all within" in capsys.readouterr().err


def test_processes_but_the_first_have_no_tracker(wandb, tmp_path, monkeypatch):
  monkeypatch.setattr(hosts, "is_first", lambda: False)
  _write(tmp_path, _config("wandb", "tensorboard"), [1])
  assert not wandb.started and not list(tmp_path.iterdir())


def test_what_is_not_installed_or_unknown_is_refused_with_its_remedy(
  monkeypatch,
):
  monkeypatch.setitem(sys.modules, "wandb", None)
  monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda _: None)
  with pytest.raises(errors.InputError, match=r"pip install .pcl_jax\[wandb\]"):
    trackers.check(["wandb"])
  with pytest.raises(
    errors.InputError, match="has 'comet'; .* tensorboard, wa"
  ):
    trackers.check(["comet"])
  trackers.check([])


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_a_run_is_tracked_by_the_real_wandb_offline(
  config, quickly, tmp_path, monkeypatch, capsys
):
  pytest.importorskip("wandb")
  from wandb.proto import wandb_internal_pb2

  monkeypatch.setenv("WANDB_MODE", "offline")
  config.trackers, config.epochs = ("wandb",), 1
  config.wandb_params.run_name = "n"
  tiny_run.train_on_one(config, tmp_path / "run")
  config.epochs = 2
  tiny_run.train_on_one(config, tmp_path / "run")
  expected = [
    (row["step"], row["total"])
    for row in tiny_run.rows_of(tmp_path / "run")
    if row["kind"] == "train"
  ]
  found, names = [], set()
  for path in sorted((tmp_path / "run").glob("wandb/offline-run-*/*.wandb")):
    for data in event_files.wandb_records(path):
      record = wandb_internal_pb2.Record.FromString(data)
      if record.HasField("run"):
        names.add((record.run.run_id, record.run.display_name))
      items = {
        "/".join(one.nested_key) or one.key: json.loads(one.value_json)
        for one in record.history.item
      }
      if "train/total" in items:
        found.append((items["step"], items["train/total"]))
  assert found == expected
  ((run_id, name),) = names
  assert name == "n"
  ids = json.loads((tmp_path / "run" / trackers.IDS).read_text())
  assert ids == {"wandb": run_id}
  assert "no more numbers" not in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_a_run_is_tracked_by_the_real_mlflow(
  config, quickly, tmp_path, monkeypatch, capsys
):
  mlflow = pytest.importorskip("mlflow")
  monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
  mlflow.set_tracking_uri((tmp_path / "mlflow").as_uri())
  config.trackers, config.epochs = ("mlflow",), 1
  tiny_run.train_on_one(config, tmp_path / "run")
  config.epochs = 2
  tiny_run.train_on_one(config, tmp_path / "run")
  expected = [
    (row["step"], row["total"])
    for row in tiny_run.rows_of(tmp_path / "run")
    if row["kind"] == "train"
  ]
  client = mlflow.MlflowClient()
  experiment = client.get_experiment_by_name("pcl_jax")
  (run,) = client.search_runs([experiment.experiment_id])
  history = client.get_metric_history(run.info.run_id, "train/total")
  assert [(one.step, one.value) for one in history] == expected
  assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
  assert "no more numbers" not in capsys.readouterr().err
