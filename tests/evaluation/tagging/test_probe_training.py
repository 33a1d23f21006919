"""Tests of pcl_jax.evaluation.tagging.probe_training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import linear_model

from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import probe_file
from pcl_jax.evaluation.tagging import probe_training
from tests.support import labelled_example

pytestmark = pytest.mark.usefixtures("quick_compilation")


def _examples(single_label: bool = False, noise: float = 0.5):
  """Examples, training rows and validation rows."""
  features, labelled = labelled_example.make(single_label, noise)
  train, validation = (
    np.flatnonzero(labelled.split == part)
    for part in (labelled_sets.TRAIN, labelled_sets.VALIDATION)
  )
  scale = probe_file.Scale.measure(features[train])
  examples = probe_training.Examples(
    jnp.asarray(scale.apply(features)),
    jnp.arange(len(features)),
    jnp.asarray(labelled.labels, jnp.float32),
    single_label,
  )
  return examples, train, validation


def _objective(params, examples, train, decay):
  """The penalised training loss of a linear probe, in float64."""
  kernel = np.asarray(params["output"]["kernel"], np.float64)
  bias = np.asarray(params["output"]["bias"], np.float64)
  x = np.asarray(examples.features, np.float64)[train]
  y = np.asarray(examples.labels, np.float64)[train]
  scores = x @ kernel + bias
  if examples.single_label:
    loss = np.logaddexp.reduce(scores, axis=1) - (scores * y).sum(axis=1)
  else:
    loss = (np.logaddexp(0, scores) - scores * y).sum(axis=1)
  return loss.mean() + decay / 2 * (kernel**2).sum()


def _by_scikit_learn(examples, train, decay):
  """The same problem, solved by scikit-learn; weights as of a probe."""
  x = np.asarray(examples.features, np.float64)[train]
  y = np.asarray(examples.labels)[train]
  options = {"C": 1 / (len(x) * decay), "tol": 1e-8, "max_iter": 1000}
  targets = [y.argmax(axis=1)] if examples.single_label else list(y.T)
  fits = [
    linear_model.LogisticRegression(**options).fit(x, one) for one in targets
  ]
  return {
    "output": {
      "kernel": np.concatenate([one.coef_ for one in fits]).T,
      "bias": np.concatenate([one.intercept_ for one in fits]),
    }
  }


@pytest.mark.parametrize("single_label", [False, True])
def test_a_linear_probe_reaches_the_optimum_of_logistic_regression(
  single_label,
):
  examples, train, validation = _examples(single_label)
  for decay in (0.02, 0.2):
    search = probe_training.Search(
      **(labelled_example.ONE_MEMBER | {"decays": (decay,)}),
      rounds=150,
      patience=150,
    )
    fitted = probe_training.fit(examples, train, validation, search)
    expected = _by_scikit_learn(examples, train, decay)
    best = _objective(expected, examples, train, decay)
    last = jax.tree.map(lambda x: x[0, 0], fitted.params)
    found = _objective(last, examples, train, decay)
    assert best * (1 - 1e-6) <= found <= best * (1 + 1e-4)


def test_members_trained_together_are_those_trained_alone():
  made = _examples()
  search = probe_training.Search(**labelled_example.EIGHT_MEMBERS, rounds=3)
  together = probe_training.fit(*made, search)
  rate, decay = search.grid[3]
  alone = probe_training.fit(
    *made,
    dataclasses.replace(search, seeds=(1,), rates=(rate,), decays=(decay,)),
  )
  for found, expected in zip(
    jax.tree.leaves(together.best), jax.tree.leaves(alone.best), strict=True
  ):
    np.testing.assert_allclose(
      found[1, 3], expected[0, 0], rtol=1e-4, atol=1e-6
    )


def test_the_weights_of_the_lowest_validation_loss_are_kept():
  examples, train, validation = _examples(noise=3.0)
  # A high rate on noise: the loss falls, then rises until the member stops.
  search = probe_training.Search(
    seeds=(0,), rates=(0.03,), decays=(0.0,), rounds=40, patience=4, kind="mlp"
  )
  fitted = probe_training.fit(examples, train, validation, search)
  rounds = int(fitted.rounds[0, 0])
  assert 4 < rounds < 40
  best = jax.tree.map(lambda x: x[0, 0], fitted.best)
  scores = probe_training.score(best, examples.features, validation)
  scores = jnp.asarray(scores)
  labels = examples.labels[validation]
  loss = probe_training.losses(scores, labels, False).mean()
  np.testing.assert_allclose(loss, fitted.best_loss[0, 0], rtol=1e-5)
  search = dataclasses.replace(search, rounds=rounds - 4)
  shorter = probe_training.fit(examples, train, validation, search)
  for found, expected in zip(
    jax.tree.leaves(fitted.best), jax.tree.leaves(shorter.params), strict=True
  ):
    np.testing.assert_array_equal(found, expected)


def test_a_round_learns_from_each_row_once_before_any_comes_again():
  train = np.arange(10, 33, dtype=np.int32)
  found = probe_training.draw_order(train, (0, 5), 3, batch=7, steps=10)
  assert found.shape == (2, 10, 7)
  for rows in found.reshape(2, 70):
    for begin in range(0, 69, 23):
      assert sorted(rows[begin : begin + 23]) == train.tolist()
  assert (found[0] != found[1]).any()
  again = probe_training.draw_order(train, (0, 5), 4, batch=7, steps=10)
  assert (found != again).any()


def test_scores_come_in_the_order_asked_for_whatever_the_blocks(monkeypatch):
  rng = np.random.default_rng(0)
  features = rng.standard_normal((60, 8)).astype(np.float32)
  params = probe_training.start("mlp", 8, 3, jax.random.key(0))
  assert params["hidden"]["kernel"].shape == (8, 160)  # The paper's.
  rows = rng.permutation(50)
  monkeypatch.setattr(probe_training, "_BLOCK", 7)
  found = probe_training.score(params, jnp.asarray(features), rows)
  hidden = features[rows] @ params["hidden"]["kernel"]
  hidden = np.maximum(hidden + params["hidden"]["bias"][None], 0)
  expected = hidden @ params["output"]["kernel"]
  expected = expected + params["output"]["bias"][None]
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
