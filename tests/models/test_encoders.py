"""Tests of the encoders: golden numbers, statistics, types, masks."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.interop import torch_names
from pcl_jax.models import audio_encoder
from pcl_jax.models import genre_encoder
from pcl_jax.models import playlist_encoder
from tests.support import oracles
from tests.support.published import golden_encoders
from tests.support.published import golden_weights

pytestmark = pytest.mark.usefixtures("quick_compilation")

BACKBONES = ("resnet", "sc_cnn")
SHARES = golden_encoders.SHARES


def assert_close(got, golden, share):
  np.testing.assert_allclose(
    got, golden, rtol=0, atol=share * np.abs(golden).max()
  )


def table(rows=21, dims=8):
  drawn = np.random.default_rng(1).standard_normal((rows, dims))
  return drawn.astype(np.float32)


@nnx.jit
def attention_of(encoder, tags):
  return encoder.attention(encoder.embeddings[...][tags], tags)


def small_genre_encoder(dropout=0.0):
  return genre_encoder.GenreEncoder(
    table(), n_head=2, d_k=4, d_v=4, dropout=dropout, rngs=nnx.Rngs(0)
  )


@pytest.fixture(scope="module")
def golden():
  return golden_encoders.numbers("encoders.npz")


@pytest.fixture(scope="module", params=BACKBONES)
def golden_run(request, golden, quick_compilation):
  """An encoder with golden weights, its outputs, and it after training."""
  return request.param, *golden_encoders.run(request.param, golden)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_features_and_projection_are_the_published_ones(
  golden_run, golden, mode
):
  name, _, outputs, _, _ = golden_run
  features, projection = outputs[mode]
  assert_close(features, golden[f"{name}/{mode}/features"], SHARES[mode])
  assert_close(projection, golden[f"{name}/{mode}/projection"], SHARES[mode])


def test_training_moves_the_running_statistics_as_published(golden_run, golden):
  name, encoder, _, _, moved = golden_run
  trained = nnx.clone(encoder)
  nnx.update(trained, moved)
  arrays = torch_names.state_dict(trained)
  checked = 0
  for key, value in golden.items():
    if key.startswith(f"{name}/after_train/"):
      assert_close(arrays[key.rsplit("/", 1)[1]], value, SHARES["statistics"])
      checked += 1
  assert checked == 4


def test_evaluation_leaves_the_running_statistics_alone(golden_run):
  _, encoder, _, kept, _ = golden_run
  jax.tree.map(
    np.testing.assert_array_equal, kept, golden_encoders.parts(encoder)[2]
  )


def test_the_playlist_encoder_gives_the_published_numbers(golden):
  encoder = nnx.eval_shape(
    lambda: playlist_encoder.PlaylistEncoder(rngs=nnx.Rngs(0))
  )
  torch_names.load_into(encoder, golden_weights.draw_state_dict("cf"))
  out, _ = golden_encoders.apply(encoder, jnp.asarray(golden["cf/x"]), False)
  assert_close(out, golden["cf/eval/out"], SHARES["others"])


def test_the_genre_encoder_gives_the_published_numbers(golden):
  weights = golden_weights.draw_state_dict("genre_w2v")
  encoder = nnx.eval_shape(
    lambda: genre_encoder.GenreEncoder(table(250, 128), rngs=nnx.Rngs(0))
  )
  torch_names.load_into(encoder, weights)
  tags = jnp.asarray(golden["genre_w2v/tags"], jnp.int32)
  out, _ = golden_encoders.apply(encoder, tags, False)
  assert_close(out, golden["genre_w2v/eval/out"], SHARES["others"])
  attention = attention_of(encoder, tags)
  assert_close(attention, golden["genre_w2v/eval/attention"], SHARES["others"])


@pytest.mark.parametrize(
  ("name", "count"), [("resnet", 11_170_240), ("sc_cnn", 3_398_018)]
)
def test_a_backbone_has_as_many_parameters_as_published(name, count):
  encoder = nnx.eval_shape(
    lambda: audio_encoder.AudioEncoder(name, rngs=nnx.Rngs(0))
  )
  weights = jax.tree.leaves(nnx.state(encoder.backbone, nnx.Param))
  assert sum(leaf.size for leaf in weights) == count
  assert encoder.backbone.features == 1024


def test_the_order_of_genre_codes_does_not_matter_and_padding_takes_nothing():
  encoder = small_genre_encoder()
  tags = jnp.asarray([[3, 7, 20, 0], [20, 3, 7, 0]], jnp.int32)
  out, _ = golden_encoders.apply(encoder, tags, False)
  np.testing.assert_allclose(out[0], out[1], atol=1e-5)
  attention = attention_of(encoder, tags)
  np.testing.assert_array_equal(attention[..., 3], 0.0)
  np.testing.assert_allclose(attention.sum(-1), 1.0, rtol=1e-6)


def test_the_padding_row_of_the_genre_table_is_trained_like_the_others():
  tags = jnp.asarray([[3, 7, 0, 0]], jnp.int32)
  weighting = oracles.normal(1, 8)

  def loss(encoder):
    return (encoder(tags, training=False) * weighting).sum()

  gradient = nnx.jit(nnx.grad(loss))(small_genre_encoder())["embeddings"][...]
  used = np.flatnonzero(np.abs(gradient).sum(axis=1))
  np.testing.assert_array_equal(used, [0, 3, 7])


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_dropout_needs_a_key_only_when_it_drops(rate):
  encoder = small_genre_encoder(rate)
  tags = jnp.asarray([[3, 7, 0, 0]], jnp.int32)
  in_evaluation = encoder(tags, training=False)
  if rate == 0.0:
    np.testing.assert_array_equal(encoder(tags, training=True), in_evaluation)
    return
  with pytest.raises(ValueError, match="rate 0.4 .* needs a random key"):
    encoder(tags, training=True)
  key = jax.random.key(0)
  dropped = encoder(tags, training=True, key=key)
  assert not np.allclose(dropped, in_evaluation)
  again = encoder(tags, training=True, key=key)
  np.testing.assert_array_equal(dropped, again)


def test_an_encoder_splits_into_named_arrays_and_runs_in_both_modes_of_flax():
  outputs = []
  for graph_mode in (True, False):
    with nnx.set_graph_mode(graph_mode):
      encoder = torch_names.load_encoder(
        golden_weights.draw_narrow_state_dict("sc_cnn")
      )
      graph, weights, stats = golden_encoders.parts(encoder)
      x = oracles.normal(2, 256, 48).astype(jnp.float16)
      outputs.append(golden_encoders.apply(encoder, x, False)[0])
  leaves = jax.tree_util.tree_leaves_with_path((weights, stats))
  keys = [key.key for path, _ in leaves for key in path[1:]]
  assert all(isinstance(key, str) for key in keys)
  features, projection = outputs[0]
  assert features.shape == (2, 64) and projection.shape == (2, 128)
  assert features.dtype == projection.dtype == jnp.float32
  jax.tree.map(np.testing.assert_array_equal, *outputs)


@pytest.mark.parametrize("name", BACKBONES)
def test_features_and_statistics_stay_float32_with_bfloat16_convolutions(name):
  encoder = torch_names.load_encoder(
    golden_weights.draw_narrow_state_dict(name), compute_dtype=jnp.bfloat16
  )
  run = functools.partial(golden_encoders.apply, encoder, training=True)
  out = jax.eval_shape(run, oracles.normal(4, 256, 48))
  assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype("float32")}


def test_bfloat16_convolutions_come_near_the_float32_ones():
  x = oracles.normal(4, 256, 48)
  weights = golden_weights.draw_narrow_state_dict("sc_cnn")
  features = []
  for dtype in (jnp.float32, jnp.bfloat16):
    encoder = torch_names.load_encoder(weights, compute_dtype=dtype)
    (out, _), _ = golden_encoders.apply(encoder, x, False)
    features.append(np.asarray(out))
  difference = np.abs(features[0] - features[1]).mean()
  assert 0 < difference < 0.05 * features[0].std()


def test_an_unknown_backbone_is_refused_with_the_choices():
  with pytest.raises(errors.InputError, match="'vgg'.*resnet, sc_cnn"):
    audio_encoder.AudioEncoder("vgg", rngs=nnx.Rngs(0))
