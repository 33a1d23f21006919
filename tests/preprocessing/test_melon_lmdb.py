"""Tests of preprocessing.melon_lmdb."""

import io
import json
import re
import sys

import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import song_store
from preprocessing import melon_lmdb
from preprocessing.melon import conversion
from preprocessing.melon import converter
from preprocessing.melon import melon_spectrogram
from tests.support.tiny import tiny_melon

IDS = (3, 999, 1000, 1001, 70_000)


def _skipped(data_dir) -> list[dict]:
  return json.loads((data_dir / "skipped.json").read_text())


def _features(store_dir) -> dict[int, bytes]:
  store = song_store.SongStore(store_dir)
  return {
    int(song_id): store.read_song(i).tobytes()
    for i, song_id in enumerate(store.song_ids)
  }


def test_records_are_the_formula_applied_to_the_files(tmp_path):
  tiny_melon.write_melon(tmp_path, IDS)
  path = converter.build_song_store(tmp_path, tmp_path / "data")
  store = song_store.SongStore(path)
  assert store.song_ids.tolist() == sorted(IDS)
  for i, song_id in enumerate(store.song_ids.tolist()):
    db = tiny_melon.mel_db(song_id).astype(np.float64)
    expected = np.log10(0.01 + 10 ** (db / 20)).T
    actual = store.read_song(i)
    assert actual.dtype == np.float16 and actual.shape == (300, 48)
    # Half a unit in the last place of a float16 below 4.
    np.testing.assert_allclose(actual, expected, rtol=2**-11, atol=2e-5)
  assert _skipped(tmp_path / "data") == []


def _with_nan() -> np.ndarray:
  db = tiny_melon.mel_db(0)
  db[5, 7] = np.nan
  return db


FAULTY_ARRAYS = {
  "wrong shape": tiny_melon.mel_db(0).T,
  "wrong dtype": np.ones((48, 300), np.int16),
  "not finite": _with_nan(),
  "all zero": np.zeros((48, 300), np.float32),
  "empty": np.zeros((48, 0), np.float32),
  "out of range": np.full((48, 300), 1e300),
  "unreadable": np.array([None] * 48, object),  # Would need pickle.
}


@pytest.mark.parametrize("reason", FAULTY_ARRAYS)
def test_a_faulty_array_is_listed_with_its_reason_and_the_rest_kept(
  tmp_path, reason
):
  tiny_melon.write_melon(tmp_path, IDS)
  np.save(
    tiny_melon.mel_path(tmp_path, 1000),
    FAULTY_ARRAYS[reason],
    allow_pickle=True,
  )
  path = converter.build_song_store(
    tmp_path, tmp_path / "data", max_skipped_share=0.5
  )
  [entry] = _skipped(tmp_path / "data")
  assert (entry["id"], entry["reason"]) == (1000, reason)
  assert entry["file"] == "arena_mel/1/1000.npy"
  assert entry["detail"]
  kept = song_store.SongStore(path).song_ids.tolist()
  assert kept == sorted(set(IDS) - {1000})


class _Terminal(io.StringIO):
  """Takes what a terminal would show."""

  def isatty(self) -> bool:
    return True


def test_a_terminal_is_shown_the_speed_and_the_time_left(tmp_path, monkeypatch):
  tiny_melon.write_melon(tmp_path, IDS)
  terminal = _Terminal()
  with monkeypatch.context() as patch:
    patch.setattr(sys, "stderr", terminal)
    converter.build_song_store(tmp_path, tmp_path / "data")
  last = terminal.getvalue().replace("\r", "\n").strip().splitlines()[-1]
  # Elapsed and left, bytes and songs a second.
  assert re.search(r"100%.*\[[\d:]+<[\d:]+, .*B/s, \d+ songs/s\]", last), last


def test_missing_files_and_folders_are_told_apart(tmp_path):
  tiny_melon.write_melon(tmp_path, IDS)
  tiny_melon.mel_path(tmp_path, 999).unlink()
  tiny_melon.mel_path(tmp_path, 70_000).unlink()
  tiny_melon.mel_path(tmp_path, 70_000).parent.rmdir()
  converter.build_song_store(tmp_path, tmp_path / "data", max_skipped_share=0.5)
  file, folder = _skipped(tmp_path / "data")
  assert file["reason"] == folder["reason"] == "missing"
  assert "file" in file["detail"] and "folder 70" in folder["detail"]


