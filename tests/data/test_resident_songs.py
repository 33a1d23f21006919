"""Tests of pcl_jax.data.resident_songs: patches cut by the devices."""

import itertools
from unittest import mock

import jax
import lmdb
import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import false_negatives
from pcl_jax.data import loader
from pcl_jax.data import pairs
from pcl_jax.data import plans
from pcl_jax.data import resident_songs
from pcl_jax.data import song_store
from tests.support.tiny import tiny_data

CATALOGUE = tiny_data.tiny_catalogue()
BATCH = 8
TABLES = {
  "cf": np.random.default_rng(0).random((60, 5), np.float32),
  "genre_w2v": CATALOGUE.tags(4),
  "songs": np.arange(60, dtype=np.int32),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> song_store.SongStore:
  """Songs shorter and longer than a patch; the last is a short one."""
  path = tmp_path_factory.mktemp("resident") / "songs.lmdb"
  made = tiny_data.tiny_store(path, CATALOGUE, frames=(100, 900), seed=1)
  assert made.frames[-1] < 256
  return made


def _mesh(devices: int) -> jax.sharding.Mesh:
  auto = jax.sharding.AxisType.Auto
  return jax.make_mesh(
    (devices,), ("data",), (auto,), devices=jax.devices()[:devices]
  )


def _held(store, devices=1, chunk=1000):
  # A chunk ends within a song.
  with mock.patch.object(resident_songs, "_CHUNK", chunk):
    return resident_songs.ResidentSongs(store, TABLES, _mesh(devices))


@pytest.fixture(scope="module")
def held(store) -> dict[int, resident_songs.ResidentSongs]:
  """The songs on one device, and on eight."""
  return {devices: _held(store, devices) for devices in (1, 8)}


def _plan(kind: str, store) -> plans.Plan:
  draw = {"seed": 0, "epoch": 1}
  songs = np.arange(60, dtype=np.int32)
  if kind == "songs":
    passes = plans.passes_of(store.frames, plans.BY_LENGTH)
    return plans.of_songs(songs, store.frames, BATCH, passes=passes, **draw)
  if kind == "two patches":
    return plans.of_two_patches(
      songs, store.frames, BATCH, double_window=300, **draw
    )
  train = CATALOGUE.split == catalogues.TRAIN
  lists, once = CATALOGUE.pair_lists(kind), pairs.ONCE_AN_EPOCH[kind]
  return plans.of_pairs(lists, train, store.frames, BATCH, once=once, **draw)


def _load(store, plan, devices=1, resident=None, first_step=0):
  return loader.load(
    store,
    TABLES,
    plan,
    jax.NamedSharding(_mesh(devices), jax.P("data")),
    threads=1,
    shared={
      "sharing": false_negatives.SharedLists.of(CATALOGUE, ("playlist",))
    },
    resident=resident,
    first_step=first_step,
  )


def _assert_same(actual, expected):
  for one, other in zip(actual, expected, strict=True):
    assert one.keys() == other.keys()
    for name in one:
      assert one[name].dtype == other[name].dtype
      assert one[name].sharding.is_equivalent_to(
        other[name].sharding, one[name].ndim
      )
      a, b = np.asarray(one[name]), np.asarray(other[name])
      assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(
  "kind, devices",
  [
    ("songs", 1),
    ("Playlist", 8),
    pytest.param("two patches", 1, marks=pytest.mark.long),
    pytest.param("two patches", 8, marks=pytest.mark.long),
    pytest.param("Artist", 1, marks=pytest.mark.long),
    pytest.param("songs", 8, marks=pytest.mark.long),
  ],
)
def test_devices_cut_the_batches_that_are_read_from_the_store(
  store, held, kind, devices
):
  plan = _plan(kind, store)
  assert len(plan) > 1
  _assert_same(
    _load(store, plan, devices, held[devices]), _load(store, plan, devices)
  )


def test_a_resumed_epoch_goes_on_with_the_same_batches(store, held):
  plan = _plan("Playlist", store)
  unbroken = itertools.islice(_load(store, plan), 1, None)
  _assert_same(_load(store, plan, 1, held[1], first_step=1), unbroken)


@pytest.mark.parametrize("left", [255, 256])
def test_the_last_patch_lies_within_what_is_held(store, left):
  """However many frames the last chunk leaves behind the last song."""
  chunk = int(store.frames.sum()) + left
  last = plans.Plan(np.full((1, 1), 59, np.int32), np.zeros((1, 1), np.int32))
  held = _held(store, chunk=chunk)
  _assert_same(_load(store, last, 1, held), _load(store, last))


def test_of_a_song_on_the_devices_nothing_is_read(store, held):
  plan = _plan("songs", store)
  with mock.patch.object(song_store.SongStore, "read_patches") as read:
    assert len(list(_load(store, plan, 1, held[1]))) == len(plan)
  assert not read.called


class _Device:
  """Tells how much memory it has."""

  platform, device_kind = "gpu", "Small GPU"

  def __init__(self, limit: int, used: int):
    self.memory_stats = lambda: {"bytes_limit": limit, "bytes_in_use": used}


def _mesh_of(*devices: _Device) -> mock.Mock:
  mesh = mock.Mock(spec=jax.sharding.Mesh)
  mesh.devices, mesh.local_devices = np.array(devices), devices
  return mesh


def test_songs_that_leave_too_little_memory_are_refused(store):
  needed = resident_songs.needed_bytes(store, TABLES, _mesh(1))
  least = 96 * int(store.frames.sum())
  assert least < needed < least + 2 * 96 * resident_songs._CHUNK
  enough = _Device(2 * needed + 5, 5)
  resident_songs.check_memory(store, TABLES, _mesh_of(enough, enough))
  small = _mesh_of(enough, _Device(2 * needed + 5, 10))
  with pytest.raises(errors.InputError) as caught:
    resident_songs.check_memory(store, TABLES, small)
  said = str(caught.value)
  for word in ("resident", str(store.path), "Small GPU", "'shuffled'", "0.01"):
    assert word in said


def test_a_device_that_tells_nothing_has_its_share_of_the_host(
  store, monkeypatch
):
  needed = resident_songs.needed_bytes(store, TABLES, _mesh(8))
  sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2 * 8 * needed // 4096 + 1}
  monkeypatch.setattr("os.sysconf", sizes.__getitem__)
  resident_songs.check_memory(store, TABLES, _mesh(8))
  sizes["SC_PHYS_PAGES"] -= 8
  with pytest.raises(errors.InputError, match="may be taken"):
    resident_songs.check_memory(store, TABLES, _mesh(8))


def test_a_damaged_song_is_refused_before_the_first_step(tmp_path):
  made = tiny_data.tiny_store(tmp_path / "songs.lmdb", CATALOGUE)
  copy = tmp_path / "copy.lmdb"
  copy.mkdir()
  (copy / "data.mdb").write_bytes((made.path / "data.mdb").read_bytes())
  song = int(made.song_ids[7])
  env = lmdb.open(str(copy), map_size=1 << 27)
  with env.begin(write=True) as txn:
    key = song_store.song_key(song)
    txn.put(key, b"\0" + txn.get(key)[1:])
  env.close()
  with pytest.raises(errors.InputError, match=f"song {song} of .* is damaged"):
    _held(song_store.SongStore(copy))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_the_cut_lowers_for_accelerators_without_an_exchange(held, platform):
  numbers = jax.ShapeDtypeStruct((16,), np.int32)
  traced = held[8]._cut.trace(held[8]._held, numbers, numbers)
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  assert "gather" in text
  for word in ("all_gather", "all_reduce", "collective", "callback", "f64"):
    assert word not in text
