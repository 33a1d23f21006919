"""Tests of vectors.warp: the sequential algorithm in many lanes."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from preprocessing.vectors import warp

pytestmark = pytest.mark.usefixtures("quick_compilation")


def planted(playlists, songs, length, clusters, seed=0):
  """Draws a matrix with eight in ten songs of a playlist of one cluster."""
  rng = np.random.default_rng(seed)
  cluster = np.arange(songs) % clusters
  pairs = []
  for playlist in range(playlists):
    likely = cluster == playlist % clusters
    share = np.where(likely, 0.8 / likely.sum(), 0.2 / (~likely).sum())
    drawn = rng.choice(songs, length, replace=False, p=share / share.sum())
    pairs += [(playlist, song) for song in drawn]
  return np.array(pairs)


def sequential_warp(entries, tables, order, blocks, rate, max_negatives):
  """Serves entries one after another, in float64; `tables` are overwritten.

  Args:
    entries: the matrix.
    tables: four numpy arrays in the order of `warp.Tables`.
    order: of the entries.
    blocks: yields arrays of songs drawn; a new entry begins with a new one.
    rate: Adagrad's.
    max_negatives: songs drawn for an entry at most.
  """
  users, user_squares, items, item_squares = tables

  def update(table, squares, row, gradient):
    table[row] -= rate * gradient / np.sqrt(squares[row])
    squares[row] += gradient**2

  for entry in order:
    user, item = entries.playlists[entry], entries.songs[entry]
    own = entries.songs[entries.offsets[user] : entries.offsets[user + 1]]
    sampled, rival = 0, None
    while sampled < max_negatives and rival is None:
      block = next(blocks)
      scores = items[block] @ users[user]
      for one, score in zip(block, scores, strict=True):
        sampled += 1
        if sampled > max_negatives:
          break
        if score > users[user] @ items[item] - 1 and one not in own:
          rival = one
          break
    if rival is None:
      continue
    rank = max(1, (entries.num_songs - 1) // sampled)
    weight = min(np.log(rank), 10.0)
    of_item = weight * users[user]
    of_user = weight * (items[rival] - items[item])
    of_user[-1] = 0.0
    update(items, item_squares, item, -of_item)
    update(items, item_squares, rival, of_item)
    update(users, user_squares, user, of_user)


def copied(tables):
  return [np.array(one, np.float64) for one in tables]


@pytest.fixture(scope="module")
def small():
  pairs = planted(10, 30, 6, clusters=3)
  entries = warp.Entries.from_pairs(pairs[:, 0], pairs[:, 1])
  factors = 20 * warp.random_factors(entries.num_songs, 5, 1)
  return entries, factors


def test_entries_are_sorted_and_without_repeats():
  entries = warp.Entries.from_pairs(
    np.array([1, 0, 1, 1, 0]), np.array([2, 3, 0, 2, 1])
  )
  np.testing.assert_array_equal(entries.playlists, [0, 0, 1, 1])
  np.testing.assert_array_equal(entries.songs, [1, 3, 0, 2])
  np.testing.assert_array_equal(entries.offsets, [0, 2, 4])
  assert (entries.num_songs, entries.num_playlists, len(entries)) == (4, 2, 4)


def test_few_playlists_are_served_by_few_lanes():
  pairs = planted(20, 200, 10, clusters=2)
  few = warp.Entries.from_pairs(pairs[:, 0], pairs[:, 1])
  assert few.lanes() == warp.MIN_LANES
  playlists = np.arange(100_000)
  many = warp.Entries.from_pairs(playlists, playlists)
  assert many.lanes() == warp.MAX_LANES


def test_weights_are_logs_of_floored_ranks_cut_off_at_ten():
  np.testing.assert_allclose(
    warp.rank_weights(10, 40)[1:5], np.log([9, 4, 3, 2]), rtol=1e-6
  )
  assert warp.rank_weights(10, 40)[40] == 0
  assert warp.rank_weights(10**6, 40)[1] == 10


def test_lookup_agrees_with_membership(small):
  entries, _ = small
  wanted = np.tile(np.arange(entries.num_songs), (entries.num_playlists, 1))
  halvings = int(np.diff(entries.offsets).max()).bit_length()
  got = jax.jit(warp._contains, static_argnums=4)(
    entries.songs,
    entries.offsets[:-1, None],
    entries.offsets[1:, None],
    wanted,
    halvings,
  )
  expected = np.zeros(wanted.shape, bool)
  expected[entries.playlists, entries.songs] = True
  np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
  "seed",
  [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))],
)
def test_lanes_that_write_share_no_row_and_the_first_always_writes(seed):
  rng = np.random.default_rng(seed)
  found = rng.random(32) < 0.7
  playlist = rng.integers(0, 40, 32)
  song, rival = rng.integers(0, 50, 32), rng.integers(50, 100, 32)
  rival[::4] = song[rng.integers(0, 32, 8)]
  rival = np.where(rival == song, 99, rival)
  writers = jax.jit(
    functools.partial(warp._writers, num_playlists=40, num_songs=100)
  )
  writes, playlists, songs = map(
    np.asarray, writers(found, playlist, song, rival)
  )
  assert not (writes & ~found).any()
  assert writes[np.flatnonzero(found)[0]]
  # All rows, those behind the end included: the scatter is told so.
  assert len(np.unique(playlists)) == 32
  assert len(np.unique(songs)) == 64
  np.testing.assert_array_equal(playlists < 40, writes)
  np.testing.assert_array_equal(songs < 100, np.tile(writes, 2))
  np.testing.assert_array_equal(songs[:32][writes], song[writes])
  np.testing.assert_array_equal(songs[32:][writes], rival[writes])


def test_one_lane_is_the_sequential_algorithm(small):
  entries, factors = small
  max_negatives = 11  # Not a multiple of the draws a step.
  tables = warp.first_tables(entries, factors, 2)
  expected = copied(tables)
  trainer = warp.Trainer(
    entries, max_negatives=max_negatives, rate=0.05, seed=3, lanes=1
  )
  draws = min(warp.DRAWS_A_STEP, max_negatives)

  @jax.jit
  @functools.partial(jax.vmap, in_axes=(None, 0))
  def draw(key, step):
    of_step = jax.random.fold_in(key, step)
    return warp.draw_songs(of_step, (draws,), entries.num_songs)

  def blocks(epoch):
    key = jax.random.fold_in(jax.random.key(3), epoch)
    return iter(np.asarray(draw(jax.random.fold_in(key, 0), np.arange(999))))

  for epoch in range(2):
    tables, _ = trainer.run_epoch(tables, epoch)
    order = np.random.default_rng([3, epoch]).permutation(len(entries))
    sequential_warp(
      entries, expected, order, blocks(epoch), 0.05, max_negatives
    )
  for got, wanted in zip(tables, expected, strict=True):
    np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=1e-5)
  assert float(jnp.abs(tables.songs[:, -1]).max()) > 0.01
  np.testing.assert_array_equal(tables.playlists[:, -1], 1.0)


def quality(tables, entries, held_out):
  """Returns mean AUC and precision at 10 of the held-out songs."""
  scores = np.asarray(tables[0]) @ np.asarray(tables[2]).T
  scores[entries.playlists, entries.songs] = np.nan
  areas, precisions = [], []
  for playlist in np.unique(held_out[:, 0]):
    targets = held_out[held_out[:, 0] == playlist, 1]
    row = scores[playlist]
    others = np.setdiff1d(np.flatnonzero(~np.isnan(row)), targets)
    areas.append((row[targets][:, None] > row[others][None]).mean())
    best = np.argsort(-np.nan_to_num(row, nan=-np.inf))[:10]
    precisions.append(np.isin(best, targets).mean())
  return np.mean(areas), np.mean(precisions)


@pytest.fixture(scope="module")
def held_out_quality(quick_compilation):
  """A matrix, its held-out entries and what sequential WARP makes of them."""
  pairs = planted(96, 120, 16, clusters=6, seed=4)
  is_held_out = np.random.default_rng(5).random(len(pairs)) < 0.25
  entries = warp.Entries.from_pairs(*pairs[~is_held_out].T)
  held_out = pairs[is_held_out]
  tables = copied(first_tables_of(entries))
  rng = np.random.default_rng(6)
  blocks = (rng.integers(0, entries.num_songs, 8) for _ in itertools.count())
  for _ in range(12):
    order = rng.permutation(len(entries))
    sequential_warp(entries, tables, order, blocks, 0.05, 40)
  return entries, held_out, quality(tables, entries, held_out)


def _trainer(entries, seed):
  return warp.Trainer(entries, max_negatives=40, rate=0.05, seed=seed, lanes=96)


def first_tables_of(entries):
  factors = warp.random_factors(entries.num_songs, 16, 0)
  return warp.first_tables(entries, factors, 1)


def test_many_lanes_rank_held_out_songs_as_well_as_one(held_out_quality):
  entries, held_out, (area, precision) = held_out_quality
  trainer = _trainer(entries, 0)
  tables = first_tables_of(entries)
  for epoch in range(12):
    tables, _ = trainer.run_epoch(tables, epoch)
  got_area, got_precision = quality(tables, entries, held_out)
  chance, _ = quality(first_tables_of(entries), entries, held_out)
  assert chance < 0.6 < 0.75 < area
  assert got_area > area - 0.02
  assert got_precision > precision - 0.02


def test_every_entry_is_served_once(monkeypatch):
  monkeypatch.setattr(warp, "SEGMENT_ENTRIES", 7)
  songs = np.arange(1000)
  entries = warp.Entries.from_pairs(songs // 10, songs)
  kept = warp.Entries.from_pairs(
    np.append(entries.playlists[::10], 100), np.append(songs[::10], 999)
  )
  trainer = warp.Trainer(kept, max_negatives=40, rate=1e-9, seed=0, lanes=64)
  factors = warp.random_factors(1000, 300, 0)[:, :8]
  served = []
  _, loss = trainer.run_epoch(
    warp.first_tables(kept, factors, 1), 0, lambda n, _: served.append(n)
  )
  assert sum(served) == len(kept) == 101
  # All scores are about 0: each entry adds the weight of its first draw, or of
  # its second where the first was the song itself, which is rare.
  per_entry = loss / np.log(999)
  assert 100.8 / 101 < per_entry < 101.01 / 101


def test_the_same_seed_gives_the_same_bits(held_out_quality):
  entries, _, _ = held_out_quality

  def run(seed):
    tables, loss = _trainer(entries, seed).run_epoch(
      first_tables_of(entries), 0
    )
    return np.asarray(tables.songs), loss

  first, again, other = run(0), run(0), run(1)
  np.testing.assert_array_equal(first[0], again[0])
  assert first[1] == again[1]
  assert (first[0] != other[0]).any()


@pytest.fixture
def optimised():
  """Compiles as outside the tests."""
  jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.long
def test_no_step_copies_a_table(optimised):
  pairs = planted(64, 96, 8, clusters=2)
  entries = warp.Entries.from_pairs(pairs[:, 0], pairs[:, 1])
  factors = warp.random_factors(entries.num_songs, 11, 0)
  trainer = warp.Trainer(entries, max_negatives=40, rate=0.1, seed=0, lanes=4)
  text = (
    warp._run_segment.lower(
      warp.first_tables(entries, factors, 0),
      trainer._matrix,
      jnp.arange(len(entries), dtype=jnp.int32),
      jnp.int32(len(entries)),
      jax.random.key(0),
      jnp.float32(0.1),
      lanes=4,
      static=trainer._static,
    )
    .compile()
    .as_text()
  )
  table = f"f32[{entries.num_songs},12]"
  assert table in text
  copies = [line for line in text.splitlines() if " copy(" in line]
  assert not [line for line in copies if table in line.split(" copy(")[0]]
