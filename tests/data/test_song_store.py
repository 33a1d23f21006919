"""Tests of pcl_jax.data.song_store."""

from concurrent import futures
import itertools
import json
import pathlib
import subprocess
import sys
from unittest import mock

import lmdb
import numpy as np
import pytest

from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.data import song_store
from pcl_jax.data import song_writer

LENGTHS = {5: 300, 2: 256, 70_000: 1, 2**32 - 1: 40}


def _feature(song_id: int, frames: int) -> np.ndarray:
  rng = np.random.default_rng(song_id)
  return rng.uniform(-2, 3, (frames, 48)).astype(np.float16)


def _write(path, lengths=LENGTHS) -> song_store.SongStore:
  writer = song_writer.SongWriter(path)
  for song_id, frames in lengths.items():
    writer.add([(song_id, _feature(song_id, frames))])
  writer.finish({"kind": "test"})
  return song_store.SongStore(path)


def _edit(path, edit) -> None:
  """Changes a finished store that this process has not opened yet."""
  env = lmdb.open(str(path), map_size=1 << 26)
  with env.begin(write=True) as txn:
    edit(txn)
  env.close()


def _unopened(path) -> None:
  writer = song_writer.SongWriter(path)
  writer.add((i, _feature(i, n)) for i, n in LENGTHS.items())
  writer.finish({})


def test_songs_come_back_bitwise_in_the_order_of_their_ids(tmp_path):
  store = _write(tmp_path / "s")
  assert store.song_ids.tolist() == sorted(LENGTHS)
  assert store.frames.tolist() == [LENGTHS[i] for i in sorted(LENGTHS)]
  for i, song_id in enumerate(sorted(LENGTHS)):
    expected = _feature(song_id, LENGTHS[song_id])
    assert store.read_song(i).tobytes() == expected.tobytes()


def test_the_record_about_the_store_says_how_it_was_made(tmp_path):
  meta = _write(tmp_path / "s").meta
  assert meta["songs"] == len(LENGTHS)
  assert meta["frames"] == sum(LENGTHS.values())
  assert meta["feature"] == melspectrogram.SETTINGS.as_dict()
  assert meta["source"] == {"kind": "test"}


def test_patches_are_slices_of_songs_padded_with_silence(tmp_path):
  store = _write(tmp_path / "s")
  rng = np.random.default_rng(0)
  songs = rng.integers(len(store), size=200)
  starts = rng.integers(store.frames[songs])
  out = np.full((200, 64, 48), np.nan, np.float16)
  store.read_patches(songs, starts, out)
  for song, start, patch in zip(songs, starts, out, strict=True):
    expected = store.read_song(int(song))[start : start + 64]
    np.testing.assert_array_equal(patch[: len(expected)], expected)
    np.testing.assert_array_equal(
      patch[len(expected) :], np.float16(melspectrogram.SILENCE)
    )


def _patches(store, frames=40) -> bytes:
  out = np.empty((len(store), frames, 48), np.float16)
  store.read_patches(np.arange(len(store)), np.zeros(len(store), int), out)
  return out.tobytes()


def test_a_record_is_looked_up_once(tmp_path):
  store = _write(tmp_path / "s")
  first = _patches(store)
  with mock.patch.object(store, "_env", None):
    assert _patches(store) == first
    out = np.empty((3, 64, 48), np.float16)
    store.read_patches(np.array([1, 0, 1]), np.array([7, 0, 290]), out)
  np.testing.assert_array_equal(out[0], store.read_song(1)[7:71])


