"""Tests of pcl_jax.data.read_order: reading for slow disks."""

import itertools
from unittest import mock

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from pcl_jax.data import catalogues
from pcl_jax.data import loader
from pcl_jax.data import pairs
from pcl_jax.data import plans
from pcl_jax.data import read_order
from pcl_jax.data import song_store
from tests.support.tiny import tiny_data

CATALOGUE = tiny_data.tiny_catalogue(songs=200, seed=1)
BLOCKS = read_order.Blocks(count=10, cached_batches=3)
BATCH = 4


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> song_store.SongStore:
  path = tmp_path_factory.mktemp("blocks") / "songs.lmdb"
  return tiny_data.tiny_store(path, CATALOGUE, frames=(200, 700))


def _plan(kind: str, store, *, blocks=BLOCKS, seed=0, epoch=0) -> plans.Plan:
  plan = _plain_plan(kind, store, {"seed": seed, "epoch": epoch})
  if blocks is None:
    return plan
  return read_order.reorder(
    plan,
    blocks,
    rows=len(CATALOGUE),
    paired=kind != "songs",
    seed=seed,
    epoch=epoch,
  )


def _plain_plan(kind: str, store, draw: dict[str, int]) -> plans.Plan:
  songs = CATALOGUE.rows_of(catalogues.TRAIN)
  if kind == "songs":
    return plans.of_songs(songs, store.frames, BATCH, **draw)
  if kind == "two patches":
    return plans.of_two_patches(
      songs, store.frames, BATCH, double_window=300, **draw
    )
  return plans.of_pairs(
    CATALOGUE.pair_lists(kind),
    CATALOGUE.split == catalogues.TRAIN,
    store.frames,
    BATCH,
    once=pairs.ONCE_AN_EPOCH[kind],
    **draw,
  )


KINDS = ("songs", "two patches", "Playlist", "Artist")


@pytest.mark.parametrize("steps", [1, 5, 100])
def test_joined_plans_read_what_their_steps_hold_and_no_more(store, steps):
  parts = [_plan("two patches", store, epoch=epoch) for epoch in range(2)]
  plan = plans.joined(parts, steps)
  assert len(plan) == min(steps, sum(map(len, parts)))
  slots, ends = plan.reads.slots, plan.reads.ends
  assert sorted(slots.tolist()) == list(range(plan.songs.size))
  patches = plan.songs.shape[1]
  for step, end in enumerate(ends.tolist()):
    held = set(slots[:end].tolist())
    assert held >= set(range(step * patches, (step + 1) * patches))
  assert ends[-1] == plan.songs.size


def _sharding(devices: int = 1) -> jax.NamedSharding:
  auto = jax.sharding.AxisType.Auto
  mesh = jax.make_mesh(
    (devices,), ("data",), (auto,), devices=jax.devices()[:devices]
  )
  return jax.NamedSharding(mesh, jax.P("data"))


def _load(store, plan, devices=1, threads=2, first_step=0):
  tables = {"row": np.arange(200)}
  return loader.load(
    store,
    tables,
    plan,
    _sharding(devices),
    threads=threads,
    first_step=first_step,
  )


@pytest.mark.parametrize("kind", KINDS)
def test_batches_read_in_blocks_hold_what_the_plan_says(store, kind):
  plan = _plan(kind, store)
  anyhow = plans.Plan(plan.songs, plan.starts)
  assert len(plan) > 10
  for ours, plain in zip(_load(store, plan), _load(store, anyhow), strict=True):
    for name in plain:
      np.testing.assert_array_equal(ours[name], plain[name])


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_items_are_used_in_either_order(store, kind):
  plan, plain = _plan(kind, store), _plan(kind, store, blocks=None)
  views = 1 if kind == "songs" else 2

  def items(one):
    parts = np.stack([one.songs, one.starts]).reshape(2, len(one), views, BATCH)
    return sorted(
      map(tuple, parts.transpose(1, 3, 2, 0).reshape(-1, 2 * views))
    )

  assert items(plan) == items(plain)
  assert (plan.songs != plain.songs).any()


@pytest.mark.parametrize("first_step", [1, 7, 12])
@pytest.mark.parametrize("kind", ["songs", "Playlist"])
def test_a_resumed_epoch_goes_on_with_the_same_batches(store, kind, first_step):
  plan = _plan(kind, store)
  rest = itertools.islice(_load(store, plan), first_step, None)
  for one, other in zip(
    _load(store, plan, 4, 4, first_step), rest, strict=True
  ):
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])


