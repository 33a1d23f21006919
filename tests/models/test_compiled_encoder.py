"""Tests of compiled encoders: several devices give the bits of one."""

from unittest import mock

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcl_jax.audio import song_patches
from pcl_jax.models import audio_encoder
from pcl_jax.models import compiled_encoder
from tests.support import quick_backbone

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def encoder(monkeypatch) -> audio_encoder.AudioEncoder:
  """An encoder that compiles at once."""
  quick_backbone.register(monkeypatch)
  return audio_encoder.AudioEncoder("quick", width=1, rngs=nnx.Rngs(0))


def _batches(count: int) -> list[song_patches.Batch]:
  rng = np.random.default_rng(0)
  return [
    song_patches.Batch(
      np.arange(2 * number, 2 * number + 2 - (number == count - 1)),
      rng.standard_normal((2, 256, 48)).astype(np.float16),
    )
    for number in range(count)
  ]


@pytest.mark.parametrize("batches", [1, 3, 7])
def test_three_devices_give_the_bits_of_one(encoder, batches):
  one, three = (
    compiled_encoder.make_embedder(encoder, devices=jax.devices()[:count])
    for count in (1, 3)
  )
  assert (one.at_once, three.at_once) == (1, 3)
  expected = list(song_patches.encoded(one, _batches(batches)))
  found = list(song_patches.encoded(three, _batches(batches)))
  assert len(found) == len(expected) == batches
  for ours, theirs in zip(found, expected, strict=True):
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1], theirs[1])


def test_any_number_of_patches_can_be_encoded_by_several_devices(encoder):
  three = compiled_encoder.make_embedder(encoder, devices=jax.devices()[:3])
  patches = _batches(4)[0].patches
  one = compiled_encoder.make_embedder(encoder, devices=jax.devices()[:1])
  np.testing.assert_allclose(three(patches), one(patches), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [16, 17, 32, 50])
def test_a_cpu_encodes_in_pieces_what_it_encodes_at_once(encoder, size):
  rng = np.random.default_rng(0)
  patches = rng.standard_normal((size, 256, 48)).astype(np.float16)
  found = compiled_encoder.make_embedder(encoder)(patches)
  expected = encoder(jnp.asarray(patches), False)[0]
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_other_patches_of_a_call_do_not_change_bits(encoder):
  embedder = compiled_encoder.make_embedder(encoder)
  rng = np.random.default_rng(0)
  patches = rng.standard_normal((70, 256, 48)).astype(np.float16)
  whole = embedder(patches)
  np.testing.assert_array_equal(embedder(patches[:20]), whole[:20])
  np.testing.assert_array_equal(embedder(patches[32:]), whole[32:])


def test_one_cpu_is_one_device_however_many_it_is_made_to_be():
  assert len(jax.devices()) == 8
  assert compiled_encoder.own_devices() == jax.devices()[:1]


def test_all_accelerators_are_used(monkeypatch):
  gpus = [mock.Mock(spec=jax.Device, platform="gpu") for _ in range(2)]
  monkeypatch.setattr(jax, "local_devices", lambda: gpus)
  assert compiled_encoder.own_devices() == gpus