@pytest.mark.parametrize("readahead", [False, True])
def test_the_system_reads_ahead_only_where_it_may(tmp_path, readahead):
  smaps = pathlib.Path("/proc/self/smaps")
  if not smaps.exists():
    pytest.skip("only Linux tells how a file is mapped")
  path = tmp_path / "s"
  _unopened(path)
  store = song_store.SongStore(path, readahead=readahead)
  zeros = np.zeros(1, np.int32)
  store.read_patches(zeros, zeros, np.empty((1, 256, 48), np.float16))
  found = []
  for line in smaps.read_text().splitlines():
    if "-" in line.split()[0]:
      mine = line.endswith(str(path / "data.mdb"))
    elif mine and line.startswith("VmFlags:"):
      found.append("rr" in line.split())  # Read at random.
  assert found == [not readahead] * 2  # LMDB's view, and that of patches.


def test_patches_are_fetched_at_once_after_a_wait_for_the_disk(
  tmp_path, monkeypatch
):
  store = _write(tmp_path / "s")
  songs, starts = np.array([0, 1, 0]), np.array([3, 40, 100])
  out = np.empty((3, 64, 48), np.float16)
  store.read_patches(songs, starts, out)
  expected = out.copy()
  fetched, waits = [], itertools.count()
  monkeypatch.setattr(song_store, "_waits_for_disk", lambda: 0)
  monkeypatch.setattr(store, "_fetched", 0)
  fetch = store._records.fetch

  def watched(begins, ends):
    fetched.append(list(zip(begins, ends, strict=True)))
    fetch(begins, ends)

  monkeypatch.setattr(store._records, "fetch", watched)
  store.read_patches(songs, starts, out)
  assert not fetched
  monkeypatch.setattr(song_store, "_waits_for_disk", lambda: next(waits))
  store.read_patches(songs, starts, out)
  monkeypatch.setattr(song_store, "_waits_for_disk", lambda: 0)
  for _ in range(song_store._FETCHED_READS + 3):
    out[:] = 0
    store.read_patches(songs, starts, out)
  np.testing.assert_array_equal(out, expected)
  assert len(fetched) == song_store._FETCHED_READS
  content, _ = store._records.current()
  for (begin, end), patch in zip(fetched[-1], expected, strict=True):
    assert content[begin:end].tobytes() == patch.tobytes()


def test_a_file_that_has_changed_is_looked_up_again(tmp_path):
  """So places that were found do not outlive what was found there."""
  store = _write(tmp_path / "s")
  before = _patches(store)
  # By another process, as one may not open a file twice.
  for song_id, frames in ((5, 300), (2, 256)):
    script = (
      "import lmdb, sys; env = lmdb.open(sys.argv[1], map_size=1 << 26)\n"
      "with env.begin(write=True) as txn:\n"
      "  txn.put(bytes.fromhex(sys.argv[2]), sys.stdin.buffer.read())"
    )
    key = song_store.song_key(song_id).hex()
    subprocess.run(
      [sys.executable, "-c", script, tmp_path / "s", key],
      input=_feature(song_id + 1, frames).tobytes(),
      check=True,
    )
  after = _patches(store)
  assert after != before
  rows = np.frombuffer(after, np.float16).reshape(-1, 40, 48)
  np.testing.assert_array_equal(rows[1], _feature(6, 300)[:40])
  np.testing.assert_array_equal(rows[0], _feature(3, 256)[:40])


def test_threads_read_what_one_thread_reads(tmp_path):
  store = _write(tmp_path / "s")
  rng = np.random.default_rng(0)
  plans = [rng.integers(len(store), size=50) for _ in range(40)]

  def read(songs):
    out = np.empty((50, 32, 48), np.float16)
    store.read_patches(songs, np.zeros(50, np.int64), out)
    return out

  alone = [read(songs) for songs in plans]
  with futures.ThreadPoolExecutor(4) as pool:
    together = list(pool.map(read, plans))
  np.testing.assert_array_equal(together, alone)


def test_two_readers_of_one_store_share_its_environment(tmp_path):
  first = _write(tmp_path / "s")
  second = song_store.SongStore(tmp_path / "s" / ".." / "s")
  np.testing.assert_array_equal(first.read_song(0), second.read_song(0))


