"""Tests of pcl_jax.evaluation.tagging.tagging_tasks: public sets."""

import dataclasses

from flax import nnx
import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import dataset
from pcl_jax.data import song_store
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import prepared_sets
from pcl_jax.evaluation.tagging import probes
from pcl_jax.evaluation.tagging import tagging_tasks
from pcl_jax.models import audio_encoder
from preprocessing.tagging import gtzan
from preprocessing.tagging import mtg_jamendo
from preprocessing.tagging import preparation
from tests.support import labelled_example
from tests.support import quick_backbone
from tests.support.tiny import tiny_data
from tests.support.tiny import tiny_tagging

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(autouse=True)
def probed(monkeypatch):
  """Probes by least squares; returns what each probe was given."""
  given = []

  def train_probe(features, labelled, **how):
    given.append((features, how))
    return labelled_example.train_probe_by_least_squares(
      features, labelled, **how
    )

  monkeypatch.setattr(probes, "train_probe", train_probe)
  return given


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
def context(monkeypatch, data_dir):
  """A context with an encoder."""
  quick_backbone.register(monkeypatch)
  encoder = audio_encoder.AudioEncoder(
    quick_backbone.NAME, width=4, rngs=nnx.Rngs(0)
  )
  return task_base.Context(dataset.DataSet(data_dir), encoder=encoder)


def test_a_partial_set_and_its_baselines_say_what_was_measured(
  gtzan_set, context, probed
):
  tasks = tagging_tasks.tasks_of([str(gtzan_set)], kinds=("linear",))
  ((name, task),) = tasks.items()
  assert name == "gtzan-filtered_partial_29_of_30_clips-linear"
  title = "gtzan-filtered partial (29 of 30 clips)"
  assert task.title == f"{title}, linear probe"
  runs = [task.run, *task.baselines.values()]
  assert list(task.baselines) == ["mean mel", "mean and std mel"]
  for run in runs:
    found = run(context)
    assert found.metrics["accuracy"].items == 10
    assert found.left_out["unreadable"] == 1
    assert found.settings["set"] == title
    assert found.settings["aggregation"] == "mean of patch embeddings"
    assert found.settings["partial"] and found.settings["part"] == "whole"
    assert set(found.per_item["tag"]) == set(gtzan.GENRES)
  # The encoder, means of 48 bands, and deviations too.
  assert [one.shape for one, _ in probed] == [(29, 32), (29, 48), (29, 96)]


def test_the_clips_of_a_set_are_embedded_once_for_all_probes(
  gtzan_set, context, monkeypatch
):
  calls, embed_clips = [], prepared_sets.embed_clips
  monkeypatch.setattr(
    prepared_sets,
    "embed_clips",
    lambda *args, **how: calls.append(args) or embed_clips(*args, **how),
  )
  tasks = tagging_tasks.tasks_of([str(gtzan_set)])
  found = [context.once(task.run) for task in tasks.values()]
  assert [one.settings["probe"] for one in found] == ["linear", "mlp"]
  assert len(calls) == 1


@pytest.mark.parametrize("mean", probes.MEANS)
def test_what_a_probe_says_of_the_patches_can_be_averaged_and_is_named(
  gtzan_set, context, probed, mean
):
  options = task_base.Options(tagging_mean=mean)
  context = dataclasses.replace(context, options=options)
  (task,) = tagging_tasks.tasks_of([str(gtzan_set)], kinds=("linear",)).values()
  found = task.run(context)
  assert found.settings["aggregation"] == f"mean of patch {mean}"
  ((_, how),) = probed
  assert how["mean_of"] == mean
  assert set(how["song_index"].tolist()) == set(range(29))
  assert found.metrics["accuracy"].items == 10
  # The statistics over time have no mean over patches.
  row = task.baselines["mean mel"](context)
  assert row.settings["aggregation"] == "mean of patch embeddings"


def test_splits_of_the_same_tracks_are_measured_each_and_in_the_mean(
  jamendo_sets, context
):
  tasks = tagging_tasks.tasks_of(jamendo_sets, kinds=("linear",))
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
  task = tagging_tasks.tasks_of([str(gtzan_set)], kinds=("linear",))
  (run,) = [one.run for one in task.values()]
  with pytest.raises(task_base.NotAvailable, match="has other clips"):
    run(task_base.Context(context.data, np.zeros((60, 2), np.float32)))


def test_the_same_set_twice_and_no_set_are_refused(gtzan_set, tmp_path):
  with pytest.raises(errors.InputError, match="give one of them"):
    tagging_tasks.tasks_of([str(gtzan_set), f"{gtzan_set}/"])
  with pytest.raises(errors.InputError, match="not a prepared tagging set"):
    tagging_tasks.tasks_of([str(tmp_path)])


def test_a_set_that_cannot_be_probed_is_a_reason_not_an_end(
  gtzan_set, context, monkeypatch
):
  def refuse(*_, **__):
    raise errors.InputError("no metric is defined")

  monkeypatch.setattr(probes, "train_probe", refuse)
  for task in tagging_tasks.tasks_of([str(gtzan_set)]).values():
    with pytest.raises(task_base.NotAvailable, match="no metric is defined"):
      task.run(context)


def test_melon_50_is_refused_at_the_start_without_its_package(
  tmp_path, monkeypatch
):
  made = tiny_data.tiny_catalogue()
  tiny_data.tiny_store(tmp_path / "songs.lmdb", made)
  made.save(tmp_path)
  data = dataset.DataSet(tmp_path)
  monkeypatch.setattr(tagging_tasks.extras, "check", _absent)
  with pytest.raises(errors.InputError, match="Melon-50.*iterstrat"):
    tagging_tasks.without_melon_50(tagging_tasks.MELON_50, data)
  assert tagging_tasks.without_melon_50({}, data) == ({}, [])


def _absent(what, *modules):
  raise errors.InputError(f"{what} needs {modules}")
