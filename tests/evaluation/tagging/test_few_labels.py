"""Tests of pcl_jax.evaluation.tagging.few_labels."""

import numpy as np
import pytest

from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import few_labels
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import probes
from tests.support import labelled_example

pytestmark = pytest.mark.usefixtures("quick_compilation")
QUICK = labelled_example.ONE_MEMBER | {"rounds": 10, "draws": 20}


def test_subsets_lie_within_one_another_and_keep_the_tags_shares():
  rng = np.random.default_rng(0)
  labels = rng.random((2000, 4)) < [0.5, 0.2, 0.1, 0.05]
  small, middle, whole = few_labels.nested(labels, (0.01, 0.1, 1.0), seed=3)
  assert whole.all()
  assert (small <= middle).all()
  np.testing.assert_allclose([small.sum(), middle.sum()], [20, 200], atol=3)
  np.testing.assert_allclose(
    labels[middle].mean(axis=0), labels.mean(axis=0), atol=0.02
  )
  other, *_ = few_labels.nested(labels, (0.01, 0.1, 1.0), seed=4)
  assert (other != small).any()
  again, *_ = few_labels.nested(labels, (0.01, 0.1, 1.0), seed=3)
  np.testing.assert_array_equal(again, small)


def test_all_labels_are_the_ordinary_probe_and_fewer_are_worth_less():
  features, labelled = labelled_example.make()
  found = few_labels.measure(
    features, labelled, shares=(0.01, 0.1, 1.0), **QUICK
  )
  ordinary, _ = probes.train_probe(features, labelled, **QUICK)
  for name, metric in ordinary.metrics.items():
    assert found.metrics[f"{name}_100_percent"] == metric
    for share in ("10_percent", "100_percent"):
      column = found.per_item[f"{name}_{share}"]
      value = found.metrics[f"{name}_{share}"].value
      assert value == pytest.approx(column.mean())
  fewer = found.metrics["roc_auc_10_percent"].value
  assert fewer < ordinary.metrics["roc_auc"].value
  training = (labelled.split == labelled_sets.TRAIN).sum()
  (songs,) = found.settings["chosen_10_percent"]["training_songs_by_seed"]
  assert songs == pytest.approx(training / 10, abs=1)
  # A probe of one song is left out.
  (reason,) = found.left_out
  assert reason.startswith("share (1 % of ")


def test_only_training_labels_become_fewer():
  _, labelled = labelled_example.make()
  training = np.flatnonzero(labelled.split == labelled_sets.TRAIN)
  fewer = few_labels.keep_training(labelled, np.arange(len(training)) < 10)
  others = labelled.split != labelled_sets.TRAIN
  np.testing.assert_array_equal(fewer.split[others], labelled.split[others])
  kept = np.flatnonzero(fewer.split == labelled_sets.TRAIN)
  assert kept.tolist() == training[:10].tolist()


def test_where_every_share_is_too_small_there_is_no_result():
  features, labelled = labelled_example.make()
  with pytest.raises(task_base.NotAvailable, match="fewer than"):
    few_labels.measure(features, labelled, shares=(0.005, 0.01))
