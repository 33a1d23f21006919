"""Tests of compiled encoders: several devices give the bits of one."""

import atexit
import os
import queue
import threading
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


@pytest.fixture
def sizes(encoder, monkeypatch) -> tuple[compiled_encoder.Embedder, list[int]]:
  """An embedder, and how many patches the network was given in each call."""
  embedder, given = compiled_encoder.make_embedder(encoder), []
  network = embedder._embed

  def embed(variables, patches):
    given.append(len(patches))
    return network(variables, patches)

  monkeypatch.setattr(embedder, "_embed", embed)
  return embedder, given


@pytest.mark.parametrize(
  ("size", "calls"), [(5, [5]), (16, [16]), (17, [16, 16]), (64, [16] * 4)]
)
def test_a_call_of_the_network_has_a_piece_of_what_a_cpu_encodes(
  sizes, size, calls
):
  embedder, given = sizes
  embedder(np.zeros((size, 256, 48), np.float16))
  assert given == calls


@pytest.mark.parametrize(
  ("patches", "size", "calls"),
  [(1, 64, [16]), (70, 64, [16] * 5), (9, 8, [8, 8]), (3, 20, [16])],
)
def test_a_cpu_is_not_given_pieces_that_are_filler_alone(
  sizes, patches, size, calls
):
  embedder, given = sizes
  songs = [(0, np.zeros((patches, 256, 48), np.float16))]
  found = song_patches.encoded(embedder, song_patches.gathered(songs, size))
  assert sum(len(vectors) for _, vectors in found) == patches
  assert given == calls


def test_other_patches_of_a_call_do_not_change_bits(encoder):
  embedder = compiled_encoder.make_embedder(encoder)
  rng = np.random.default_rng(0)
  patches = rng.standard_normal((70, 256, 48)).astype(np.float16)
  whole = embedder(patches)
  np.testing.assert_array_equal(embedder(patches[:20]), whole[:20])
  np.testing.assert_array_equal(embedder(patches[32:]), whole[32:])


@pytest.fixture
def new_threads(monkeypatch):
  """Threads of one core that are not those of other tests."""
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
  compiled_encoder._pool.cache_clear()
  yield
  compiled_encoder._pool.cache_clear()


def test_pieces_are_encoded_where_a_system_has_no_affinity(
  encoder, new_threads, monkeypatch
):
  monkeypatch.delattr(os, "sched_getaffinity")
  patches = np.zeros((17, 256, 48), np.float16)
  assert len(compiled_encoder.make_embedder(encoder)(patches)) == 17


def test_a_program_that_ends_drops_the_pieces_that_have_not_begun(
  encoder, new_threads, monkeypatch
):
  at_end, begun, dropped = [], queue.SimpleQueue(), threading.Event()
  monkeypatch.setattr(atexit, "register", at_end.append)
  embedder = compiled_encoder.make_embedder(encoder)

  def encode(piece):
    begun.put(threading.current_thread())
    dropped.wait()
    return piece

  monkeypatch.setattr(embedder, "_encode", encode)
  embedder.begin(np.zeros((100, 256, 48), np.float16))
  assert begun.get(timeout=60).daemon
  join = threading.Thread.join

  def dropped_then_join(thread, timeout=None):
    dropped.set()
    join(thread, timeout=60)

  monkeypatch.setattr(threading.Thread, "join", dropped_then_join)
  for end in at_end:
    end()
  assert dropped.is_set() and begun.empty()


def test_one_cpu_is_one_device_however_many_it_is_made_to_be():
  assert len(jax.devices()) == 8
  assert compiled_encoder.own_devices() == jax.devices()[:1]


def test_all_accelerators_are_used(monkeypatch):
  gpus = [mock.Mock(spec=jax.Device, platform="gpu") for _ in range(2)]
  monkeypatch.setattr(jax, "local_devices", lambda: gpus)
  assert compiled_encoder.own_devices() == gpus
