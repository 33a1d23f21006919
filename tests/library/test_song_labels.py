"""Tests of pcl_jax.library.song_labels."""

import json

import pytest

from pcl_jax.library import song_labels
from tests.support.tiny import tiny_library


@pytest.fixture
def tagged(tmp_path):
  """Writes a song with tags; returns its path."""
  return lambda name, **tags: tiny_library.write_song(tmp_path / name, **tags)


def test_a_file_is_labelled_by_its_tags(tagged):
  path = tagged(
    "a/one.flac",
    title="  One\n two",
    artist="Ann feat. Bob; Cid",
    album="Best Of",
    albumartist="Ann",
    genre=["Rock / Pop", "rock", "Unknown"],
  )
  found = song_labels.of_file(path)
  assert found.artists == ("Ann", "Bob", "Cid")
  assert found.name == "Ann, Bob, Cid - One two"
  assert (found.album, found.genres) == ("Best Of", ("Rock", "Pop"))


def test_albums_of_one_name_are_told_apart(tagged, tmp_path, monkeypatch):
  album = {"album": "Greatest Hits", "artist": "X"}
  ids = [
    song_labels.of_file(tagged(name, **album, **more)).album_id
    for name, more in (
      ("a/1.flac", {"albumartist": "Ann"}),
      ("b/2.flac", {"albumartist": "ANN"}),
      ("c/3.flac", {"albumartist": "Bob"}),
      ("d/4.flac", {}),
      ("d/5.flac", {}),
      ("e/6.flac", {}),
    )
  ]
  assert ids[0] == ids[1] and ids[3] == ids[4]
  assert len({*ids}) == 4
  monkeypatch.chdir(tmp_path)
  assert song_labels.of_file("d/4.flac").album_id == ids[3]


def test_an_album_that_is_known_by_its_folder_moves_with_it():
  moved = song_labels.moved_album
  assert moved("best / /a\\xe9", "/a\udce9/1.mp3", "/b/2.mp3") == "best / /b"
  assert moved("best / ann", "/a/1.mp3", "/b/1.mp3") == "best / ann"
  assert moved("best / /a", "/a/1.mp3", "/a/1.mp3") == "best / /a"
  assert moved("", "/a/1.mp3", "/b/1.mp3") == ""


def test_what_is_no_name_and_no_file_has_no_labels(tagged, tmp_path):
  path = tagged("a.flac", artist="Unknown Artist", album="Unknown Album")
  for one in (path, tmp_path / "absent.mp3"):
    assert song_labels.of_file(one) == song_labels.Labels()


def test_a_data_set_labels_its_songs(tmp_path):
  meta = tmp_path / "kakao_meta"
  meta.mkdir()
  songs = [
    {
      "id": 7,
      "song_name": "One",
      "artist_name_basket": ["Ann", "Bob"],
      "album_id": 3,
      "album_name": "Best",
      "song_gn_gnr_basket": ["GN0100"],
      "song_gn_dtl_gnr_basket": ["GN0101", "GN9999"],
    },
    {"id": 8, "album_id": None},
  ]
  (meta / "song_meta.json").write_text(json.dumps(songs))
  codes = {"GN0100": "Rock", "GN0101": "Indie"}
  (meta / "genre_gn_all.json").write_text(json.dumps(codes))
  found = song_labels.of_data_set(tmp_path, [8, 7, 9])
  genres = "Rock", "Indie"
  assert found[1] == ("Ann, Bob - One", ("Ann", "Bob"), "Best", "3", genres)
  assert found[0] == found[2] == song_labels.Labels()
  (meta / "song_meta.json").unlink()
  assert song_labels.of_data_set(tmp_path, [7]) == [song_labels.Labels()]
