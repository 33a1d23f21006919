"""Tests of library.library_build: a data set is updated."""

import dataclasses
import pathlib

import numpy as np
import pytest

from pcl_jax.audio import decode
from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import song_store
from preprocessing import data_split
from preprocessing import own_library
from preprocessing.library import library_build
from preprocessing.library import library_store
from preprocessing.library import song_records
from preprocessing.library import staging
from preprocessing.vectors import playlist_factors
from tests.support.tiny import tiny_library

SMALL = tiny_library.SMALL
_features = tiny_library.features
_is_whole = tiny_library.is_whole
_parts_of = tiny_library.parts_of


def test_a_second_run_without_changes_does_nothing(library, decoded, capsys):
  audio, data = library
  before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
  own_library.main([f"--audio={audio}", f"--out={data}", *tiny_library.FLAGS])
  assert "nothing to do" in capsys.readouterr().out
  assert not decoded
  assert before == {path: path.stat().st_mtime_ns for path in data.rglob("*")}


def test_a_second_run_decodes_only_what_is_new_and_keeps_ids(
  library, decoded, capsys
):
  audio, data = library
  before, ids = (
    _features(data),
    tiny_library.read_json(data / "song_ids.json")["ids"],
  )
  tiny_library.write_song(audio / "A new artist" / "new.wav", 333.0)
  tiny_library.write_song(audio / "Artist 1" / "1.wav", 777.0, seconds=0.5)
  (audio / "Artist 2" / "2.wav").unlink()
  own_library.main([f"--audio={audio}", f"--out={data}", *tiny_library.FLAGS])
  assert sorted(decoded) == ["1.wav", "new.wav"]
  out = capsys.readouterr().out
  assert "1 added, 1 removed, 1 changed, 7 kept without decoding" in out
  assert "cannot be continued" in out and "keep their part" in out
  after = tiny_library.read_json(data / "song_ids.json")["ids"]
  assert after == ids | {"A new artist/new.wav": 9}
  features = _features(data)
  assert features.keys() == {0, 1, 2, 3, 4, 5, 6, 7, 9}
  changed = ids["Artist 1/1.wav"]
  assert {i for i in before.keys() & features if before[i] != features[i]} == {
    changed
  }
  (gone,) = tiny_library.read_json(data / "skipped.json")
  assert (gone["id"], gone["file"]) == (8, "Artist 2/2.wav")
  assert "no longer in the folder" in gone["reason"]
  assert catalogues.load(data).song_ids.tolist() == [*range(8), 9]
  assert _is_whole(data)
  # What is there is what a data set made at once has.
  fresh = data.with_name("fresh")
  library_build.build_library(audio, fresh, **SMALL)
  assert sorted(_features(fresh).values()) == sorted(features.values())


def test_force_decodes_all_again_and_keeps_ids(library, decoded):
  audio, data = library
  ids = tiny_library.read_json(data / "song_ids.json")["ids"]
  tiny_library.write_song(audio / "A new artist" / "0.wav", 333.0)
  library_build.build_library(audio, data, force=True, **SMALL)
  assert len(decoded) == 10 and _is_whole(data)
  after = tiny_library.read_json(data / "song_ids.json")["ids"]
  assert after == ids | {"A new artist/0.wav": 9}


def test_other_settings_need_force(library, decoded):
  audio, data = library
  other = {**SMALL, "seed": 1}
  with pytest.raises(errors.InputError, match="seed: there 0, here 1.*--force"):
    library_build.build_library(audio, data, **other)
  another = tiny_library.make(audio.with_name("another"), artists=1, songs=4)
  with pytest.raises(errors.InputError, match="begun from the folder"):
    library_build.build_library(another, data, **SMALL)
  assert _is_whole(data) and not decoded
  library_build.build_library(another, data, force=True, **other)
  assert len(decoded) == 4


def test_known_songs_keep_their_part_and_new_ones_fill_up_the_shares(
  tmp_path, capsys
):
  audio, data = tmp_path / "music", tmp_path / "data"
  tiny_library.make(audio, artists=4, songs=5)
  library_build.build_library(audio, data, **SMALL)
  before = _parts_of(data)
  tiny_library.make(audio, artists=6, songs=5)
  gone = min(song for song, part in before.items() if part == catalogues.TEST)
  (path,) = audio.glob(f"*{gone // 5}/{gone % 5}.wav")
  away = path.rename(tmp_path / path.name)
  library_build.build_library(audio, data, **SMALL)
  after = _parts_of(data)
  del before[gone]
  assert {song: after[song] for song in before} == before
  assert np.bincount(list(after.values())).tolist() == [17, 6, 6]
  assert "19 known songs keep their part; new songs: train 5" in (
    capsys.readouterr().out
  )
  away.rename(path)
  library_build.build_library(audio, data, **SMALL)
  assert _parts_of(data) == after | {gone: catalogues.TEST}


