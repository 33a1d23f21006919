"""Tests of preprocessing.melon_lmdb on tars: order, damage, interruptions."""

import json
import pathlib
import shutil
import subprocess
import sys

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from preprocessing.melon import conversion
from preprocessing.melon import converter
from preprocessing.melon import melon_ledger
from preprocessing.melon import melon_spectrogram
from preprocessing.melon import tar_reader
from tests.support.tiny import tiny_melon

ROOT = pathlib.Path(__file__).parents[3]


def _skipped(data_dir: pathlib.Path) -> dict[int, dict]:
  entries = json.loads((data_dir / "skipped.json").read_text())
  return {one["id"]: one for one in entries}


def _small_steps(monkeypatch) -> None:
  monkeypatch.setattr(converter, "_SONGS_PER_COMMIT", 8)
  monkeypatch.setattr(conversion, "_BATCH_BYTES", 1)


@pytest.fixture
def tars(tmp_path):
  """Three tars of seventy songs, one of them bad, one missing."""
  return tiny_melon.write_three_tars(tmp_path)


def test_tars_give_what_their_unpacked_files_give(tars, tmp_path_factory):
  store = song_store.SongStore(tiny_melon.build(tars))
  unpacked = tmp_path_factory.mktemp("unpacked")
  shutil.copytree(tars / "kakao_meta", unpacked / "kakao_meta")
  for path in tars.glob("*.tar"):
    shutil.unpack_archive(path, unpacked, filter="data")
  other = song_store.SongStore(tiny_melon.build(unpacked))
  assert store.song_ids.tolist() == sorted(set(tiny_melon.IDS) - {1003})
  for i in range(len(store)):
    assert store.read_song(i).tobytes() == other.read_song(i).tobytes()
  skipped = _skipped(tars / "data")
  assert skipped[1003] == {
    "id": 1003,
    "file": "arena_mel_1.tar:arena_mel/1/1003.npy",
    "reason": "all zero",
    "detail": "shape (48, 9)",
  }
  assert skipped[9000]["reason"] == "missing"
  assert "in none of 3 tars" in skipped[9000]["detail"]
  assert skipped.keys() == {1003, 9000}


def test_processes_give_the_content_that_one_thread_gives(tars):
  expected = tiny_melon.content(
    tiny_melon.build(tars, "one", workers=1, processes=False)
  )
  actual = tiny_melon.content(
    tiny_melon.build(tars, "many", workers=3, processes=True)
  )
  assert actual == expected


def test_a_song_is_taken_from_the_first_usable_place(tmp_path):
  tiny_melon.write_melon(tmp_path, [1, 2])
  np.save(tiny_melon.mel_path(tmp_path, 2), tiny_melon.ZEROS)
  tiny_melon.write_meta(
    tmp_path / "kakao_meta", map(tiny_melon.song, range(1, 6))
  )
  other = tiny_melon.mel_db(99)
  everything = [(i, other) for i in range(1, 6)]
  for number, songs in {
    "10": everything,
    "2": [
      (3, tiny_melon.ZEROS),
      (4, tiny_melon.ZEROS),
      (5, tiny_melon.ZEROS),
      (4, None),
      (4, other),
    ],
  }.items():
    tiny_melon.write_tar(
      tmp_path / f"arena_mel_{number}.tar",
      [
        (
          tiny_melon.member_name(i),
          tiny_melon.npy_bytes(tiny_melon.mel_db(i) if db is None else db),
        )
        for i, db in songs
      ],
    )
  expected = {1: 1, 2: 99, 3: 99, 4: 4, 5: 99}
  for workers in (1, 2):
    store = song_store.SongStore(
      tiny_melon.build(tmp_path, f"data{workers}", workers=workers)
    )
    for place, song_id in enumerate(store.song_ids.tolist()):
      data = tiny_melon.npy_bytes(tiny_melon.mel_db(expected[song_id]))
      feature = melon_spectrogram.decode(data)
      assert store.read_song(place).tobytes() == feature.tobytes()
    assert not _skipped(tmp_path / f"data{workers}")


