"""Tests of library.library_build: a data set is made, whole or in parts."""

import os
import pathlib

import numpy as np
import pytest
import soundfile

from pcl_jax.audio import decode
from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from preprocessing import own_library
from preprocessing.library import library_build
from preprocessing.library import library_report
from preprocessing.vectors import playlist_factors
from tests.support.audio_files import real_library
from tests.support.tiny import tiny_library


def _meta(data_dir, name):
  return tiny_library.read_json(data_dir / "kakao_meta" / name)


def test_a_folder_of_audio_becomes_a_data_set(tmp_path):
  audio, data = tiny_library.make(tmp_path / "music"), tmp_path / "data"
  odd = audio / "Artist 3" / os.fsdecode(b"caf\xe9\n.wav")
  (audio / "Artist 3" / "4.wav").rename(odd)
  report = library_build.build_library(audio, data, **tiny_library.SMALL)
  assert (report["songs"], report["left_out"], report["artists"]) == (20, 0, 4)
  store = song_store.SongStore(data / "songs.lmdb")
  ids = tiny_library.read_json(data / "song_ids.json")["ids"]
  assert list(ids) == sorted(ids) and list(ids.values()) == list(range(20))
  for path, song_id in ids.items():
    expected = decode.read_feature(audio / path)
    np.testing.assert_array_equal(store.read_song(song_id), expected)
  made = catalogues.load(data)
  assert np.bincount(made.split).tolist() == [12, 4, 4]
  assert made.artists.transposed(4).lengths.tolist() == [5, 5, 5, 5]


def test_what_the_library_lacks_is_said_by_strategy(tmp_path):
  audio, data = tiny_library.make(tmp_path / "music"), tmp_path / "data"
  report = library_build.build_library(audio, data, **tiny_library.SMALL)
  assert report["unavailable"].keys() == {
    "CM and Hybrid with cf",
    "CM and Hybrid with genre_w2v",
    "A-IM and Hybrid with Playlist pairs",
    "A-IM and Hybrid with Genre pairs",
    "A-IM and Hybrid with Album pairs",
  }
  assert not list(data.glob("*_vectors.npy"))
  assert "cf (the library lacks playlists)" in library_report.summary(
    report, data
  )


def test_vectors_are_made_where_there_are_playlists_and_genres(tmp_path):
  audio, data = tmp_path / "music", tmp_path / "data"
  for i in range(20):
    genre = ["Rock; Folk", "Jazz"][i % 2]
    tags = {"genre": genre, "artist": f"{i % 5}", "album": f"A{i % 5}"}
    tiny_library.write_song(audio / f"{i:02d}.flac", 200.0 + 40 * i, **tags)
  for i in range(4):
    names = [f"{j:02d}.flac" for j in range(20) if j % 4 == i]
    (audio / f"{i}.m3u").write_text("\n".join(["#EXTM3U", *names]))
  report = library_build.build_library(audio, data, **tiny_library.SMALL)
  assert report["unavailable"] == {}
  assert np.load(data / "playlist_vectors.npy").shape == (20, 5)
  assert np.load(data / "genre_vectors.npy").shape == (7, 4)
  made = catalogues.load(data)
  expected = ["GN0100", "GN0101", "GN0200", "GN0201", "GN0300", "GN0301"]
  assert made.genre_codes.tolist() == expected
  assert [one.tolist() for one in made.playlists] == [
    list(range(i, 20, 4)) for i in range(4)
  ]
  names = _meta(data, "genre_gn_all.json")
  assert [names[code] for code in expected[::2]] == ["Folk", "Jazz", "Rock"]
  first = _meta(data, "song_meta.json")[0]
  assert first["song_gn_gnr_basket"] == ["GN0300", "GN0100"]
  assert first["song_gn_dtl_gnr_basket"] == ["GN0301", "GN0101"]


def test_every_entry_of_a_playlist_is_accounted_for(tmp_path, monkeypatch):
  monkeypatch.setattr(
    playlist_factors, "make_playlist_vectors", lambda *_, **__: None
  )
  audio, data = tiny_library.make(tmp_path / "music"), tmp_path / "data"
  (audio / "Artist 2" / "junk.mp3").write_bytes(b"junk" * 100)
  entries = ["0.wav", "1.wav", "0.wav", "gone.wav", "junk.mp3"]
  (audio / "Artist 2" / "mix.m3u").write_text("\n".join(entries))
  (audio / "nothing.M3U").write_text("# nothing\n")
  report = library_build.build_library(audio, data, **tiny_library.SMALL)
  nothing, mix = sorted(report["playlist_files"], key=lambda one: one["songs"])
  assert mix["file"] == "Artist 2/mix.m3u" and mix["entries"] == 5
  assert (mix["songs"], mix["repeated"]) == (2, 1)
  assert (mix["not_found"], mix["left_out"]) == (["gone.wav"], ["junk.mp3"])
  assert nothing["entries"] == 0 and report["playlists"] == 1
  assert _meta(data, "train.json")[0]["plylst_title"] == "mix"
  assert "no song was found for: 1" in library_report.summary(report, data)