def test_a_new_song_goes_to_the_part_of_its_artist(tmp_path, capsys):
  audio, data = tmp_path / "music", tmp_path / "data"
  tiny_library.make(audio, artists=5, songs=2)
  library_build.build_library(audio, data, split_by="artist", **SMALL)
  assert "split by artist: 5 groups of songs" in capsys.readouterr().out
  before = _parts_of(data)
  assert all(before[2 * i] == before[2 * i + 1] for i in range(5))
  for artist in range(5):
    name = audio / f"Artist {artist}" / "new.wav"
    tiny_library.write_song(name, 800.0 + 40 * artist)
  report = library_build.build_library(audio, data, **SMALL)
  assert report["settings"]["split_by"] == "artist"
  ids = tiny_library.read_json(data / "song_ids.json")["ids"]
  after = _parts_of(data)
  for path, song in ids.items():
    first = ids[f"{path.partition('/')[0]}/0.wav"]
    assert after[song] == before[first]
  with pytest.raises(errors.InputError, match="split_by: there 'artist'"):
    library_build.build_library(audio, data, split_by="song", **SMALL)


def test_shares_that_data_split_has_set_stay_in_updates(library, decoded):
  audio, data = library
  shares = ["--test_share=0.4", "--validation_share=0.3", "--seed=5"]
  data_split.main([f"--melon_dir={data}", f"--data={data}", "--force", *shares])
  before = _parts_of(data)
  assert np.bincount(list(before.values())).tolist() == [3, 2, 4]
  tiny_library.write_song(audio / "A new artist" / "0.wav", 333.0)
  report = library_build.build_library(audio, data, threads=2)
  assert decoded == ["0.wav"] and report["settings"]["dims"] == 4
  assert _parts_of(data) == before | {9: catalogues.VALIDATION}
  assert report["settings"]["test_share"] == 0.4
  with pytest.raises(
    errors.InputError, match=r"test_share: there 0\.4, here 0\.2"
  ):
    library_build.build_library(audio, data, **SMALL)


def test_another_split_alone_decodes_nothing(library, decoded, capsys):
  audio, data = library
  before = _features(data)
  inode = (data / "songs.lmdb" / "data.mdb").stat().st_ino
  own_library.main(
    [f"--audio={audio}", f"--out={data}", "--test_share=0.4", "--force"]
  )
  assert not decoded and _features(data) == before and _is_whole(data)
  assert (data / "songs.lmdb" / "data.mdb").stat().st_ino == inode
  assert np.bincount(list(_parts_of(data).values()))[catalogues.TEST] == 4
  assert "split was drawn anew" in capsys.readouterr().out
  library_build.build_library(audio, data, force=True)
  assert len(decoded) == 9
  assert np.bincount(list(_parts_of(data).values()))[catalogues.TEST] == 4


def test_a_new_playlist_alone_needs_no_decoding_and_no_new_store(
  library, decoded, monkeypatch, capsys
):
  monkeypatch.setattr(
    playlist_factors, "make_playlist_vectors", lambda *_, **__: None
  )
  audio, data = library
  inode = (data / "songs.lmdb" / "data.mdb").stat().st_ino
  (audio / "a.m3u").write_text("Artist 0/0.wav\nArtist 0/1.wav")
  report = library_build.build_library(audio, data, **SMALL)
  assert report["playlists"] == 1 and not decoded and _is_whole(data)
  assert (data / "songs.lmdb" / "data.mdb").stat().st_ino == inode
  assert "1 playlist files not as before" in capsys.readouterr().out
  (audio / "a.m3u").write_text("Artist 0/0.wav")
  report = library_build.build_library(audio, data, **SMALL)
  assert report["playlist_files"][0]["songs"] == 1
  (audio / "a.m3u").unlink()
  report = library_build.build_library(audio, data, **SMALL)
  assert report["playlist_files"] == [] and not decoded