def test_a_plan_is_a_function_of_seed_and_epoch(store):
  one, same = (
    _plan("Playlist", store, epoch=3),
    _plan("Playlist", store, epoch=3),
  )
  assert np.array_equal(one.songs, same.songs)
  assert np.array_equal(one.reads.slots, same.reads.slots)
  for other in (
    _plan("Playlist", store, epoch=4),
    _plan("Playlist", store, epoch=3, seed=1),
  ):
    assert not np.array_equal(one.songs, other.songs)


def _songs_as_read(store, plan) -> list[int]:
  """Loads an epoch; returns its songs in the order they were read."""
  seen = []
  read_patches = song_store.SongStore.read_patches

  def note(self, songs, starts, out):
    seen.extend(songs.tolist())
    read_patches(self, songs, starts, out)

  with mock.patch.object(song_store.SongStore, "read_patches", note):
    for _ in _load(store, plan):
      pass
  return seen


def _backward(songs: list[int]) -> int:
  return int((np.diff(songs) < 0).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_reads_go_forward_but_from_block_to_block(store, kind):
  plan = _plan(kind, store)
  seen = _songs_as_read(store, plan)
  assert len(seen) == plan.songs.size
  assert _backward(seen) < BLOCKS.count
  shuffled = _songs_as_read(store, plans.Plan(plan.songs, plan.starts))
  assert _backward(shuffled) > plan.songs.size / 4


def test_blocks_are_read_in_another_order_each_epoch(store):
  firsts = [
    tuple(np.unique(_times(epoch), return_index=True)[1]) for epoch in range(4)
  ]
  assert len(set(firsts)) == 4


def _times(epoch):
  return read_order._read_times(
    np.arange(200), 200, BLOCKS, plans.generator(0, epoch, 3)
  )


def test_a_block_is_neighbours_in_the_store():
  times = read_order._read_times(
    np.arange(20, 120), 200, BLOCKS, np.random.default_rng(0)
  )
  assert (times[:20] == -1).all() and (times[120:] == -1).all()
  blocks = times[20:120].reshape(10, 10)
  assert (blocks == blocks[:, :1]).all()
  assert sorted(blocks[:, 0]) == list(range(10))


@settings(deadline=None)
@given(
  st.lists(st.integers(0, 12), max_size=80),
  st.integers(1, 5),
  st.integers(0, 6),
  st.integers(0, 99),
)
def test_a_batch_is_drawn_as_soon_as_enough_is_held(
  ready, batch_size, cached, seed
):
  """The published rule: so many batches are held before one is drawn."""
  ready = np.array(ready, int)
  order = read_order._draw_order(
    ready, batch_size, cached, np.random.default_rng(seed)
  )
  assert sorted(order.tolist()) == list(range(len(ready)))
  drawn = 0
  for time in np.unique(ready):
    arrived = int((ready <= time).sum())
    while arrived - drawn > cached * batch_size and drawn < len(order):
      batch = order[drawn : drawn + batch_size]
      assert (ready[batch] <= time).all() or arrived - drawn < batch_size
      drawn += batch_size


@pytest.mark.parametrize("kind", KINDS)
def test_no_more_is_held_than_said(store, kind):
  plan = _plan(kind, store)
  rows = slice(0, plan.songs.shape[1])
  cache = read_order.BlockCache(store, plan, rows)
  out = np.empty((rows.stop, 256, 48), np.float16)
  for step in range(len(plan)):
    cache.take(step, out)
  # Free places were never short, and all are free at the end.
  assert sorted(cache._free.tolist()) == list(range(cache.capacity))
  if kind == "songs":
    block = -(-len(CATALOGUE.rows_of(catalogues.TRAIN)) // BLOCKS.count)
    assert cache.capacity <= BLOCKS.cached_batches * BATCH + block + BATCH


def test_each_process_holds_its_own_rows_only(store):
  plan = _plan("Playlist", store)
  half = plan.songs.shape[1] // 2
  whole = np.empty((2 * half, 256, 48), np.float16)
  part = np.empty((half, 256, 48), np.float16)
  caches = [
    read_order.BlockCache(store, plan, slice(begin, end))
    for begin, end in ((0, 2 * half), (half, 2 * half))
  ]
  for step in range(len(plan)):
    caches[0].take(step, whole)
    caches[1].take(step, part)
    np.testing.assert_array_equal(part, whole[half:])
  assert caches[1].capacity < caches[0].capacity
