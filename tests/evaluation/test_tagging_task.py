"""Tests of pcl_jax.evaluation.tagging_task: public sets in the evaluation."""

import dataclasses
import json
import shutil

from flax import nnx
import numpy as np
from pyarrow import parquet
import pytest

from pcl_jax import evaluate
from pcl_jax.common import errors
from pcl_jax.data import dataset
from pcl_jax.data import song_store
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import probes
from pcl_jax.evaluation.tagging import tagging_set
from pcl_jax.evaluation.tagging import tagging_task
from pcl_jax.models import audio_encoder
from preprocessing.tagging import gtzan
from preprocessing.tagging import mtg_jamendo
from preprocessing.tagging import preparation
from tests.support import quick_backbone
from tests.support import quick_run
from tests.support import tiny_data
from tests.support import tiny_tagging

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(autouse=True)
def short_search(monkeypatch):
  """One rate, one decay, few epochs; returns the sizes of features probed."""
  short = {"rates": (1e-2,), "decays": (0.0,), "seeds": (0,), "rounds": 3}
  probe, sizes = probes.probe, []

  def probe_quickly(features, labelled, **how):
    sizes.append(features.shape[1])
    return probe(features, labelled, draws=20, **short, **how)

  monkeypatch.setattr(probes, "probe", probe_quickly)
  return sizes


@pytest.fixture(scope="module")
def gtzan_set(tmp_path_factory):
  """A prepared set that lacks a clip."""
  folder = tmp_path_factory.mktemp("gtzan")
  lists, audio_dir = tiny_tagging.make_gtzan(folder)
  (audio_dir / "genres" / "pop" / "pop.00000.wav").write_bytes(b"broken")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(gtzan, "PUBLISHED", 30)
    clip_list = preparation.read_lists("gtzan", lists)
    preparation.prepare(
      clip_list, audio_dir, folder / "out", allow_partial=True
    )
  return folder / "out"


@pytest.fixture(scope="module")
def jamendo_sets(tmp_path_factory):
  """Two splits of the same tracks: training and test change places."""
  folder = tmp_path_factory.mktemp("jamendo")
  lists, audio_dir = tiny_tagging.make_jamendo(folder)
  rows = tiny_tagging.jamendo_rows()
  rows["train"], rows["test"] = rows["test"], rows["train"]
  other = folder / "other"
  tiny_tagging.write_jamendo(other, rows)
  place = other / "data" / "splits"
  (place / "split-0").rename(place / "split-1")
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(mtg_jamendo.PUBLISHED, "instrument", (4, 4, 4))
    for number, where in enumerate((lists, other)):
      clip_list = mtg_jamendo.read(where, "instrument", number, "whole")
      preparation.prepare(clip_list, audio_dir, folder / f"split{number}")
  return [str(folder / "split0"), str(folder / "split1")]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  """The data set of the run, which public sets take nothing of."""
  data = tmp_path_factory.mktemp("data") / "tiny"
  data.mkdir()
  catalogue = tiny_data.tiny_catalogue()
  tiny_data.tiny_store(data / song_store.FILE_NAME, catalogue, (200, 300))
  catalogue.save(data)
  return data


@pytest.fixture
def workdir(tmp_path, data_dir, monkeypatch):
  """A run of two steps."""
  quick_backbone.register(monkeypatch)
  quick_run.train_epoch(tmp_path / "run", data_dir)
  return tmp_path / "run"


@pytest.fixture
def context(monkeypatch, data_dir):
  """A context with an encoder."""
  quick_backbone.register(monkeypatch)
  encoder = audio_encoder.AudioEncoder(
    quick_backbone.NAME, width=4, rngs=nnx.Rngs(0)
  )
  return task_base.Context(dataset.DataSet(data_dir), encoder=encoder)


def test_a_command_line_puts_public_sets_into_table_and_results(
  gtzan_set, workdir, tmp_path, monkeypatch, capsys, short_search
):
  tasks_of = tagging_task.tasks_of
  monkeypatch.setattr(  # One kind of probe compiles sooner.
    tagging_task, "tasks_of", lambda folders: tasks_of(folders, ("linear",))
  )
  flags = ["--tasks=none", f"--tagging={gtzan_set}"]
  evaluate.main([f"--workdir={workdir}", "--baselines", *flags])
  words = capsys.readouterr().out
  assert "gtzan-filtered partial (29 of 30 clips), linear probe" in words
  assert "1 unreadable" in words
  results = json.loads((workdir / "results.json").read_text())
  name = "gtzan-filtered_partial_29_of_30_clips"
  assert set(results["tasks"]) == {f"{name}-linear"}
  rows = results["tasks"][f"{name}-linear"]
  trained, *others = rows
  assert trained == "trained (SS)"
  assert {"untrained", "mean mel", "mean and std mel"} <= set(others)
  for row in rows.values():
    assert 0 <= row["metrics"]["accuracy"]["value"] <= 1
    assert row["metrics"]["accuracy"]["items"] == 10
    assert row["settings"]["set"] == "gtzan-filtered partial (29 of 30 clips)"
    assert row["settings"]["aggregation"] == "mean of patch embeddings"
    assert row["settings"]["partial"] and row["settings"]["part"] == "whole"
  # The encoder, the same untrained, means of 48 bands, and deviations too.
  assert short_search == [32, 32, 48, 96]
  other = shutil.copytree(workdir, tmp_path / "other")
  evaluate.main(["--compare", str(workdir), str(other), *flags])
  assert name in capsys.readouterr().out
  table = parquet.read_table(workdir / "evaluation" / f"{name}-linear.parquet")
  assert set(table["tag"].to_pylist()) == set(gtzan.GENRES)