def test_files_that_cannot_be_used_are_left_out_with_their_reasons(tmp_path):
  audio, data = tiny_library.make(tmp_path / "music"), tmp_path / "data"
  (audio / "empty.mp3").touch()
  (audio / "song.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(1000))
  (audio / ".hidden.mp3").write_bytes(b"not a song")
  (audio / "cover.jpg").write_bytes(b"not a song")
  soundfile.write(audio / "silent.wav", np.zeros(16_000), 16_000)
  report = library_build.build_library(audio, data, **tiny_library.SMALL)
  assert (report["songs"], report["left_out"]) == (20, 3)
  skipped = tiny_library.read_json(data / "skipped.json")
  assert [one["id"] for one in skipped] == [20, 21, 22]
  reasons = {one["file"]: one["reason"] for one in skipped}
  assert reasons.keys() == {"empty.mp3", "silent.wav", "song.m4a"}
  assert "0 bytes" in reasons["empty.mp3"]
  assert "silent" in reasons["silent.wav"]
  assert "cannot be opened" in reasons["song.m4a"]
  assert "(1 silent, 2 not usable)" in library_report.summary(report, data)


def test_a_library_too_small_for_its_shares_says_what_was_left_out(tmp_path):
  audio, data = tmp_path / "music", tmp_path / "data"
  tiny_library.make(audio, artists=1, songs=3)
  soundfile.write(audio / "silent.wav", np.zeros(16_000), 16_000)
  tiny_library.write_song(audio / "short.wav", seconds=0.1)
  shares = tiny_library.SMALL | {"test_share": 0.1, "validation_share": 0.1}
  with pytest.raises(errors.InputError, match="3 songs are too few") as caught:
    library_build.build_library(audio, data, **shares | {"min_s": 0.85})
  message = str(caught.value)
  assert (
    "2 songs left out (1 shorter than 0.85 s, --min_s, 1 silent)" in message
  )
  assert "skipped.json says why" in message


def test_a_library_that_cannot_train_is_told_so_and_not_how_to_train(tmp_path):
  audio, data = tmp_path / "music", tmp_path / "data"
  tiny_library.make(audio, artists=1, songs=6)
  report = library_build.build_library(audio, data, **tiny_library.SMALL)
  summary = library_report.summary(report, data)
  assert "any strategy (the library lacks two songs for training" in summary
  assert "next:" not in summary
  tiny_library.write_song(audio / "7.wav", 1000.0)
  tiny_library.write_song(audio / "8.wav", 1100.0)
  report = library_build.build_library(audio, data, **tiny_library.SMALL)
  summary = library_report.summary(report, data)
  assert "any strategy" not in summary
  # Of one artist nothing can be told apart, and SS needs none.
  assert report["unavailable"].keys() >= {"A-IM and Hybrid with Artist pairs"}
  assert "--config=configs/library.py:ss " in summary
  assert "300 steps of 2 pairs, width 16; about 1 min" in summary


def test_a_library_without_anything_usable_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match="not a folder"):
    library_build.build_library(tmp_path / "absent", tmp_path / "data")
  (tmp_path / "music").mkdir()
  with pytest.raises(errors.InputError, match="no audio file"):
    library_build.build_library(tmp_path / "music", tmp_path / "data")
  (tmp_path / "music" / "junk.mp3").write_bytes(b"junk" * 100)
  with pytest.raises(errors.InputError, match=r"junk\.mp3.*cannot be opened"):
    library_build.build_library(tmp_path / "music", tmp_path / "data")
  assert not (tmp_path / "data" / "songs.lmdb").exists()


def test_a_data_set_of_another_kind_is_left_alone(tmp_path):
  audio, data = tiny_library.make(tmp_path / "music"), tmp_path / "data"
  writer = song_writer.SongWriter(data / "songs.lmdb")
  writer.add([(0, np.zeros((4, 48), np.float16))])
  writer.finish({})
  with pytest.raises(errors.InputError, match="not made of audio files"):
    library_build.build_library(audio, data, force=True, **tiny_library.SMALL)


def test_a_library_of_real_recordings_is_built(shared_dir, tmp_path):
  audio, data = tmp_path / "music", tmp_path / "data"
  pieces = real_library.cut_recordings(shared_dir / "audio", audio)
  report = library_build.build_library(audio, data, **tiny_library.SMALL)
  assert pieces == 3 + 8 + 1 + 1 + 14 + 6
  assert (report["songs"], report["left_out"]) == (pieces, 0)
  songs = _meta(data, "song_meta.json")
  counts = {}
  for song in songs:
    (artist,) = song["artist_name_basket"]
    counts[artist] = counts.get(artist, 0) + 1
    assert artist == pathlib.PurePosixPath(song["path"]).parent.name
  assert counts == {
    "drum_bass": 3,
    "ragtime": 8,
    "robin": 1,
    "solo_trumpet": 1,
    "sugar_plum_fairy": 14,
    "sweet_waltz": 6,
  }
  frames = song_store.SongStore(data / "songs.lmdb").frames
  assert np.bincount(frames)[501] == pieces - 2  # The two shorter ones.


