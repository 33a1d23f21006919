"""Tests of pcl_jax.data.loader."""

import contextlib
import gc
import itertools
import shutil
import threading
import tracemalloc
from unittest import mock

import jax
import lmdb
import numpy as np
import pytest

from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.common import prefetch
from pcl_jax.data import loader
from pcl_jax.data import plans
from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from tests.support.tiny import tiny_data

BATCH = 8
CATALOGUE = tiny_data.tiny_catalogue()
TABLES = {
  "cf": np.random.default_rng(0).random((60, 5), np.float32),
  "genre_w2v": CATALOGUE.tags(4),
}


def _sharding(devices: int = 1) -> jax.NamedSharding:
  auto = jax.sharding.AxisType.Auto
  mesh = jax.make_mesh(
    (devices,), ("data",), (auto,), devices=jax.devices()[:devices]
  )
  return jax.NamedSharding(mesh, jax.P("data"))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> song_store.SongStore:
  path = tmp_path_factory.mktemp("loader") / "songs.lmdb"
  return tiny_data.tiny_store(path, CATALOGUE, frames=(100, 900))


@pytest.fixture
def plan(store) -> plans.Plan:
  songs = np.arange(60, dtype=np.int32)
  return plans.of_songs(songs, store.frames, BATCH, seed=0, epoch=0)


def _load(store, plan, devices=1, threads=2, first_step=0):
  return loader.load(
    store,
    TABLES,
    plan,
    _sharding(devices),
    threads=threads,
    first_step=first_step,
  )


def _assert_same(actual, expected):
  actual, expected = jax.device_get((list(actual), list(expected)))
  assert len(actual) == len(expected) > 0
  for one, other in zip(actual, expected, strict=True):
    assert one.keys() == other.keys()
    for name in one:
      assert one[name].dtype == other[name].dtype
      np.testing.assert_array_equal(one[name], other[name])


def _readers() -> list[threading.Thread]:
  return [t for t in threading.enumerate() if t.name.startswith("reader")]


def test_a_batch_holds_what_the_plan_says(store, plan):
  batches = list(_load(store, plan))
  assert len(batches) == len(plan) == 7
  for step, batch in enumerate(batches):
    songs = plan.songs[step]
    np.testing.assert_array_equal(batch["cf"], TABLES["cf"][songs])
    np.testing.assert_array_equal(
      batch["genre_w2v"], TABLES["genre_w2v"][songs]
    )
    for row, patch in enumerate(np.asarray(batch["audio"])):
      start = plan.starts[step, row]
      expected = np.full((256, 48), melspectrogram.SILENCE, np.float16)
      song = store.read_song(int(songs[row]))[start : start + 256]
      expected[: len(song)] = song
      np.testing.assert_array_equal(patch, expected)


def test_patches_are_float16_on_the_device_and_split_by_row(store, plan):
  batch = next(_load(store, plan, devices=8))
  assert batch["audio"].dtype == np.float16
  assert batch["audio"].shape == (BATCH, 256, 48)
  for array in batch.values():
    assert isinstance(array, jax.Array)
    assert len(array.sharding.device_set) == 8
    assert array.addressable_shards[0].data.shape[0] == 1


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("threads", [1, 2, 4, 0])
def test_batches_do_not_depend_on_threads_or_devices(
  store, plan, threads, devices
):
  _assert_same(_load(store, plan, devices, threads), _load(store, plan, 1, 1))


def test_batches_do_not_depend_on_which_reader_is_slow(store, plan):
  expected = list(_load(store, plan, threads=1))
  late = threading.Event()
  read_batch = loader._read_batch

  def stall(store, tables, plan, step, *rest):
    if step == 0:
      late.wait()  # Until another thread has read a later batch.
    batch = read_batch(store, tables, plan, step, *rest)
    if step > 0:
      late.set()
    return batch

  with mock.patch.object(loader, "_read_batch", stall):
    _assert_same(_load(store, plan, threads=2), expected)


@pytest.mark.parametrize("first_step", [0, 3, 6])
def test_a_resumed_epoch_goes_on_with_the_same_batches(store, plan, first_step):
  unbroken = itertools.islice(_load(store, plan), first_step, None)
  _assert_same(_load(store, plan, 8, 4, first_step), unbroken)


def test_an_epoch_resumed_at_its_end_has_no_batch(store, plan):
  assert not list(_load(store, plan, first_step=len(plan)))


def test_each_process_reads_the_rows_of_its_own_devices(store, plan):
  assert loader._local_rows(_sharding(8), 64) == slice(0, 64)
  everywhere = jax.NamedSharding(_sharding(8).mesh, jax.P())
  assert loader._local_rows(everywhere, 64) == slice(0, 64)
  second_host = mock.Mock(spec=jax.NamedSharding)
  second_host.addressable_devices_indices_map.return_value = {
    "c": (slice(48, 64),),
    "b": (slice(32, 48),),
  }
  rows = loader._local_rows(second_host, 64)
  assert rows == slice(32, 64)
  memory = loader.BatchMemory()
  whole = loader._read_batch(store, TABLES, plan, 1, slice(0, BATCH), memory)
  memory = loader.BatchMemory()
  part = loader._read_batch(store, TABLES, plan, 1, slice(4, BATCH), memory)
  for name in whole:
    np.testing.assert_array_equal(part[name], whole[name][4:])