def test_the_clips_of_a_set_are_embedded_once_for_all_probes(
  gtzan_set, context, monkeypatch
):
  calls, embed_clips = [], tagging_set.embed_clips
  monkeypatch.setattr(
    tagging_set,
    "embed_clips",
    lambda *args, **how: calls.append(args) or embed_clips(*args, **how),
  )
  monkeypatch.setattr(
    probes,
    "probe",
    lambda features, found, kind: task_base.Result(
      {}, {}, settings={"probe": kind, "shape": features.shape}
    ),
  )
  tasks = tagging_task.tasks_of([str(gtzan_set)])
  found = [context.once(task.run) for task in tasks.values()]
  assert len(found) == 2 and len(calls) == 1
  for one, kind in zip(found, ("linear", "mlp"), strict=True):
    assert one.settings["probe"] == kind
    assert one.settings["shape"] == (29, 32)
    assert one.left_out == {"unreadable": 1}


@pytest.mark.parametrize("mean", probes.MEANS)
def test_what_a_probe_says_of_the_patches_can_be_averaged_and_is_named(
  gtzan_set, context, monkeypatch, mean
):
  given = []
  probe = probes.probe
  monkeypatch.setattr(
    probes,
    "probe",
    lambda *args, **how: given.append(how) or probe(*args, **how),
  )
  options = task_base.Options(tagging_mean=mean)
  context = dataclasses.replace(context, options=options)
  (task,) = tagging_task.tasks_of([str(gtzan_set)], kinds=("linear",)).values()
  found = task.run(context)
  assert found.settings["aggregation"] == f"mean of patch {mean}"
  assert given[0]["mean_of"] == mean
  assert set(given[0]["owners"].tolist()) == set(range(29))
  assert found.metrics["accuracy"].items == 10
  # Of statistics over time there is no mean over patches.
  row = task.baselines["mean mel"](context)
  assert row.settings["aggregation"] == "mean of patch embeddings"


def test_splits_of_the_same_tracks_are_measured_each_and_in_the_mean(
  jamendo_sets, context
):
  tasks = tagging_task.tasks_of(jamendo_sets, kinds=("linear",))
  assert list(tasks) == [
    "mtg_jamendo-instrument-split0-whole-linear",
    "mtg_jamendo-instrument-split1-whole-linear",
    "mtg_jamendo-instrument-splits01-whole-linear",
  ]
  first, second, mean = [context.once(task.run) for task in tasks.values()]
  assert first.settings["set"] != second.settings["set"]
  for name, metric in mean.metrics.items():
    both = [first.metrics[name], second.metrics[name]]
    values = [one.value for one in both]
    assert metric.value == pytest.approx(np.mean(values))
    assert metric.low == pytest.approx(np.mean([one.low for one in both]))
    spread = mean.settings["found_std_over_splits"][name]
    assert spread == pytest.approx(np.std(values, ddof=1))
  tag, *columns = mean.per_item
  assert mean.per_item[tag].tolist() == first.per_item[tag].tolist()
  for column in columns:
    expected = (first.per_item[column] + second.per_item[column]) / 2
    np.testing.assert_allclose(mean.per_item[column], expected)
  words = tasks[list(tasks)[-1]].title
  assert words == "mtg_jamendo-instrument-splits01-whole, linear probe"
  rows = tasks[list(tasks)[-1]].baselines
  found = rows["mean mel"](context)
  assert 0 <= found.metrics["roc_auc"].value <= 1


def test_without_an_encoder_there_is_a_reason_instead_of_a_number(
  gtzan_set, context
):
  task = tagging_task.tasks_of([str(gtzan_set)], kinds=("linear",))
  (run,) = [one.run for one in task.values()]
  with pytest.raises(task_base.NotAvailable, match="has other clips"):
    run(task_base.Context(context.data, np.zeros((60, 2), np.float32)))


def test_the_same_set_twice_and_no_set_are_refused(gtzan_set, tmp_path):
  with pytest.raises(errors.InputError, match="give one of them"):
    tagging_task.tasks_of([str(gtzan_set), f"{gtzan_set}/"])
  with pytest.raises(errors.InputError, match="not a prepared tagging set"):
    tagging_task.tasks_of([str(tmp_path)])


def test_a_set_that_cannot_be_probed_is_a_reason_not_an_end(
  gtzan_set, context, monkeypatch
):
  def refuse(*_, **__):
    raise errors.InputError("no metric is defined")

  monkeypatch.setattr(probes, "probe", refuse)
  for task in tagging_task.tasks_of([str(gtzan_set)]).values():
    with pytest.raises(task_base.NotAvailable, match="no metric is defined"):
      task.run(context)