def test_files_with_the_same_audio_are_one_song_that_playlists_keep(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(
    playlist_factors, "make_playlist_vectors", lambda *_, **__: None
  )
  audio, data = tiny_library.make(tmp_path / "music"), tmp_path / "data"
  first = audio / "Artist 1" / "0.wav"
  (audio / "Z").mkdir()
  (audio / "Z" / "again.wav").write_bytes(first.read_bytes())
  sound, rate_hz = soundfile.read(first, dtype="int16")
  soundfile.write(audio / "A.flac", sound, rate_hz)  # Other bytes.
  (audio / "A link.wav").symlink_to(first)
  lists = {"a": "Z/again.wav\nArtist 2/0.wav", "b": "A.flac\nZ/again.wav"}
  for name, text in lists.items():
    (audio / f"{name}.m3u").write_text(text)
  report = library_build.build_library(audio, data, **tiny_library.SMALL)
  assert (report["songs"], report["left_out"]) == (20, 3)
  copies = ("A link.wav", "Artist 1/0.wav", "Z/again.wav")
  same = dict.fromkeys(copies, "A.flac")
  assert report["duplicates"] == same
  skipped = tiny_library.read_json(data / "skipped.json")
  assert {one["file"]: one["duplicate_of"] for one in skipped} == same
  ids = tiny_library.read_json(data / "song_ids.json")["ids"]
  a, b = (one["songs"] for one in _meta(data, "train.json"))
  assert a == [ids["A.flac"], ids["Artist 2/0.wav"]] and b == [ids["A.flac"]]
  assert [one["repeated"] for one in report["playlist_files"]] == [0, 1]
  assert not any(one["left_out"] for one in report["playlist_files"])
  assert "3 duplicates of another" in library_report.summary(report, data)


def test_playlists_of_every_format_are_read_and_bad_ones_are_named(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(
    playlist_factors, "make_playlist_vectors", lambda *_, **__: None
  )
  audio, data = tiny_library.make(tmp_path / "music"), tmp_path / "data"
  texts = {
    "a.m3u8": "Artist 0/0.wav",
    "b.pls": "[playlist]\nFile1=Artist 0\\1.wav",
    "c.csv": "path,playlist\nArtist 0/2.wav,One\nArtist 0/3.wav,Two\ngone,One",
    "d.jspf": '{"playlist": {"track": [{"location": "Artist%200/4.wav"}]}}',
    "e.xspf": "<playlist><trackList><track><location>Artist%201/0.wav"
    "</location></track></trackList></playlist>",
    "bad.xspf": "<!DOCTYPE playlist><playlist/>",
    "bad.jspf": "{",
    "table.csv": "name,year\nx,1999",
    "other.json": "{}",
    "other.xml": "<x/>",
  }
  for name, text in texts.items():
    (audio / name).write_text(text)
  report = library_build.build_library(audio, data, **tiny_library.SMALL)
  found = {
    one["plylst_title"]: one["songs"] for one in _meta(data, "train.json")
  }
  assert found == {
    "a": [0], "b": [1], "One": [2], "Two": [3], "d": [4], "e": [5]
  }  # fmt: skip
  files = {one["file"]: one for one in report["playlist_files"]}
  assert "DOCTYPE" in files["bad.xspf"]["unreadable"]
  assert "not json" in files["bad.jspf"]["unreadable"]
  assert files["c.csv"]["playlists"] == 2
  assert files["c.csv"]["not_found"] == ["gone"]
  (other,) = report["not_playlists"]
  assert other["file"] == "table.csv" and "name,year" in other["reason"]
  summary = library_report.summary(report, data)
  for name in ("bad.xspf", "bad.jspf", "table.csv"):
    assert name in summary


def test_a_decoder_that_fails_in_a_new_way_does_not_end_the_run(
  tmp_path, monkeypatch
):
  audio = tiny_library.make(tmp_path / "music", artists=2)
  read = decode.read_feature

  def failing(path, *part):
    if path.name == "3.wav":
      raise RuntimeError("no one thought of this")
    return read(path, *part)

  monkeypatch.setattr(decode, "read_feature", failing)
  report = library_build.build_library(
    audio, tmp_path / "data", **tiny_library.SMALL
  )
  assert report["left_out"] == 2
  one, _ = tiny_library.read_json(tmp_path / "data" / "skipped.json")
  assert "RuntimeError: no one thought of this" in one["reason"]


def test_the_help_says_all_that_is_needed(capsys):
  with pytest.raises(SystemExit):
    own_library.main(["--help"])
  text = capsys.readouterr().out
  for word in "--from_s --to_s --force M4A .xspf .jspf .csv .pls".split():
    assert word in text
