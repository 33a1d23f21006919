"""Tests of preprocessing.library.recognition, as an update uses it."""

import os
import shutil

import mutagen
from mutagen import id3
import soundfile

from pcl_jax.embedding import audio_sources
from preprocessing.library import library_build
from preprocessing.vectors import playlist_factors
from tests.support.tiny import tiny_library

SMALL = tiny_library.SMALL
_features = tiny_library.features
_is_whole = tiny_library.is_whole
_ids_of = tiny_library.ids_of
_parts_of = tiny_library.parts_of


def test_moved_renamed_and_tagged_files_stay_the_songs_they_were(
  library, decoded, monkeypatch, capsys
):
  monkeypatch.setattr(
    playlist_factors, "make_playlist_vectors", lambda *_, **__: None
  )
  audio, data = library
  (audio / "lists").mkdir()
  (audio / "lists" / "a.m3u").write_text("Artist 0/0.wav\nArtist 2/1.wav")
  library_build.build_library(audio, data, **SMALL)
  ids, features, parts = (
    _ids_of(data),
    _features(data),
    _parts_of(data),
  )
  (audio / "Best").mkdir()
  (audio / "Artist 0" / "0.wav").rename(audio / "Best" / "new name.wav")
  (audio / "Artist 1").rename(audio / "Best" / "Artist 1")
  file = mutagen.File(audio / "Artist 2" / "0.wav")
  file.add_tags()
  file.tags.add(id3.TPE1(encoding=3, text=["Somebody"]))
  file.save()
  os.utime(audio / "Artist 2" / "1.wav")
  library_build.build_library(audio, data, **SMALL)
  out = capsys.readouterr().out
  assert (
    "0 added, 4 moved or renamed, 0 removed, 0 changed, 2 with other" in out
  )
  assert "9 kept without decoding" in out
  assert not decoded and _is_whole(data)
  assert _features(data) == features and _parts_of(data) == parts
  assert _ids_of(data) == {
    **{path: ids[path] for path in ids if path.startswith("Artist 2")},
    **{f"Best/{path}": ids[path] for path in ids if "Artist 1" in path},
    "Artist 0/1.wav": 1,
    "Artist 0/2.wav": 2,
    "Best/new name.wav": 0,
  }
  meta = tiny_library.read_json(data / "kakao_meta" / "song_meta.json")
  assert meta[6]["artist_name_basket"] == ["Somebody"]
  (playlist,) = tiny_library.read_json(data / "kakao_meta" / "train.json")
  assert playlist["songs"] == [0, ids["Artist 2/1.wav"]]
  source = audio_sources.data_set_songs(data)
  assert source.paths[0] == str(audio / "Best" / "new name.wav")
  library_build.build_library(audio, data, **SMALL)
  assert "nothing to do" in capsys.readouterr().out


def test_ids_follow_the_audio_where_files_change_places(library, decoded):
  audio, data = library
  features = _features(data)
  first, second = (audio / "Artist 0" / f"{i}.wav" for i in (0, 1))
  first.rename(audio / "x")
  second.rename(first)
  (audio / "x").rename(second)
  third = audio / "Artist 0" / "2.wav"
  third.rename(audio / "third.wav")
  tiny_library.write_song(third, 999.0)
  library_build.build_library(audio, data, **SMALL)
  ids = _ids_of(data)
  assert [ids[f"Artist 0/{i}.wav"] for i in range(3)] == [1, 0, 9]
  assert ids["third.wav"] == 2 and decoded == ["2.wav"]
  found = _features(data)
  assert {song: found[song] for song in features} == features
  (audio / "third.wav").unlink()
  library_build.build_library(audio, data, **SMALL)
  assert _ids_of(data)["third.wav"] == 2 and 2 not in _features(data)


def test_a_library_on_another_disk_is_the_same_library(
  library, decoded, capsys
):
  audio, data = library
  ids, features = _ids_of(data), _features(data)
  disk = audio.with_name("disk")
  shutil.copytree(audio, disk, copy_function=shutil.copyfile)  # Other times.
  shutil.rmtree(audio)
  report = library_build.build_library(disk, data, **SMALL)
  assert "lies in" in capsys.readouterr().out and not decoded
  assert _ids_of(data) == ids and _features(data) == features
  assert report["audio_dir"] == str(disk)
  again = library_build.build_library(disk, data, **SMALL)
  assert again == report and "nothing to do" in capsys.readouterr().out
  disk.rename(audio)  # With the times that are known.
  report = library_build.build_library(audio, data, **SMALL)
  assert report["audio_dir"] == str(audio) and not decoded
  assert _is_whole(data)


def test_a_song_that_was_encoded_anew_without_loss_keeps_its_id(
  library, decoded
):
  audio, data = library
  features = _features(data)
  old = audio / "Artist 1" / "0.wav"
  sound, rate_hz = soundfile.read(old, dtype="int16")
  soundfile.write(audio / "Artist 1" / "zero.flac", sound, rate_hz)
  old.unlink()
  library_build.build_library(audio, data, **SMALL)
  assert decoded == ["zero.flac"] and _features(data) == features
  assert _ids_of(data)["Artist 1/zero.flac"] == 3
  library_build.build_library(audio, data, force=True, **SMALL)
  assert _features(data) == features


def test_a_duplicate_takes_the_place_of_a_song_that_goes(library, decoded):
  audio, data = library
  shutil.copyfile(audio / "Artist 0" / "0.wav", audio / "a copy.wav")
  report = library_build.build_library(audio, data, **SMALL)
  # What is a song stays one, though the other comes first by name.
  assert report["duplicates"] == {"a copy.wav": "Artist 0/0.wav"}
  before = _features(data)
  (audio / "Artist 0" / "0.wav").unlink()
  report = library_build.build_library(audio, data, **SMALL)
  assert report["duplicates"] == {} and report["songs"] == 9
  assert decoded == ["a copy.wav"] and _features(data) == before
  assert _ids_of(data)["a copy.wav"] == 0
