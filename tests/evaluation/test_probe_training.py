"""Tests of pcl_jax.evaluation.probe_training and probe_data."""

import dataclasses

import jax
import numpy as np
import pytest
from sklearn import linear_model

from pcl_jax.common import errors
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import probe_data
from pcl_jax.evaluation.tagging import probe_training
from tests.support import labelled_example

pytestmark = pytest.mark.usefixtures("quick_compilation")
QUICK = {"rates": (1e-3, 1e-2), "decays": (0.0, 0.1), "seeds": (0, 1)}


def _objective(params, examples, decay):
  """The penalised training loss of a linear probe, in float64."""
  kernel = np.asarray(params["output"]["kernel"], np.float64)
  bias = np.asarray(params["output"]["bias"], np.float64)
  x = np.asarray(examples.features, np.float64)[examples.train]
  y = np.asarray(examples.labels, np.float64)[examples.train]
  scores = x @ kernel + bias
  if examples.one_each:
    loss = np.logaddexp.reduce(scores, axis=1) - (scores * y).sum(axis=1)
  else:
    loss = (np.logaddexp(0, scores) - scores * y).sum(axis=1)
  return loss.mean() + decay / 2 * (kernel**2).sum()


def _by_scikit_learn(examples, decay):
  """The same problem, solved by scikit-learn; weights as of a probe."""
  x = np.asarray(examples.features, np.float64)[examples.train]
  y = np.asarray(examples.labels)[examples.train]
  options = {"C": 1 / (len(x) * decay), "tol": 1e-8, "max_iter": 1000}
  targets = [y.argmax(axis=1)] if examples.one_each else list(y.T)
  fits = [
    linear_model.LogisticRegression(**options).fit(x, one) for one in targets
  ]
  return {
    "output": {
      "kernel": np.concatenate([one.coef_ for one in fits]).T,
      "bias": np.concatenate([one.intercept_ for one in fits]),
    }
  }


@pytest.mark.parametrize("one_each", [False, True])
def test_a_linear_probe_reaches_the_optimum_of_logistic_regression(one_each):
  features, labelled = labelled_example.make(one_each)
  # Stopped on the training songs themselves: at the lowest loss.
  examples, _ = probe_data.prepare(features, labelled)
  examples = dataclasses.replace(examples, validation=examples.train)
  search = probe_training.Search(
    seeds=(0, 1), rates=(1e-2,), decays=(0.02, 0.2), batch=10_000,
    rounds=150, patience=150,
  )  # fmt: skip
  fitted = probe_training.fit(examples, search)
  for point, (_, decay) in enumerate(search.grid):
    best = _objective(_by_scikit_learn(examples, decay), examples, decay)
    last = jax.tree.map(lambda x, p=point: x[:, p], fitted["last"])
    for seed in range(2):
      params = jax.tree.map(lambda x, s=seed: x[s], last)
      found = _objective(params, examples, decay)
      assert best * (1 - 1e-6) <= found <= best * (1 + 1e-4)


def test_members_trained_together_are_those_trained_alone():
  features, labelled = labelled_example.make()
  examples, _ = probe_data.prepare(features, labelled)
  search = probe_training.Search(**QUICK, kind="mlp", rounds=3, batch=32)
  together = probe_training.fit(examples, search)
  rate, decay = search.grid[2]
  alone = probe_training.fit(
    examples,
    dataclasses.replace(search, seeds=(1,), rates=(rate,), decays=(decay,)),
  )
  for found, expected in zip(
    jax.tree.leaves(probe_training.member(together, 1, 2)),
    jax.tree.leaves(probe_training.member(alone, 0, 0)),
    strict=True,
  ):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_weights_of_the_lowest_validation_loss_are_kept():
  features, labelled = labelled_example.make(noise=3.0)
  examples, _ = probe_data.prepare(features, labelled)
  # A high rate on noise: the loss falls, then rises until the member stops.
  search = probe_training.Search(
    seeds=(0,), rates=(0.03,), decays=(0.0,), rounds=40, patience=4, kind="mlp"
  )
  fitted = probe_training.fit(examples, search)
  rounds = int(fitted["rounds"][0, 0])
  assert 4 < rounds < 40
  blocks = probe_training._in_blocks(examples.validation)
  losses = probe_training._validation_loss(
    fitted["best"], examples.features, examples.owners, examples.labels,
    blocks, False,
  )  # fmt: skip
  np.testing.assert_allclose(losses, fitted["best_loss"], rtol=1e-5)
  shorter = probe_training.fit(
    examples, dataclasses.replace(search, rounds=rounds - 4)
  )
  for found, expected in zip(
    jax.tree.leaves(fitted["best"]),
    jax.tree.leaves(shorter["last"]),
    strict=True,
  ):
    np.testing.assert_array_equal(found, expected)