def test_a_full_map_grows_and_loses_nothing(tmp_path, monkeypatch):
  monkeypatch.setattr(song_writer, "_FIRST_MAP_BYTES", 1 << 16)
  lengths = {i: 400 for i in range(40)}  # 1.5 MB in a map of 64 kB.
  store = _write(tmp_path / "s", lengths)
  for i in range(40):
    assert store.read_song(i).tobytes() == _feature(i, 400).tobytes()


def test_a_writer_goes_on_with_what_another_committed(tmp_path):
  first = song_writer.SongWriter(tmp_path / "s")
  first.add([(5, _feature(5, 300)), (2, _feature(2, 256))])
  first.close()  # As after a kill: never finished.
  with pytest.raises(errors.InputError, match="not a song store"):
    song_store.SongStore(tmp_path / "s")
  second = song_writer.SongWriter(tmp_path / "s")
  assert second.done == {2, 5}
  second.add([(70_000, _feature(70_000, 1))])
  second.finish({})
  store = song_store.SongStore(tmp_path / "s")
  assert store.song_ids.tolist() == [2, 5, 70_000]
  assert store.read_song(1).tobytes() == _feature(5, 300).tobytes()


def test_a_song_added_again_is_replaced(tmp_path):
  writer = song_writer.SongWriter(tmp_path / "s")
  writer.add([(5, _feature(5, 300)), (2, _feature(2, 256))])
  writer.add([(5, _feature(6, 20))])
  writer.finish({})
  store = song_store.SongStore(tmp_path / "s")
  assert store.song_ids.tolist() == [2, 5]
  assert store.read_song(0).tobytes() == _feature(2, 256).tobytes()
  assert store.read_song(1).tobytes() == _feature(6, 20).tobytes()


@pytest.mark.parametrize("size", [1, 5000])
def test_notes_reach_the_next_writer_and_not_the_finished_store(tmp_path, size):
  writer = song_writer.SongWriter(tmp_path / "s")
  for i in range(20):
    writer.add([(i, _feature(i, 9))] if i % 2 else [], note=bytes([i]) * size)
  writer.close()
  writer = song_writer.SongWriter(tmp_path / "s")
  assert writer.notes == [bytes([i]) * size for i in range(20)]
  writer.add([], note=b"last")
  writer.finish({})
  store = song_store.SongStore(tmp_path / "s")  # Not taken for truncated.
  assert store.song_ids.tolist() == list(range(1, 20, 2))
  with store._env.begin() as txn:
    assert txn.stat()["entries"] == len(store) + 2


def test_a_writer_stopped_before_the_last_rename_loses_nothing(
  tmp_path, monkeypatch
):
  writer = song_writer.SongWriter(tmp_path / "s")
  writer.add([(5, _feature(5, 300))], note=b"all of a tar")
  with monkeypatch.context() as patch:
    patch.setattr(song_writer.SongWriter, "close", _stop)
    with pytest.raises(KeyboardInterrupt):
      writer.finish({})
  writer.close()
  with pytest.raises(errors.InputError, match="Run the same command again"):
    song_writer.SongWriter(tmp_path / "s")
  store = song_store.SongStore(tmp_path / "s")
  assert store.read_song(0).tobytes() == _feature(5, 300).tobytes()
  assert not (tmp_path / "s.partial").exists()


def _stop(_):
  raise KeyboardInterrupt


def test_an_unfinished_store_under_its_final_name_is_refused(tmp_path):
  writer = song_writer.SongWriter(tmp_path / "s")
  writer.add([(5, _feature(5, 300))])
  writer.close()
  (tmp_path / "s.partial").rename(tmp_path / "s")
  with pytest.raises(errors.InputError, match="not a finished song store"):
    song_store.SongStore(tmp_path / "s")


def test_a_finished_store_is_not_written_again(tmp_path):
  _write(tmp_path / "s")
  with pytest.raises(errors.InputError, match="exists already"):
    song_writer.SongWriter(tmp_path / "s")


