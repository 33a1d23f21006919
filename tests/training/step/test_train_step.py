"""Tests of pcl_jax.training.train_step."""

import dataclasses
import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.ahead_of_time import compiled_program
from pcl_jax.audio import feature_augmentation
from pcl_jax.data import strategies
from pcl_jax.losses import collapse
from pcl_jax.models import encoders
from pcl_jax.training import optimizers
from pcl_jax.training import train_step
from tests.support import oracles
from tests.support import small_step

pytestmark = pytest.mark.usefixtures("quick_compilation")

RATE, DECAY = small_step.RATE, small_step.DECAY
SS = strategies.parse([["audio", "audio_self"]], "")
A_P, A_G, G_P = small_step.A_P, small_step.A_G, small_step.G_P


def _sc_cnn() -> encoders.Encoders:
  return encoders.Encoders(
    audio_params={"backbone_type": "sc_cnn", "width": 4}, rngs=nnx.Rngs(0)
  )


@functools.cache
def _learn(devices: int, steps: int):
  """Takes steps of a fixed batch.

  Returns:
    The total of each, and gradient and statistics after the first.
  """
  state, (step, _), split = small_step.start(
    _sc_cnn(),
    optimizers.make_optimizer(2e-3, 0.0),
    small_step.recipe(SS),
    devices,
  )
  batch, totals = split(small_step.batch(frames=256)), []
  for i in range(steps):
    state, terms = step(state, batch, jax.random.key(0))
    totals.append(float(terms["total"]))
    if not i:  # The first moments are then a tenth of the gradient.
      gradient = jax.device_get(optax.tree.get(state, "mu"))
      stats = jax.device_get(state["batch_stats"])
  return totals, gradient, stats


def test_a_fixed_batch_is_learnt_by_the_cnn():
  totals, _, _ = _learn(1, 6)
  assert totals[-1] < 0.1 * totals[0]


@pytest.mark.long  # A short form is below.
def test_the_cnn_learns_alike_on_1_and_8_devices():
  one, eight = _learn(1, 6), _learn(8, 1)
  np.testing.assert_allclose(eight[0], one[0][:1], rtol=1e-5)
  small_step.assert_close(eight[2], one[2], 1e-5)
  small_step.assert_close(eight[1], one[1], 1e-3)


def _adam_by_hand(p, gradients, lr, decay, decoupled=False):
  """Takes steps of Adam in float64, L2 in the gradient or beside it."""
  p = p.astype(np.float64)
  m, v = np.zeros_like(p), np.zeros_like(p)
  for t, g in enumerate(gradients, start=1):
    g = g.astype(np.float64) + (0 if decoupled else decay * p)
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    p = p - lr * (step + (decay * p if decoupled else 0))
  return p