@hypothesis.given(st.permutations(range(12)), st.integers(0, 12))
@hypothesis.settings(deadline=None, max_examples=40)
def test_the_order_in_which_batches_come_never_matters(
  tmp_path_factory, order, stop
):
  folder = tmp_path_factory.getbasetemp() / "ledger"
  folder.mkdir(exist_ok=True)
  names = [f"arena_mel_{i}.tar" for i in (1, 2, 10)]
  for name in names:
    (folder / name).touch()
  ids = np.arange(4)

  def batch(i: int) -> conversion.Batch:
    source, song_id = names[i % 3], i // 3
    one = conversion.Batch(source)
    if (i * 7 + i // 4) % 3:
      one.songs = [(song_id, np.full((1, 48), i, np.float16))]
    else:
      one.unusable = [
        {"id": song_id, "file": source, "reason": "r", "detail": "", "place": i}
      ]
    return one

  def run(numbers, stop):
    ledger = melon_ledger.Ledger(ids, {}, folder, [])
    written, notes = {}, []
    for count, i in enumerate(numbers):
      if count == stop:  # Killed and started again.
        ledger = melon_ledger.Ledger(ids, {}, folder, notes)
      songs, record = ledger.settle(batch(i))
      written |= {song_id: feature[0, 0] for song_id, feature in songs}
      notes.append(json.dumps([record]).encode())
    return written, ledger.left_out(folder)

  assert run(order, stop) == run(range(12), 12)


def test_finished_tars_are_not_opened_again(tars, monkeypatch):
  with pytest.raises(errors.InputError):
    tiny_melon.build(tars, max_skipped_share=0)
  monkeypatch.setattr(tar_reader.Tar, "read", None)
  assert (
    len(song_store.SongStore(tiny_melon.build(tars))) == len(tiny_melon.IDS) - 1
  )


def test_of_a_tar_half_done_only_headers_and_the_rest_are_read(
  tars, monkeypatch
):
  _small_steps(monkeypatch)
  add, commits = song_writer.SongWriter.add, []

  def stopping(self, songs, note):
    commits.append(len(songs))
    if len(commits) == 6:
      raise KeyboardInterrupt
    add(self, songs, note)

  monkeypatch.setattr(song_writer.SongWriter, "add", stopping)
  with pytest.raises(KeyboardInterrupt):
    tiny_melon.build(tars, workers=1)
  monkeypatch.setattr(song_writer.SongWriter, "add", add)
  read_bytes, bodies = tar_reader._read_bytes, []

  def noting(fd, count, place):
    bodies.append(count > 512)
    return read_bytes(fd, count, place)

  monkeypatch.setattr(tar_reader, "_read_bytes", noting)
  path = tiny_melon.build(tars, workers=1)
  ends = 8  # Four reads of the end marks of each of the two tars read again.
  assert sum(bodies) - ends == pytest.approx(len(tiny_melon.IDS) - 40, abs=1)
  monkeypatch.setattr(tar_reader, "_read_bytes", read_bytes)
  assert tiny_melon.content(path) == tiny_melon.content(
    tiny_melon.build(tars, "whole")
  )


def test_songs_behind_damage_are_missing_by_the_tars_name(tars, capsys):
  whole = (tars / "arena_mel_1.tar").read_bytes()
  (tars / "arena_mel_1.tar").write_bytes(whole[: len(whole) // 2])
  with pytest.raises(errors.InputError, match="max_skipped_share"):
    tiny_melon.build(tars, max_skipped_share=0.1)
  assert "arena_mel_1.tar is damaged" in capsys.readouterr().out
  skipped = _skipped(tars / "data")
  assert 10 < len(skipped) < 20 and 1029 in skipped
  assert "arena_mel_1.tar: it ends in the middle" in skipped[1029]["detail"]
  cut_off = [e for e in skipped.values() if e["reason"] == "unreadable"]
  assert [one["file"].split(":")[0] for one in cut_off] == ["arena_mel_1.tar"]
  # The tar copied again, the same command line takes in the rest.
  (tars / "arena_mel_1.tar").write_bytes(whole)
  assert tiny_melon.content(tiny_melon.build(tars)) == tiny_melon.content(
    tiny_melon.build(tars, "whole")
  )


def test_songs_behind_a_damaged_header_are_used_as_they_are(tars, capsys):
  whole = tiny_melon.content(tiny_melon.build(tars, "whole"))
  path = tars / "arena_mel_1.tar"
  data = bytearray(path.read_bytes())
  place = data.index(b"arena_mel/1/1010.npy")
  data[place + 137] ^= 1  # In the time of change.
  path.write_bytes(data)
  found = tiny_melon.content(tiny_melon.build(tars))
  assert f"bytes {place} to" in capsys.readouterr().out
  assert _skipped(tars / "data")[1010] | {"detail": ""} == {
    "id": 1010,
    "file": "arena_mel_1.tar:arena_mel/1/1010.npy",
    "reason": "unreadable",
    "detail": "",
  }
  key = song_store.song_key(1010)
  assert key in whole and key not in found
  songs = {one for one in whole if len(one) == 4} - {key}
  assert len(songs) == len(tiny_melon.IDS) - 2
  assert all(found[one] == whole[one] for one in songs)


def test_a_tar_taken_away_when_it_was_read_is_not_missed(tars):
  with pytest.raises(errors.InputError):
    tiny_melon.build(tars, max_skipped_share=0)
  (tars / "arena_mel_1.tar").unlink()
  assert (
    len(song_store.SongStore(tiny_melon.build(tars))) == len(tiny_melon.IDS) - 1
  )


def test_foreign_members_and_unknown_songs_are_counted(tars, capsys):
  tiny_melon.write_tar(
    tars / "arena_mel_3.tar",
    [("../x.npy", b""), ("arena_mel/7/7777.npy", b""), ("/etc/passwd", b"")],
  )
  tiny_melon.build(tars)
  out = capsys.readouterr().out
  assert "2 members of tars ignored: not named like a song's file" in out
  assert "1 members of tars ignored: of a song that the metadata lack" in out
  assert "arena_mel_3.tar:../x.npy" in out


def test_excluded_songs_do_not_count_for_the_share(tars, capsys):
  (tars / "ids.txt").write_text("1000\n1003\n424242\n")
  path = tiny_melon.build(
    tars, exclude=["5", str(tars / "ids.txt")], max_skipped_share=0.02
  )
  skipped = _skipped(tars / "data")
  assert skipped[5000]["detail"] == "--exclude=5"
  assert skipped[1003]["detail"] == "--exclude=ids.txt"
  reasons = song_store.SongStore(path).meta["source"]["left_out"]
  assert reasons == {"excluded": 12, "missing": 1}
  assert "(424242)" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("free", "is_refused"), [(1 << 20, False), (1 << 10, True)]
)
def test_a_disk_that_is_too_small_is_told_before_the_work(
  tars, monkeypatch, capsys, free, is_refused
):
  total = sum(path.stat().st_size for path in tars.glob("*.tar"))
  assert total // 4 < 1 << 20 < total // 2
  usage = shutil.disk_usage(tars)._replace(free=free)
  monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
  if is_refused:
    with pytest.raises(errors.InputError, match="GB more.* GB free. Make room"):
      tiny_melon.build(tars)
  else:
    tiny_melon.build(tars)
    assert "warning: the store" in capsys.readouterr().err


def test_worker_processes_do_not_import_jax():
  code = "import sys, preprocessing.melon_lmdb; assert 'jax' not in sys.modules"
  subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@hypothesis.given(
  damages=st.lists(
    st.tuples(st.sampled_from([0, 1]), st.integers(0, 9000), st.binary()),
    max_size=3,
  ),
  size=st.one_of(st.none(), st.integers(0, 9000)),
)
@hypothesis.settings(
  deadline=None,
  max_examples=20,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@pytest.mark.filterwarnings("ignore")  # numpy's own, of strange headers.
def test_every_song_is_in_the_store_or_on_the_list(
  tmp_path_factory, damages, size
):
  folder = tmp_path_factory.mktemp("damaged")
  ids = list(range(8))
  tiny_melon.write_meta(folder / "kakao_meta", map(tiny_melon.song, ids))
  for number, some in enumerate((ids[:4], ids[4:])):
    path = folder / f"arena_mel_{number}.tar"
    arrays = {str(i): tiny_melon.mel_db(i, frames=5) for i in some}
    tiny_melon.write_song_tar(path, some, **arrays)
    data = bytearray(path.read_bytes())
    for _, place, new in (one for one in damages if one[0] == number):
      data[place : place + len(new)] = new
    path.write_bytes(data[:size])
  kept = set()
  try:
    kept = set(song_store.SongStore(tiny_melon.build(folder)).song_ids.tolist())
  except errors.InputError as error:
    assert "no song at all" in str(error)
  assert kept.isdisjoint(_skipped(folder / "data"))
  assert kept | _skipped(folder / "data").keys() == set(ids)
