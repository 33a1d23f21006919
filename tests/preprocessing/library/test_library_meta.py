"""Tests of preprocessing.library.library_meta and of records of files."""

import json

import pytest

from pcl_jax.common import storage
from pcl_jax.library import audio_tags
from pcl_jax.library import music_files
from preprocessing.library import library_build
from preprocessing.library import library_meta
from preprocessing.library import library_report
from preprocessing.library import song_records
from preprocessing.vectors import playlist_factors
from tests.support.tiny import tiny_library


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_tags_are_read_and_split(tmp_path, suffix):
  path = tiny_library.write_song(
    tmp_path / f"a.{suffix}",
    title="Title",
    artist=["One; Two", "one", " Three "],
    album="Album",
    albumartist="Various",
    genre=["Rock", "Jazz;Blues"],
    date="2013-05-06",
  )
  tags = audio_tags.read_tags(path)
  assert (tags.titles, tags.albums) == (("Title",), ("Album",))
  assert tags.album_artists == ("Various",)
  ids = {"Folder/" + path.name: 7}
  (tmp_path / "Folder").mkdir()
  path.rename(tmp_path / "Folder" / path.name)
  library_meta.write_meta(tmp_path, tmp_path / "meta", ids, {7})
  (song,) = tiny_library.read_json(tmp_path / "meta" / "song_meta.json")
  assert song["id"] == 7 and song["issue_date"] == "20130506"
  assert song["artist_name_basket"] == ["One", "Two", "Three"]
  assert song["artist_id_basket"] == [0, 1, 2]
  assert song["song_gn_gnr_basket"] == ["GN0300", "GN0200", "GN0100"]


def test_tags_of_a_file_with_many_links_are_read_once(tmp_path, monkeypatch):
  path = tiny_library.write_song(tmp_path / "a.flac", artist="One")
  (tmp_path / "b.flac").symlink_to(path)
  (tmp_path / "c.flac").hardlink_to(path)
  tiny_library.write_song(tmp_path / "d.flac", artist="Two")
  read, names = audio_tags.read_tags, []
  monkeypatch.setattr(
    audio_tags, "read_tags", lambda path: names.append(path.name) or read(path)
  )
  paths = ["a.flac", "b.flac", "c.flac", "d.flac", "gone.flac"]
  found = library_meta.read_tags(tmp_path, paths)
  assert names == ["a.flac", "d.flac", "gone.flac"] and list(found) == paths
  artists = [one.artists for one in found.values()]
  assert artists == [("One",), ("One",), ("One",), ("Two",), ()]


def test_unreadable_tags_are_reported_and_stop_nothing(tmp_path):
  path = tmp_path / "Folder" / "a.flac"
  path.parent.mkdir()
  path.write_bytes(b"no such thing" * 100)
  assert audio_tags.read_tags(path).unreadable
  ids = {"Folder/a.flac": 0}
  found = library_meta.write_meta(tmp_path, tmp_path / "meta", ids, {0})
  assert found["tags_unreadable"].keys() == ids.keys()
  (song,) = tiny_library.read_json(tmp_path / "meta" / "song_meta.json")
  assert song["artist_name_basket"] == ["Folder"]


def test_a_file_beside_no_folder_and_tag_has_no_artist(tmp_path):
  tiny_library.write_song(tmp_path / "a.flac")
  found = library_meta.write_meta(tmp_path, tmp_path / "m", {"a.flac": 0}, {0})
  assert (found["artists"], found["songs_without_artist"]) == (0, 1)


def test_links_are_followed_and_a_circle_ends(tmp_path):
  audio = tiny_library.make(tmp_path / "music", artists=1, songs=2)
  tiny_library.write_song(tmp_path / "elsewhere" / "z.wav")
  (audio / "link").symlink_to(tmp_path / "elsewhere")
  (audio / "Artist 0" / "circle").symlink_to(audio)
  found = music_files.look_through(audio)
  assert found.sound == ["Artist 0/0.wav", "Artist 0/1.wav", "link/z.wav"]


def test_file_names_that_are_not_utf_8_are_kept(tmp_path):
  name = b"\xe9t\xe9.wav".decode("utf-8", "surrogateescape")
  storage.write_json(tmp_path / "a.json", {name: "é"})
  assert tiny_library.read_json(tmp_path / "a.json") == {name: "é"}
  json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))


def test_every_file_with_a_suffix_is_stamped_a_broken_link_too(tmp_path):
  path = tiny_library.write_song(tmp_path / "b.WAV")
  (tmp_path / "a.wav").symlink_to(tmp_path / "nowhere")
  (tmp_path / ".c.wav").touch()
  known = path.stat()
  assert music_files.sound_stamps(tmp_path) == {
    "a.wav": (-1, -1),
    "b.WAV": (known.st_size, known.st_mtime_ns),
  }


def test_records_of_files_come_back_whatever_their_names(tmp_path):
  name = b"\xe9 \xe2\x80\xa8".decode("utf-8", "surrogateescape")
  one = song_records.SongFile(name, 3, 100, 7, sha256="ab")
  other = song_records.SongFile("a", 1, 1, 1, reason="no", needs="ffmpeg")
  path = tmp_path / "records.jsonl"
  assert song_records.read_records(path) == {}
  song_records.write_records(path, [one, other])
  assert song_records.read_records(path) == {"a": other, name: one}
  path.write_text("{}\n")
  with pytest.raises(song_records.errors.InputError, match=r"records\.jsonl"):
    song_records.read_records(path)


def test_entries_of_other_machines_and_addresses_on_the_net_are_counted(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(
    playlist_factors, "make_playlist_vectors", lambda *_, **__: None
  )
  audio, data = tiny_library.make(tmp_path / "music"), tmp_path / "data"
  entries = [
    r"D:\Music\Artist 1\0.wav",
    "http://host/Artist 1/1.wav",
    r"D:\Music\Artist 9\0.wav",
    "Artist 2/0.wav",
  ]
  (audio / "a.m3u").write_text("\n".join(entries))
  report = library_build.build_library(audio, data, **tiny_library.SMALL)
  (found,) = report["playlist_files"]
  assert (found["entries"], found["songs"]) == (4, 2)
  assert found["by_ending"] == entries[:1]
  assert found["streams"] == entries[1:2]
  assert found["not_found"] == entries[2:3]
  (playlist,) = tiny_library.read_json(data / "kakao_meta" / "train.json")
  assert playlist["songs"] == [5, 10]
  summary = library_report.summary(report, data)
  assert "addresses on the net: 1;" in summary
  assert "found by the ending of their path: 1;" in summary
