"""Tests of pcl_jax.evaluation.few_labels."""

import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.tagging import few_labels
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import probes
from tests.support import labelled_example

pytestmark = pytest.mark.usefixtures("quick_compilation")
QUICK = {"rates": (1e-2,), "decays": (0.0,), "rounds": 20, "draws": 20}


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


@pytest.mark.parametrize("shares", [(), (0.1, 0.01), (0.0, 1.0), (0.5, 1.5)])
def test_shares_that_do_not_ascend_are_refused(shares):
  with pytest.raises(errors.InputError, match="must ascend"):
    few_labels.nested(np.ones((5, 1), bool), shares, 0)


def test_all_labels_are_the_ordinary_probe_and_fewer_are_worth_less():
  features, labelled = labelled_example.make()
  found = few_labels.curve(
    features, labelled, shares=(0.01, 0.1, 1.0), seeds=(0,), **QUICK
  )
  ordinary = probes.probe(features, labelled, seeds=(0,), **QUICK)
  assert found[1.0].metrics == ordinary.metrics
  assert found[0.1].metrics["roc_auc"].value < ordinary.metrics["roc_auc"].value
  training = (labelled.split == labelled_sets.TRAIN).sum()
  (songs,) = found[0.1].settings["training_songs_by_seed"]
  assert songs == pytest.approx(training / 10, abs=1)
  # One song is no curve.
  assert found[0.01].startswith("share (1 % of ")
  one = few_labels.as_result(found)
  assert one.left_out[found[0.01]] == 1
  for share, name in ((0.1, "10_percent"), (1.0, "100_percent")):
    for metric in ("roc_auc", "average_precision"):
      value = found[share].metrics[metric]
      assert one.metrics[f"{metric}_{name}"] == value
      column = one.per_item[f"{metric}_{name}"]
      assert value.value == pytest.approx(column.mean())


def test_only_training_labels_become_fewer():
  features, labelled = labelled_example.make()
  kept = np.arange((labelled.split == labelled_sets.TRAIN).sum()) < 10
  fewer = few_labels._fewer(labelled, kept)
  training = np.flatnonzero(labelled.split == labelled_sets.TRAIN)
  others = labelled.split != labelled_sets.TRAIN
  np.testing.assert_array_equal(fewer.split[others], labelled.split[others])
  assert (
    np.flatnonzero(fewer.split == labelled_sets.TRAIN).tolist()
    == training[:10].tolist()
  )


def test_where_every_share_is_too_small_there_is_no_outcome():
  _, labelled = labelled_example.make()
  features = np.zeros((200, 2), np.float32)
  found = few_labels.curve(features, labelled, shares=(0.005, 0.01), **QUICK)
  assert not any(isinstance(one, task_base.Result) for one in found.values())
  with pytest.raises(task_base.NotAvailable, match="fewer than"):
    few_labels.as_result(found)