def test_songs_that_lacked_a_decoder_of_earlier_versions_are_tried_again(
  library, decoded, capsys
):
  audio, data = library
  (audio / "song.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(1000))
  library_build.build_library(audio, data, **SMALL)
  path = data / song_records.FILE_NAME
  records = song_records.read_records(path)
  records["song.m4a"] = dataclasses.replace(records["song.m4a"], needs="ffmpeg")
  song_records.write_records(path, records.values())
  decoded.clear()
  library_build.build_library(audio, data, **SMALL)
  assert decoded == ["song.m4a"]
  assert "1 left out before and tried again" in capsys.readouterr().out
  library_build.build_library(audio, data, **SMALL)
  assert "nothing to do" in capsys.readouterr().out


def test_an_update_that_fails_leaves_the_old_data_set(library, monkeypatch):
  audio, data = library
  before = _features(data)
  for path in audio.rglob("*.wav"):
    path.write_bytes(b"no audio")
  with pytest.raises(errors.InputError, match="none of the 9 audio files"):
    library_build.build_library(audio, data, **SMALL)
  assert _features(data) == before
  assert len(dataset.DataSet(data).store) == 9
  tiny_library.make(audio, artists=3, songs=3)
  library_build.build_library(audio, data, **SMALL)
  assert _features(data) == before and _is_whole(data)


def test_an_interrupted_update_goes_on_and_sees_what_changed_meanwhile(
  library, decoded, monkeypatch
):
  audio, data = library
  monkeypatch.setattr(library_store, "_COMMIT_SONGS", 3)
  for i in range(6):
    tiny_library.write_song(audio / "New" / f"n{i}.wav", 900.0 + 40 * i)
  read, count = decode.read_feature, 0

  def interrupted(path, *part):
    nonlocal count
    count += 1
    if count == 5:
      raise KeyboardInterrupt
    return read(path, *part)

  monkeypatch.setattr(decode, "read_feature", interrupted)
  with pytest.raises(KeyboardInterrupt):
    library_build.build_library(audio, data, **SMALL)
  assert len(_features(data)) == 9  # The old one.
  (audio / "New" / "n0.wav").unlink()  # It was committed.
  (audio / "Artist 0" / "0.wav").unlink()  # It was copied.
  tiny_library.write_song(audio / "New" / "n1.wav", 555.0)
  library_build.build_library(audio, data, **SMALL)
  assert _is_whole(data) and len(_features(data)) == 13
  fresh = data.with_name("fresh")
  library_build.build_library(audio, fresh, **SMALL)
  assert sorted(_features(fresh).values()) == sorted(_features(data).values())


def test_a_crash_while_parts_are_moved_is_made_good_by_the_next_run(
  tmp_path, monkeypatch
):
  at, crashed = 0, True
  while crashed:
    data = tmp_path / str(at)
    new = data / staging.UNFINISHED
    for folder, word in ((data, "old"), (new, "new")):
      for name in staging.PARTS:
        if word == "old" or name != "genre_vectors.npy":
          (folder / name).mkdir(parents=True)
          (folder / name / word).touch()
    (data / "the user's own").touch()
    crashed = _crashes(lambda: staging.finish(data), at, monkeypatch)  # noqa: B023
    if crashed and at == 0:  # Before the list is there.
      assert (data / "library.json" / "old").exists()
      staging.finish(data)
    staging.move(data)
    found = {path.parent.name for path in data.rglob("new")}
    assert found == set(staging.PARTS) - {"genre_vectors.npy"}
    assert not list(data.rglob("old"))
    assert (data / "the user's own").exists() and not new.exists()
    at += 1
  assert at > 25


def _crashes(function, at, monkeypatch):
  """Interrupts a function at its n-th change of a file's name."""
  count = 0

  def crashing(change, *args, **kwargs):
    nonlocal count
    count += 1
    if count == at + 1:
      raise KeyboardInterrupt
    return change(*args, **kwargs)

  with monkeypatch.context() as patch:
    for place, name in (
      (pathlib.Path, "rename"),
      (pathlib.Path, "replace"),
      (pathlib.Path, "unlink"),
      (staging.shutil, "rmtree"),
    ):
      change = getattr(place, name)
      patch.setattr(
        place,
        name,
        lambda *args, change=change, **kwargs: crashing(
          change, *args, **kwargs
        ),
      )
    try:
      function()
    except KeyboardInterrupt:
      return True
  return False


def test_a_reader_of_the_old_store_is_not_disturbed(library):
  audio, data = library
  old = song_store.SongStore(data / "songs.lmdb")
  first = old.read_song(0)
  (audio / "Artist 0" / "0.wav").unlink()
  library_build.build_library(audio, data, **SMALL)
  np.testing.assert_array_equal(old.read_song(0), first)
  assert len(song_store.SongStore(data / "songs.lmdb")) == 8


def test_a_run_that_kept_no_song_stands_in_nobodys_way(tmp_path):
  audio = tiny_library.make(tmp_path / "music", artists=3, songs=3)
  (tmp_path / "empty").mkdir()
  with pytest.raises(errors.InputError, match="no audio file"):
    library_build.build_library(tmp_path / "empty", tmp_path / "data", **SMALL)
  with pytest.raises(errors.InputError, match="none of the 9 audio files"):
    library_build.build_library(audio, tmp_path / "data", from_s=900.0, **SMALL)
  library_build.build_library(audio, tmp_path / "data", **SMALL)
  _is_whole(tmp_path / "data")
