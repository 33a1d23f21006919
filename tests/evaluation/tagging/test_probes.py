"""Tests of pcl_jax.evaluation.tagging: probes and their results and files."""

import dataclasses

import jax
import numpy as np
import pytest
from sklearn import metrics

from pcl_jax.common import errors
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import probe_file
from pcl_jax.evaluation.tagging import probes
from pcl_jax.evaluation.tagging import tagging_metrics
from tests.support import labelled_example

pytestmark = pytest.mark.usefixtures("quick_compilation")
ONE = labelled_example.ONE_MEMBER | {"rounds": 10, "draws": 50}
QUICK = labelled_example.EIGHT_MEMBERS | {"rounds": 10, "draws": 50}


@pytest.fixture(scope="module")
def tagged():
  """Features, set, outcome and probe of a multi-label task."""
  features, labelled = labelled_example.make()
  return features, labelled, *probes.train_probe(features, labelled, **QUICK)


def test_a_probe_finds_tags_that_are_a_function_of_the_features(tagged):
  _, labelled, found, _ = tagged
  assert list(found.metrics) == ["roc_auc", "average_precision"]
  for metric in found.metrics.values():
    assert 0 < metric.low <= metric.value <= metric.high <= 1
    assert metric.items == 3
  assert found.metrics["roc_auc"].value > 0.8
  assert found.per_item["tag"].tolist() == list(labelled.tags)
  test = labelled.labels[labelled.split == labelled_sets.TEST]
  np.testing.assert_array_equal(found.per_item["positives"], test.sum(axis=0))
  for name in found.metrics:
    mean = found.per_item[name].mean()
    assert found.metrics[name].value == pytest.approx(mean)
  assert found.left_out == {}
  assert found.settings["chosen_rate"] in QUICK["rates"]
  assert found.settings["chosen_decay"] in QUICK["decays"]
  assert found.settings["selected_by"] == "validation average_precision"
  assert found.settings["chosen_std_over_seeds"]["roc_auc"] > 0
  assert found.settings["songs"]["test"] == len(test)


def test_tags_that_are_no_function_of_the_features_are_not_found():
  features, labelled = labelled_example.make()
  order = np.random.default_rng(0).permutation(len(features))
  found, _ = probes.train_probe(features[order], labelled, **QUICK)
  metric = found.metrics["roc_auc"]
  assert metric.low < 0.5 < metric.high


def test_a_saved_probe_gives_the_same_named_probabilities(tagged, tmp_path):
  features, labelled, found, trained = tagged
  path = tmp_path / "probe.npz"
  trained.save(path)
  assert [one.name for one in tmp_path.iterdir()] == ["probe.npz"]
  loaded = probe_file.load(path)
  assert loaded.tags == labelled.tags
  assert loaded.settings == found.settings
  np.testing.assert_array_equal(
    loaded.probabilities(features), trained.probabilities(features)
  )
  test = labelled.split == labelled_sets.TEST
  area = metrics.roc_auc_score(
    labelled.labels[test], loaded.probabilities(features[test])
  )
  spread = found.settings["chosen_std_over_seeds"]["roc_auc"]
  assert abs(area - found.metrics["roc_auc"].value) < 3 * spread + 1e-6
  with pytest.raises(errors.InputError, match="size 8, .* size 5"):
    loaded.probabilities(features[:, :5])


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 damaged"])
def test_a_file_that_is_no_probe_is_refused(tmp_path, content):
  path = tmp_path / "probe.npz"
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(errors.InputError, match="not a readable probe"):
    probe_file.load(path)


def test_where_each_song_has_one_tag_accuracy_is_the_headline():
  features, labelled = labelled_example.make(single_label=True)
  found, trained = probes.train_probe(features, labelled, **ONE)
  assert next(iter(found.metrics)) == "accuracy"
  accuracy = found.metrics["accuracy"]
  assert 0.5 < accuracy.low < accuracy.value < accuracy.high < 1
  weights = found.per_item["positives"] / accuracy.items
  assert accuracy.value == pytest.approx(found.per_item["accuracy"] @ weights)
  sums = trained.probabilities(features).sum(axis=1)
  np.testing.assert_allclose(sums, 1.0, rtol=1e-5)
  assert found.settings["selected_by"] == "validation accuracy"