def test_short_songs_are_kept_and_counted(tmp_path, capsys):
  tiny_melon.write_melon(tmp_path, IDS)
  for song_id, frames in ((3, 1), (999, 255), (1000, 256)):
    path = tiny_melon.mel_path(tmp_path, song_id)
    np.save(path, tiny_melon.mel_db(song_id, frames))
  path = converter.build_song_store(tmp_path, tmp_path / "data")
  assert song_store.SongStore(path).frames.tolist() == [1, 255, 256, 300, 300]
  assert "2 songs are shorter than 256 frames" in capsys.readouterr().out


def test_min_frames_and_named_folders_leave_songs_out(tmp_path, capsys):
  tiny_melon.write_melon(tmp_path, (*IDS, 225_001))
  np.save(tiny_melon.mel_path(tmp_path, 3), tiny_melon.mel_db(3, 255))
  melon_lmdb.main(
    [
      f"--melon_dir={tmp_path}",
      f"--out={tmp_path / 'data'}",
      "--min_frames=256",
      "--exclude=published",
      "--max_skipped_share=0.2",
    ]
  )
  reasons = {one["id"]: one["reason"] for one in _skipped(tmp_path / "data")}
  assert reasons == {3: "too short", 225_001: "excluded"}
  assert "next: python -m preprocessing.data_split" in capsys.readouterr().out


@pytest.fixture
def many_songs(tmp_path, monkeypatch):
  """Forty songs, some of them bad, committed eight at a time."""
  monkeypatch.setattr(converter, "_SONGS_PER_COMMIT", 8)
  monkeypatch.setattr(conversion, "_BATCH_BYTES", 1)
  tiny_melon.write_melon(tmp_path, range(0, 4000, 100))
  tiny_melon.mel_path(tmp_path, 300).unlink()
  np.save(tiny_melon.mel_path(tmp_path, 3500), np.zeros((48, 9), np.float32))
  return tmp_path


@pytest.mark.parametrize("stop_after", [0, 5, 8, 21, 38])
def test_an_interrupted_run_goes_on_to_the_same_records(
  many_songs, monkeypatch, stop_after
):
  whole = converter.build_song_store(many_songs, many_songs / "whole")
  read_feature, calls = melon_spectrogram.read_feature, []

  def stopping(path, min_frames):
    calls.append(path)
    if len(calls) > stop_after:
      raise KeyboardInterrupt
    return read_feature(path, min_frames)

  monkeypatch.setattr(melon_spectrogram, "read_feature", stopping)
  with pytest.raises(KeyboardInterrupt):
    converter.build_song_store(many_songs, many_songs / "broken", workers=1)
  assert not (many_songs / "broken" / "songs.lmdb").exists()

  monkeypatch.setattr(melon_spectrogram, "read_feature", read_feature)
  broken = converter.build_song_store(many_songs, many_songs / "broken")
  assert _features(broken) == _features(whole)
  assert _skipped(broken.parent) == _skipped(whole.parent)
  assert song_store.SongStore(broken).meta == song_store.SongStore(whole).meta
  assert not list(broken.parent.glob("*.partial"))


def test_files_read_before_are_read_again_only_if_they_changed(
  many_songs, monkeypatch
):
  with pytest.raises(errors.InputError):
    converter.build_song_store(
      many_songs, many_songs / "data", max_skipped_share=0
    )
  read = []
  read_feature = melon_spectrogram.read_feature

  def noting(path, min_frames):
    read.append(int(path.stem))
    return read_feature(path, min_frames)

  monkeypatch.setattr(melon_spectrogram, "read_feature", noting)
  with pytest.raises(errors.InputError):
    converter.build_song_store(
      many_songs, many_songs / "data", max_skipped_share=0
    )
  assert read == []
  for song_id in (300, 3500):  # One was missing, one all zero.
    path = tiny_melon.mel_path(many_songs, song_id)
    np.save(path, tiny_melon.mel_db(song_id))
  path = converter.build_song_store(many_songs, many_songs / "data")
  assert sorted(read) == [300, 3500]
  assert len(song_store.SongStore(path)) == 40