def test_weight_decay_enters_the_gradient_before_the_moments_of_adam():
  rng = np.random.default_rng(0)
  start = rng.standard_normal((3, 4)).astype(np.float32)
  gradients = 0.1 * rng.standard_normal((5, 3, 4)).astype(np.float32)
  optimizer = optimizers.make_optimizer(0.01, 0.2)
  params = {"a": jnp.asarray(start), "bias": jnp.asarray(start[0])}
  state = optimizer.init(params)
  for g in gradients:
    g = {"a": jnp.asarray(g), "bias": jnp.asarray(g[0])}
    updates, state = optimizer.update(g, state, params)
    params = optax.apply_updates(params, updates)
  expected = _adam_by_hand(start, gradients, 0.01, 0.2)
  np.testing.assert_allclose(params["a"], expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(params["bias"], expected[0], rtol=1e-5, atol=1e-6)
  apart = _adam_by_hand(start, gradients, 0.01, 0.2, decoupled=True)
  assert np.abs(expected - apart).max() > 0.01


def test_a_step_decays_every_parameter_of_every_encoder_biases_too():
  _, gradients, _, before, after = small_step.first_step(small_step.HYBRID, 1)

  def check(p, g, actual):
    expected = _adam_by_hand(p, [g], RATE, DECAY)
    # Where gradient and decay cancel out, Adam turns rounding into a step.
    sure = np.abs(g + DECAY * p) > 1e-5
    np.testing.assert_allclose(actual[sure], expected[sure], atol=1e-5)
    assert sure.mean() > 0.9

  jax.tree.map(check, before, gradients, after)


@pytest.fixture(scope="module")
def mixed():
  """A state of the small encoders, and their steps with mixup."""
  optimizer = optimizers.make_optimizer(0.0, 0.0)  # So that nothing moves.
  model = small_step.SmallEncoders(rngs=nnx.Rngs(0))
  state, steps, split = small_step.start(
    model, optimizer, small_step.recipe(SS, 7.0)
  )
  host = jax.device_get(state)
  where = jax.tree.map(lambda x: x.sharding, state)

  def fresh(**changes):
    return jax.device_put(host | changes, where)

  return host, fresh, steps, split(small_step.batch())


def test_evaluation_changes_no_state_and_repeats_itself(mixed):
  host, fresh, (train, evaluate), batch = mixed
  state = fresh()
  first, sample = jax.device_get(evaluate(state, batch, jax.random.key(0)))
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), host)
  again, _ = jax.device_get(evaluate(state, batch, jax.random.key(0)))
  assert first == again
  assert sample.shape == (2, small_step.ROWS // 2, 8)
  trained, terms = train(state, batch, jax.random.key(0))
  norm = trained["batch_stats"]["norm"]
  assert np.abs(norm["mean"] - host["batch_stats"]["norm"]["mean"]).min() > 0
  assert float(terms["total"]) != float(first["total"])


def test_collapse_is_measured_on_the_first_rows_of_all_samples(monkeypatch):
  monkeypatch.setattr(train_step, "COLLAPSE_ROWS", 12)
  samples = [oracles.normal(2, n, 3, seed=n) for n in (4, 1, 3)]
  found = train_step.collapse_terms(samples, paired=True)
  first, second = jnp.concatenate(samples, axis=1)[:, :6]
  rows = jnp.concatenate([first, second])
  for name, value in collapse.diagnostics(rows).items():
    np.testing.assert_allclose(found[f"collapse_{name}"], value, rtol=1e-5)
  expected = collapse.alignments(first, second).mean()
  np.testing.assert_allclose(found["collapse_alignment"], expected, rtol=1e-5)
  unpaired = train_step.collapse_terms(samples, paired=False)
  assert found.keys() - unpaired.keys() == {"collapse_alignment"}


def test_evaluation_returns_the_batch_statistics_it_was_given():
  graphdef, state = train_step.new_state(
    small_step.SmallEncoders(rngs=nnx.Rngs(0)), optax.identity()
  )
  moved = jax.tree.map(lambda x: x + 0.5, state["batch_stats"])

  @jax.jit
  def stats(params, batch_stats, batch):
    loss = train_step.compute_loss(
      graphdef,
      small_step.recipe(SS),
      train_step.make_mesh(jax.devices()[:1]),
      params,
      batch_stats,
      batch,
      jax.random.key(0),
      training=False,
    )
    return loss[1][1]

  found = stats(state["params"], moved, small_step.batch())
  jax.tree.map(np.testing.assert_array_equal, found, moved)


def test_a_step_leaves_out_rows_of_one_song_as_negatives(mixed):
  _, fresh, (_, evaluate), batch = mixed
  without = {name: rows for name, rows in batch.items() if name != "songs"}
  fewer, all_others = (
    float(evaluate(fresh(), some, jax.random.key(0))[0]["total"])
    for some in (batch, without)
  )
  assert fewer < all_others - 1e-4


def test_mixup_changes_the_loss_and_follows_the_key(mixed):
  host, fresh, (_, evaluate), batch = mixed
  _, (_, unmixed), _ = small_step.start(
    small_step.SmallEncoders(rngs=nnx.Rngs(0)),
    optax.identity(),
    small_step.recipe(SS),
  )
  state = fresh()

  def total(step, seed):
    return float(step(state, batch, jax.random.key(seed))[0]["total"])

  plain = {k: host[k] for k in ("params", "batch_stats")}
  off = {
    float(unmixed(plain, batch, jax.random.key(seed))[0]["total"])
    for seed in range(3)
  }
  on = {total(evaluate, seed) for seed in range(3)}
  assert len(off) == 1  # Nor is there dropout in evaluation.
  assert len(on) == 3
  assert not off & on


def _programs(recipe):
  """Returns the text of the steps of training and evaluation."""
  state, steps, split = small_step.start(
    small_step.SmallEncoders(rngs=nnx.Rngs(0)), optax.identity(), recipe
  )
  given = (state, split(small_step.batch()), jax.random.key(0))
  return [step.lower(*given).as_text() for step in steps]


def test_augmentation_changes_the_training_step_and_no_evaluation():
  plain = small_step.recipe(SS, 7.0)
  strengths = feature_augmentation.Strengths(gain_db=6.0, time_masks=1)
  train, evaluate = _programs(plain)
  augmented = dataclasses.replace(plain, augmentation=strengths)
  augmented_train, augmented_evaluate = _programs(augmented)
  assert augmented_train != train
  assert augmented_evaluate == evaluate


def test_each_step_draws_anew_and_a_resumed_run_draws_the_same(mixed):
  _, fresh, (train, _), batch = mixed
  key = jax.random.key(0)
  state, unbroken = fresh(), []
  for _ in range(3):
    state, terms = train(state, batch, key)
    unbroken.append(float(terms["total"]))
  assert int(state["step"]) == 3
  assert len(set(unbroken)) == 3
  resumed = fresh(step=np.int32(2))
  _, terms = train(resumed, batch, key)
  # The losses do not depend on the running statistics of the steps between.
  assert float(terms["total"]) == unbroken[2]


def test_a_training_step_frees_the_state_it_was_given(mixed):
  _, fresh, (train, _), batch = mixed
  state = fresh()
  train(state, batch, jax.random.key(0))
  assert state["params"]["fc"]["hidden"]["kernel"].is_deleted()


# On several devices. The best-known fault of contrastive training there is that
# each takes negatives, or gradients, or batch statistics, of its own rows
# alone: the run goes on and learns something else.

# The terms of the other variants are among these; which songs are pairs, by
# playlist or artist, is the plan's.
STRATEGIES = {
  "SS": ([["audio", "audio_self"]], ""),
  "CM A,G,P": ([A_P, A_G, G_P], ""),
  "A-IM Playlist": ([], "Playlist"),
  "Hybrid Genre + A,G,P": ([A_P, A_G, G_P], "Genre"),
}
SHORT = "Hybrid Genre + A,G,P"  # It has the terms of the others.


def _step(name, devices):
  """Returns terms, gradients, statistics and parameters of a mixed step."""
  strategy = strategies.parse(*STRATEGIES[name])
  return small_step.first_step(strategy, devices)


def _assert_same_step(one, several):
  for name, value in one[0].items():
    np.testing.assert_allclose(several[0][name], value, rtol=1e-5, err_msg=name)
  for expected, found in zip(one[1:], several[1:], strict=True):
    small_step.assert_close(found, expected, 1e-4)


@pytest.mark.parametrize(
  "name, devices",
  [
    pytest.param(
      name,
      devices,
      marks=[] if (name, devices) == (SHORT, 8) else pytest.mark.long,
    )
    for name in STRATEGIES
    for devices in (2, 4, 8)
  ],
)
def test_loss_gradients_parameters_and_statistics_are_those_of_one_device(
  name, devices
):
  one = _step(name, 1)
  assert any(map(np.any, jax.tree.leaves(one[1])))
  _assert_same_step(one, _step(name, devices))


@pytest.mark.parametrize(
  "how",
  [
    {},
    pytest.param({"all_positives": True}, marks=pytest.mark.long),
    pytest.param({"tiled_above": 1, "tile": 3}, marks=pytest.mark.long),
  ],
)
def test_eight_devices_gather_what_the_loss_compares_and_move_no_rows(how):
  """As the program says; the values are those of one device."""
  rows, rng = 32, np.random.default_rng(0)
  recipe = dataclasses.replace(small_step.recipe(small_step.HYBRID), **how)
  found = {
    mode: rng.standard_normal((rows, 8)).astype(np.float32)
    for mode in ("audio", "cf", "genre_w2v")
  }
  batch = {
    "audio": np.zeros((rows, 1, 1), np.float32),
    "songs": rng.integers(0, 20, rows, np.int32),
    "genre_w2v": rng.integers(0, 4, (rows, 3), np.int32),
  }
  values = []
  for devices in (1, 8):
    mesh = train_step.make_mesh(jax.devices()[:devices])

    def loss(found, batch, mesh=mesh):
      return train_step._terms(recipe, mesh, found, batch)["total"]

    split = jax.NamedSharding(mesh, jax.P("data"))
    arguments = jax.device_put((found, batch), split)
    program = jax.jit(jax.value_and_grad(loss)).lower(*arguments).compile()
    values.append(jax.device_get(program(*arguments)))
  exchanged = compiled_program.read(program.as_text()).collectives
  assert set(exchanged) == {"all-gather", "all-reduce"}
  small_step.assert_close(*reversed(values), 1e-5)


def test_negatives_of_the_own_device_alone_would_be_noticed():
  """What the tests above guard against is no rounding."""
  strategy = strategies.parse(*STRATEGIES["SS"])
  state, (_, evaluate), split = small_step.start(
    small_step.SmallEncoders(rngs=nnx.Rngs(0)),
    optax.identity(),
    small_step.recipe(strategy),
  )

  def total(part):
    rows = {k: v[part] for k, v in small_step.batch().items()}
    return evaluate(state, split(rows), jax.random.key(0))[0]["total"]

  halves = [total(slice(first, None, 2)) for first in (0, 1)]
  assert abs(np.mean(halves) - total(slice(None))) > 0.1


@pytest.mark.parametrize(
  "kind", [pytest.param("training", marks=pytest.mark.long), "evaluation"]
)
def test_every_product_of_a_step_has_the_precision_that_is_asked_for(kind):
  def products(precision):
    recipe = dataclasses.replace(small_step.recipe(), precision=precision)
    model = small_step.SmallEncoders(rngs=nnx.Rngs(0))
    state, steps, _ = small_step.start(
      model, optimizers.make_optimizer(0.1, 0.0), recipe
    )
    step = steps[kind == "evaluation"]
    text = step.lower(state, small_step.batch(), jax.random.key(0)).as_text()
    lines = [line for line in text.splitlines() if "dot_general" in line]
    return ["HIGHEST" in line for line in lines]

  own, asked = products(None), products("highest")
  assert len(own) == len(asked) > 10
  assert all(asked) and any(own) and not all(own)  # The loss always asks.