def test_tags_with_one_class_are_left_out_of_the_mean_and_counted():
  features, labelled = labelled_example.make()
  labels = labelled.labels.copy()
  labels[labelled.split == labelled_sets.TEST, 0] = True
  labels[labelled.split == labelled_sets.TRAIN, 2] = False
  labelled = dataclasses.replace(labelled, labels=labels)
  found, _ = probes.train_probe(features, labelled, **QUICK)
  assert found.left_out == {
    tagging_metrics.UNTESTED: 1,
    tagging_metrics.UNLEARNT: 1,
  }
  areas = found.per_item["roc_auc"]
  assert np.isnan(areas).tolist() == [True, False, True]
  assert found.metrics["roc_auc"].items == 1
  assert found.metrics["roc_auc"].value == pytest.approx(areas[1])


def test_a_test_set_of_a_single_class_is_refused():
  features, labelled = labelled_example.make()
  labels = labelled.labels.copy()
  labels[labelled.split == labelled_sets.TEST] = False
  labelled = dataclasses.replace(labelled, labels=labels)
  with pytest.raises(errors.InputError, match="no metric is defined"):
    probes.train_probe(features, labelled, **QUICK)


def test_accuracy_alone_is_defined_where_the_test_songs_share_one_tag():
  _, labelled = labelled_example.make(single_label=True)
  test = labelled.split == labelled_sets.TEST
  labelled.labels[test] = np.eye(3, dtype=bool)[0]
  scores = np.random.default_rng(0).standard_normal((2, test.sum(), 3))
  found = tagging_metrics.measure(scores, labelled, {}, draws=20)
  assert list(found.metrics) == ["accuracy"]
  expected = (scores.argmax(axis=2) == 0).mean()
  assert found.metrics["accuracy"].value == pytest.approx(expected)
  assert found.left_out == {tagging_metrics.UNTESTED: 3}


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"kind": "tree"}, "'tree'; it must be one of linear, mlp"),
    ({"mean_of": "songs"}, "one of probabilities, logits"),
  ],
)
def test_an_unknown_option_is_refused(options, words):
  features, labelled = labelled_example.make()
  with pytest.raises(errors.InputError, match=words):
    probes.train_probe(features, labelled, **(QUICK | options))


@pytest.mark.parametrize("mean_of", probes.MEANS)
def test_scores_of_patches_are_brought_together_by_song(mean_of):
  rng = np.random.default_rng(0)
  logits = rng.standard_normal((6, 2)).astype(np.float32)
  songs = np.array([7, 3, 7, 3, 3, 4])
  found = probes.song_scores(logits, songs, single_label=False, mean_of=mean_of)
  rows = jax.nn.sigmoid(logits) if mean_of == "probabilities" else logits
  expected = [
    np.asarray(rows)[songs == song].mean(axis=0) for song in (3, 4, 7)
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_patches_of_songs_can_be_probed():
  features, labelled = labelled_example.make()
  rng = np.random.default_rng(0)
  song_index = rng.permutation(np.concatenate([np.arange(200)] * 2))
  noise = rng.standard_normal((400, 8)).astype(np.float32)
  patches = features[song_index] + noise
  found, _ = probes.train_probe(patches, labelled, song_index=song_index, **ONE)
  assert found.metrics["roc_auc"].value > 0.75
  assert found.settings["aggregation"] == "mean of patch probabilities"


def test_features_are_standardised_by_those_of_training_songs():
  features, labelled = labelled_example.make()
  features[:, 3] = 7.0  # Constant: not divided by zero.
  made = probes._prepare(features, labelled, None, None, "logits")
  found = np.asarray(made.examples.features)[made.rows(labelled_sets.TRAIN)]
  np.testing.assert_allclose(found.mean(axis=0), 0.0, atol=1e-5)
  np.testing.assert_allclose(
    found.std(axis=0), [1, 1, 1, 0, 1, 1, 1, 1], atol=1e-5
  )
  scaled = made.scale.apply(features)
  np.testing.assert_array_equal(scaled, made.examples.features)


def test_features_of_another_length_or_not_finite_are_refused():
  features, labelled = labelled_example.make()
  with pytest.raises(errors.InputError, match="199 rows of features and 200"):
    probes.fit(features[1:], labelled)
  with pytest.raises(errors.InputError, match="1 songs of made-up have no"):
    probes.fit(features, labelled, song_index=np.maximum(np.arange(200), 1))
  features[17, 2] = np.nan
  with pytest.raises(errors.InputError, match="1 rows.*first is that of s17"):
    probes.fit(features, labelled)