def test_a_store_without_songs_is_not_finished(tmp_path):
  writer = song_writer.SongWriter(tmp_path / "s")
  writer.add([])
  with pytest.raises(errors.InputError, match="no song at all"):
    writer.finish({})
  writer.close()


def test_a_failed_write_says_how_much_room_there_is(tmp_path, monkeypatch):
  writer = song_writer.SongWriter(tmp_path / "s")

  def full_disk(**_):
    raise lmdb.Error("mdb_txn_commit: Input/output error")

  with monkeypatch.context() as patch:
    patch.setattr(writer, "_env", mock.Mock(begin=full_disk))
    with pytest.raises(errors.InputError, match="bytes free, .* need 28812"):
      writer.add([(5, _feature(5, 300))])
  assert writer.done == set()
  writer.close()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.99])
def test_a_truncated_file_is_refused_before_it_is_read(tmp_path, share):
  _unopened(tmp_path / "s")
  data = tmp_path / "s" / "data.mdb"
  data.write_bytes(data.read_bytes()[: int(share * data.stat().st_size)])
  with pytest.raises(errors.InputError, match="truncated|cannot be opened"):
    song_store.SongStore(tmp_path / "s")


def test_a_file_of_something_else_is_refused(tmp_path):
  (tmp_path / "data.mdb").write_bytes(b"something else" * 1000)
  with pytest.raises(errors.InputError, match="cannot be opened as LMDB"):
    song_store.SongStore(tmp_path)


def test_another_lmdb_environment_is_refused(tmp_path):
  (tmp_path / "s").mkdir()
  _edit(tmp_path / "s", lambda txn: txn.put(b"a", b"b"))
  with pytest.raises(errors.InputError, match="not a finished song store"):
    song_store.SongStore(tmp_path / "s")


def _change_meta(**changes):
  def edit(txn):
    meta = json.loads(txn.get(b"__meta__"))
    meta.update(changes)
    txn.put(b"__meta__", json.dumps(meta).encode())

  return edit


def test_another_format_version_is_refused_with_both_versions(tmp_path):
  _unopened(tmp_path / "s")
  _edit(tmp_path / "s", _change_meta(format_version=2))
  with pytest.raises(errors.InputError, match="version 2, .* reads 1"):
    song_store.SongStore(tmp_path / "s")


def test_other_feature_settings_are_refused_with_both_values(tmp_path):
  _unopened(tmp_path / "s")
  feature = melspectrogram.SETTINGS.as_dict() | {"hop_samples": 160}
  _edit(tmp_path / "s", _change_meta(feature=feature))
  with pytest.raises(
    errors.InputError, match="hop_samples: there 160, here 256"
  ):
    song_store.SongStore(tmp_path / "s")


def test_a_damaged_record_is_refused_by_its_checksum(tmp_path):
  _unopened(tmp_path / "s")
  damaged = bytearray(_feature(5, 300).tobytes())
  damaged[1000] ^= 1
  _edit(
    tmp_path / "s",
    lambda txn: txn.put(song_store.song_key(5), bytes(damaged)),
  )
  store = song_store.SongStore(tmp_path / "s")
  store.read_song(0)
  with pytest.raises(errors.InputError, match="song 5 .* is damaged"):
    store.read_song(1)


@pytest.mark.parametrize("left", [None, 100])
def test_a_record_of_another_length_is_refused_when_patches_are_read(
  tmp_path, left
):
  _unopened(tmp_path / "s")
  key = song_store.song_key(5)

  def edit(txn):
    txn.delete(key)
    if left is not None:
      txn.put(key, bytes(left * 96))

  _edit(tmp_path / "s", edit)
  store = song_store.SongStore(tmp_path / "s")
  out = np.empty((1, 16, 48), np.float16)
  with pytest.raises(errors.InputError, match="song 5 .* is damaged"):
    store.read_patches(np.array([1]), np.array([0]), out)
