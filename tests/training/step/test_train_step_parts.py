"""Tests of microbatches: the same step in the memory of a part."""

import dataclasses
import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pcl_jax.data import strategies
from pcl_jax.models import encoders
from pcl_jax.models import layers
from pcl_jax.models import resnet
from pcl_jax.training import train_step
from tests.support import small_step

pytestmark = pytest.mark.usefixtures("quick_compilation")

SS = strategies.parse([["audio", "audio_self"]], "")


def _mesh(devices):
  return train_step.make_mesh(jax.devices()[:devices])


@functools.cache
def _gradient(strategy, count, devices=1, training=False):
  """Returns loss, gradients and new statistics of a step in parts."""
  model = small_step.SmallEncoders(rngs=nnx.Rngs(0))
  graphdef, state = train_step.new_state(model, optax.identity())
  mesh = _mesh(devices)
  recipe = dataclasses.replace(
    small_step.recipe(strategy, mixup_alpha=5.0), microbatches=count
  )

  def loss(params, batch):
    total, (_, stats) = train_step.compute_loss(
      graphdef,
      recipe,
      mesh,
      params,
      state["batch_stats"],
      batch,
      jax.random.key(3),
      training=training,
    )
    return total, stats

  split = jax.NamedSharding(mesh, jax.P("data"))
  everywhere = jax.NamedSharding(mesh, jax.P())
  step = jax.jit(jax.value_and_grad(loss, has_aux=True))
  return jax.device_get(
    step(
      jax.device_put(state["params"], everywhere),
      jax.device_put(small_step.batch(), split),
    )
  )


@pytest.mark.parametrize(
  "strategy, count, devices",
  [
    (SS, 4, 2),
    pytest.param(small_step.HYBRID, 2, 1, marks=pytest.mark.long),
    pytest.param(small_step.HYBRID, 8, 1, marks=pytest.mark.long),
    pytest.param(small_step.HYBRID, 4, 2, marks=pytest.mark.long),
  ],
)
def test_with_frozen_statistics_gradients_are_those_of_the_whole_batch(
  strategy, count, devices
):
  """Mixup, which crosses the parts, is drawn for the whole batch."""
  (loss, _), gradients = _gradient(strategy, count, devices)
  (expected_loss, _), expected = _gradient(strategy, 1)
  np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
  assert any(map(np.any, jax.tree.leaves(expected)))
  small_step.assert_close(gradients, expected, 1e-5)


@pytest.mark.long
def test_with_statistics_of_each_part_gradients_stay_close(one_block):
  """Parts of 32 patches; one of few patches has statistics of its own."""
  whole, parts = _resnet_gradient(1), _resnet_gradient(2)
  flat = [
    np.concatenate([x.ravel() for x in jax.tree.leaves(one)])
    for one in (whole, parts)
  ]
  cosine = flat[0] @ flat[1] / np.prod([np.linalg.norm(x) for x in flat])
  assert 0.9 < cosine < 1 - 1e-6


@pytest.fixture(scope="module")
def one_block():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(resnet, "STAGES", 1)
    patch.setattr(resnet, "BLOCKS_PER_STAGE", 1)
    yield


@functools.cache
def _resnet_gradient(count, rows=64, **audio):
  """Returns the gradient of SS in training, of a narrow ResNet."""
  model = encoders.Encoders(
    audio_params={"backbone_type": "resnet", "width": 2} | audio,
    rngs=nnx.Rngs(0),
  )
  graphdef, state = train_step.new_state(model, optax.identity())
  recipe = dataclasses.replace(small_step.recipe(SS), microbatches=count)
  rng = np.random.default_rng(0)
  songs = rng.uniform(-2, 1, (rows // 2, 1, 48))
  patches = np.tile(songs, (2, 1, 1)) + rng.normal(0, 0.3, (rows, 64, 48))
  batch = {"audio": jnp.asarray(patches, jnp.float16)}

  def loss(params):
    return train_step.compute_loss(
      graphdef,
      recipe,
      _mesh(1),
      params,
      state["batch_stats"],
      batch,
      jax.random.key(3),
      training=True,
    )[0]

  return jax.device_get(jax.jit(jax.grad(loss))(state["params"]))


def test_a_block_computed_twice_gives_the_same_gradient():
  block = resnet.BasicBlock(2, 2, rngs=nnx.Rngs(0))
  graphdef, params, stats = nnx.split(block, nnx.Param, nnx.BatchStat)
  x = jax.random.normal(jax.random.key(0), (2, 4, 6, 2))

  @functools.partial(jax.jit, static_argnums=1)
  @jax.grad
  def gradient(params, remat):
    block = nnx.merge(graphdef, params, stats, copy=True)
    return (layers.run_block(block, x, True, remat) ** 2).sum()

  small_step.assert_close(
    *(nnx.to_pure_dict(gradient(params, remat)) for remat in (True, False)),
    1e-5,
  )


@pytest.mark.long
def test_blocks_computed_twice_give_the_same_gradient(one_block):
  small_step.assert_close(
    _resnet_gradient(1, 8, remat=True), _resnet_gradient(1, 8), 1e-5
  )


def test_statistics_of_a_step_are_the_mean_of_those_of_its_parts():
  """Each part starts from the statistics before the step."""
  mesh = _mesh(1)
  rows = jnp.arange(12.0).reshape(12, 1)
  embeddings, mean = train_step.embed_in_parts(
    lambda x, _: (2 * x, x.sum()), rows, None, count=3, mesh=mesh
  )
  np.testing.assert_array_equal(embeddings, 2 * rows)
  assert mean == rows.sum() / 3


def test_parts_keep_the_order_of_rows_on_any_number_of_devices():
  rows = jnp.arange(32.0).reshape(32, 1)
  for devices in (1, 2, 8):
    embed = functools.partial(
      train_step.embed_in_parts,
      lambda x, _: (x, x.sum()),
      key=None,
      count=4,
      mesh=_mesh(devices),
    )
    np.testing.assert_array_equal(jax.jit(embed)(rows)[0], rows)


def test_both_passes_draw_the_same_dropout():
  """Else the gradient would not be that of the loss: here it is exact."""
  mesh, key = _mesh(1), jax.random.key(0)

  def embed(rows, key):
    kept = jax.random.bernoulli(key, 0.5, rows.shape)
    return jnp.where(kept, rows, 0.0), jnp.zeros(())

  rows = jnp.ones((8, 4))
  out, pull = jax.vjp(
    lambda x: train_step.embed_in_parts(embed, x, key, count=4, mesh=mesh)[0],
    rows,
  )
  np.testing.assert_array_equal(pull(jnp.ones_like(out))[0], out)
  assert 0 < out.sum() < out.size
  parts = out.reshape(4, -1)
  assert len({tuple(part) for part in parts.tolist()}) > 1