def test_too_many_songs_left_out_is_refused_but_nothing_is_lost(
  many_songs, capsys
):
  with pytest.raises(errors.InputError) as caught:
    converter.build_song_store(
      many_songs, many_songs / "data", max_skipped_share=0.04
    )
  message = str(caught.value)
  for part in (
    "2 of 40",
    "5.0%",
    "4.0%",
    "--max_skipped_share",
    "skipped.json",
  ):
    assert part in message
  assert len(_skipped(many_songs / "data")) == 2
  assert (many_songs / "data" / "songs.lmdb.partial").exists()
  path = converter.build_song_store(
    many_songs, many_songs / "data", max_skipped_share=0.05
  )
  assert len(song_store.SongStore(path)) == 38


def test_a_finished_store_is_left_alone(many_songs, capsys):
  path = converter.build_song_store(many_songs, many_songs / "data")
  before = (path / "data.mdb").read_bytes()
  capsys.readouterr()
  converter.build_song_store(many_songs, many_songs / "data")
  assert "exists already: nothing to do" in capsys.readouterr().out
  assert (path / "data.mdb").read_bytes() == before


def test_a_finished_store_of_other_settings_is_not_taken_for_this_one(
  many_songs,
):
  converter.build_song_store(many_songs, many_songs / "data")
  before = _features(many_songs / "data" / "songs.lmdb")
  with pytest.raises(errors.InputError, match="other settings.*Delete"):
    converter.build_song_store(many_songs, many_songs / "data", min_frames=9)
  assert _features(many_songs / "data" / "songs.lmdb") == before


def test_a_store_begun_from_another_source_is_not_gone_on_with(many_songs):
  with pytest.raises(errors.InputError):
    converter.build_song_store(
      many_songs, many_songs / "data", max_skipped_share=0
    )
  with pytest.raises(errors.InputError, match="begun from another source"):
    converter.build_song_store(many_songs, many_songs / "data", min_frames=2)


def test_no_usable_song_at_all_is_refused(tmp_path):
  tiny_melon.write_melon(tmp_path, [1])
  np.save(tiny_melon.mel_path(tmp_path, 1), np.zeros((48, 9), np.float32))
  with pytest.raises(errors.InputError, match="no song at all"):
    converter.build_song_store(
      tmp_path, tmp_path / "data", max_skipped_share=1.0
    )


def test_a_source_without_spectrograms_says_what_to_do(tmp_path):
  tiny_melon.write_meta(tmp_path / "kakao_meta", [tiny_melon.song(1)])
  with pytest.raises(errors.InputError, match="neither tars .* Give"):
    converter.build_song_store(tmp_path, tmp_path / "data")


def test_an_output_that_cannot_be_made_is_refused(tmp_path):
  tiny_melon.write_melon(tmp_path, [1])
  (tmp_path / "data").touch()
  with pytest.raises(errors.InputError, match="is a file.*--out|another"):
    melon_lmdb.main([f"--melon_dir={tmp_path}", f"--out={tmp_path / 'data'}"])


def test_a_source_without_songs_is_refused(tmp_path):
  tiny_melon.write_meta(tmp_path / "kakao_meta", [])
  with pytest.raises(errors.InputError, match="lists no song"):
    converter.build_song_store(tmp_path, tmp_path / "data")


@pytest.mark.parametrize(
  "flag",
  [
    "--max_skipped_share=5",
    "--min_frames=0",
    "--workers=x",
  ],
)
def test_a_bad_flag_exits_with_2_and_names_itself(tmp_path, capsys, flag):
  with pytest.raises(SystemExit) as caught:
    melon_lmdb.main([f"--melon_dir={tmp_path}", f"--out={tmp_path}", flag])
  assert caught.value.code == 2
  assert flag.split("=")[0] in capsys.readouterr().err