def test_a_round_learns_from_each_row_once_before_any_comes_again():
  train = np.arange(10, 33, dtype=np.int32)
  found = probe_training.draw_order(train, (0, 5), 3, batch=7, steps=10)
  assert found.shape == (10, 2, 7)
  for seed in range(2):
    rows = found[:, seed].ravel()
    for begin in range(0, 69, 23):
      assert sorted(rows[begin : begin + 23]) == train.tolist()
  assert (found[:, 0] != found[:, 1]).any()
  again = probe_training.draw_order(train, (0, 5), 4, batch=7, steps=10)
  assert (found != again).any()


def test_scores_come_in_the_order_asked_for_whatever_the_blocks(monkeypatch):
  features, labelled = labelled_example.make()
  examples, _ = probe_data.prepare(features, labelled)
  params = probe_training.start("mlp", 8, 3, jax.random.key(0))
  assert params["hidden"]["kernel"].shape == (8, 160)  # The paper's.
  rows = np.random.default_rng(0).permutation(50).astype(np.int32)
  monkeypatch.setattr(probe_training, "_BLOCK", 7)
  found = probe_training.score(params, examples.features, rows)
  hidden = np.asarray(examples.features)[rows] @ params["hidden"]["kernel"]
  hidden = np.maximum(hidden + params["hidden"]["bias"][None], 0)
  expected = hidden @ params["output"]["kernel"]
  expected = expected + params["output"]["bias"][None]
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_features_are_standardised_by_those_of_training_songs():
  features, labelled = labelled_example.make()
  features[:, 3] = 7.0  # Constant: not divided by zero.
  examples, scale = probe_data.prepare(features, labelled)
  found = np.asarray(examples.features)[examples.train]
  np.testing.assert_allclose(found.mean(axis=0), 0.0, atol=1e-5)
  np.testing.assert_allclose(
    found.std(axis=0), [1, 1, 1, 0, 1, 1, 1, 1], atol=1e-5
  )
  assert set(examples.train) == set(
    np.flatnonzero(labelled.split == labelled_sets.TRAIN)
  )
  np.testing.assert_array_equal(scale.apply(features), examples.features)


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"tags": ("one", "two")}, "2 tags; 3"),
    ({"ids": ("a",)}, "1 ids; 200"),
    ({"split": np.zeros(200, np.int64)}, "no validation songs"),
    ({"one_each": True}, "one tag a song"),
  ],
)
def test_a_set_that_cannot_be_learnt_is_refused(change, words):
  features, labelled = labelled_example.make()
  with pytest.raises(errors.InputError, match=words):
    probe_data.prepare(features, dataclasses.replace(labelled, **change))


def test_features_of_another_length_or_not_finite_are_refused():
  features, labelled = labelled_example.make()
  with pytest.raises(errors.InputError, match="199 rows of features and 200"):
    probe_data.prepare(features[1:], labelled)
  with pytest.raises(errors.InputError, match="1 songs of made-up have no"):
    probe_data.prepare(features, labelled, np.maximum(np.arange(200), 1))
  features[17, 2] = np.nan
  with pytest.raises(errors.InputError, match="1 rows.*first: that of s17"):
    probe_data.prepare(features, labelled)


def test_songs_without_labels_and_labels_without_songs_are_counted():
  features, labelled = labelled_example.make()
  ids = ["new", *labelled.ids[5:][::-1], "newer"]
  found, rows, left_out = probe_data.align(labelled, ids)
  assert left_out == {
    probe_data.WITHOUT_SONG: 5,
    probe_data.WITHOUT_LABELS: 2,
  }
  assert found.ids == labelled.ids[5:]
  assert [ids[row] for row in rows] == list(found.ids)
  np.testing.assert_array_equal(found.labels, labelled.labels[5:])
  with pytest.raises(errors.InputError, match="none of the 200 songs"):
    probe_data.align(labelled, ["new"])
  with pytest.raises(errors.InputError, match="1 of 3 songs .* more than once"):
    probe_data.align(labelled, ["s1", "s2", "s1"])