def test_of_a_long_song_only_the_patch_is_read(tmp_path):
  feature = np.random.default_rng(0).random((100_000, 48)).astype(np.float16)
  writer = song_writer.SongWriter(tmp_path / "long.lmdb")
  writer.add([(7, feature)])  # 9.6 MB.
  writer.finish({})
  long = song_store.SongStore(tmp_path / "long.lmdb")
  one = plans.Plan(np.zeros((1, 1), np.int32), np.full((1, 1), 5000, np.int32))
  memory = loader.BatchMemory()
  loader._read_batch(long, {}, one, 0, slice(0, 1), memory)
  tracemalloc.start()
  batch = loader._read_batch(long, {}, one, 0, slice(0, 1), memory)
  _, peak_bytes = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  np.testing.assert_array_equal(batch["audio"][0], feature[5000:5256])
  assert 0 < peak_bytes < feature.nbytes / 20


def _with_record(store, path, song: int, record: bytes | None):
  """Copies a store with another record in place of a song's."""
  shutil.copytree(store.path, path)
  env = lmdb.open(str(path), map_size=1 << 27)
  key = song_store.song_key(int(store.song_ids[song]))
  with env.begin(write=True) as txn:
    if record is None:
      txn.delete(key)
    else:
      txn.put(key, record)
  env.close()
  return song_store.SongStore(path)


@pytest.mark.parametrize("record", [None, b"", b"short" * 50])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_damaged_record_stops_at_its_batch_and_names_the_song(
  store, plan, tmp_path, record, threads
):
  bad_step = 3
  song = int(plan.songs[bad_step, 5])
  damaged = _with_record(store, tmp_path / "songs.lmdb", song, record)
  batches = _load(damaged, plan, threads=threads)
  before = list(itertools.islice(batches, bad_step))
  _assert_same(before, itertools.islice(_load(store, plan), bad_step))
  with pytest.raises(errors.InputError) as error:
    next(batches)
  assert f"song {store.song_ids[song]} " in str(error.value)
  assert str(tmp_path) in str(error.value)
  assert not list(batches)  # Nothing is skipped: the epoch is over.
  assert not _readers()


def test_memory_is_used_again_once_nobody_holds_its_patches():
  memory = loader.BatchMemory()
  first, second = memory.patches(2), memory.patches(2)
  places = [one.ctypes.data for one in (first, second)]
  assert len(set(places)) == 2
  part = jax.device_put(first[1])  # On a CPU it is the same memory.
  del first
  assert memory.patches(2).ctypes.data not in places
  del part
  gc.collect()  # JAX drops what it held at its next turn, or here.
  assert memory.patches(2).ctypes.data == places[0]


def test_a_batch_that_is_held_stays_as_it_was(store, plan):
  batches = list(_load(store, plan, devices=8))
  _assert_same(_load(store, plan, threads=4), batches)


def test_closing_early_leaves_no_thread_behind(store, plan):
  with contextlib.closing(_load(store, plan, threads=4)) as batches:
    next(batches)
    assert _readers()
  assert not _readers()


def test_the_end_of_an_epoch_leaves_no_thread_behind(store, plan):
  list(_load(store, plan, threads=4))
  assert not _readers()


@pytest.mark.parametrize("threads", [1, 3])
def test_one_batch_more_than_threads_is_read_ahead(store, plan, threads):
  submit = prefetch.Threads.submit
  with mock.patch.object(
    prefetch.Threads, "submit", autospec=True, side_effect=submit
  ) as spy:
    with contextlib.closing(_load(store, plan, threads=threads)) as batches:
      for taken in range(3):
        next(batches)
        assert spy.call_count == taken + threads + 1


def test_default_threads_are_one_per_core_and_four_at_most():
  for cores, threads in ((1, 1), (3, 3), (64, 4)):
    with mock.patch("os.sched_getaffinity", return_value=set(range(cores))):
      assert loader.default_threads() == threads


@pytest.mark.parametrize("threads", [1, 2])
def test_a_stalled_reader_ends_the_run_and_names_its_song(
  store, plan, threads, capfd
):
  let_go = threading.Event()
  song = int(plan.songs[2, 3])
  read_patches = song_store.SongStore.read_patches

  def stall(self, songs, starts, out):
    if song in songs:
      self._reading[threading.get_ident()] = [song]
      let_go.wait()
    read_patches(self, songs, starts, out)

  with mock.patch.object(song_store.SongStore, "read_patches", stall):
    batches = loader.load(
      store, {}, plan, _sharding(), threads=threads, stall_s=0.3
    )
    assert len(list(itertools.islice(batches, 2))) == 2
    with pytest.raises(errors.RunError) as error:
      next(batches)
    let_go.set()
  said = str(error.value)
  assert f"at song(s) {store.song_ids[song]}" in said
  assert "0.3 s (config.data.stall_s)" in said and str(store.path) in said
  assert "most recent call first" in capfd.readouterr().err
  for thread in _readers():
    thread.join(timeout=60)
  assert not _readers()


def test_a_thread_that_is_ended_raises_where_its_batch_is_due(store, plan):
  def die(*_):
    raise SystemExit("killed")

  with mock.patch.object(loader, "_read_batch", die):
    with pytest.raises(SystemExit):
      next(_load(store, plan))
  assert not _readers()


def test_an_error_of_lmdb_names_the_song(store, plan, monkeypatch):
  store = song_store.SongStore(store.path)  # It has found no record yet.

  class Broken:
    def __enter__(self):
      return self

    def __exit__(self, *_):
      return False

    def get(self, key):
      raise lmdb.CorruptedError("a page")

  monkeypatch.setattr(store, "_env", mock.Mock(begin=lambda **_: Broken()))
  song = store.song_ids[plan.songs[0].min()]  # They are read by song.
  with pytest.raises(errors.InputError, match=f"song {song} of"):
    next(_load(store, plan, threads=1))
  with pytest.raises(errors.InputError, match=f"song {song} of"):
    store.read_song(int(np.flatnonzero(store.song_ids == song)[0]))
