"""Tests of pcl_jax.server.outside_ids."""

import json

import pytest

from pcl_jax.common import errors
from pcl_jax.server import outside_ids
from tests.support.servers import served
from tests.support.tiny import tiny_table

Song = outside_ids.OutsideSong


def _map(library, *songs):
  return outside_ids.map_songs(library.now(), songs)


@pytest.mark.parametrize(
  "path",
  ["20.mp3", "{music}/20.mp3", "/other/machine/music/20.mp3", "music\\20.MP3"],
)
def test_a_song_is_found_by_its_path(library, folder, path):
  path = path.format(music=folder / "music")
  assert _map(library, Song("x", path)).row_of == {"x": 20}


@pytest.mark.parametrize(
  ("song", "row"),
  [
    (Song("x", "Ann/X/01 - Song 20.mp3", "song 20", "ANN"), 20),
    (Song("x", title="Song 20", artist="Ann", seconds=78), 20),
    (Song("x", title="Song 20", artist="Ann", seconds=200), None),
    (Song("x", title="Song 20", artist="Bob"), None),
    (Song("x", title="Song 20"), None),
    (Song("x", title="35"), 35),  # By the file's name: it has no title.
    (Song("x", "elsewhere.mp3"), None),
    (Song("x"), None),
  ],
)
def test_a_song_is_found_by_its_names_if_the_length_agrees(library, song, row):
  assert _map(library, song).row_of == ({} if row is None else {"x": row})


def test_songs_of_one_name_are_told_apart_by_album_or_not_at_all(tmp_path):
  facts = {
    "artists": [["Ann"]] * 3,
    "name": ["Ann - Same"] * 3,
    "album": ["X", "X", "Y"],
    "seconds": [60.0, 61.0, 62.0],
  }
  tiny_table.write(tmp_path / "music.parquet", songs=3, facts=facts)
  one = served.serve(tmp_path / "music.parquet")
  song = Song("x", title="Same", artist="Ann", album="y", seconds=60)
  assert _map(one, song).row_of == {"x": 2}
  for album in ("X", "Z", ""):
    assert _map(one, song._replace(album=album)).row_of == {}


def test_songs_that_the_server_lacks_are_not_found(library):
  songs = [Song(f"s{i}", f"{i}.mp3") for i in range(10, 20)]
  mapped = _map(library, *songs, Song("gone", "gone.mp3"))
  assert set(range(60)) - mapped.table.silent == set(range(10, 20))
  assert "10 of 11 songs" in mapped.said and "50 of its 60" in mapped.said


def test_artists_are_found_by_name_or_by_their_only_song(library):
  mapped = _map(
    library,
    Song("s20", "20.mp3", artist_ids=(("ANN", "a1"),)),
    Song("s21", "21.mp3", artist_ids=(("Robert", "b1"),)),
    Song("s23", "23.mp3", artist_ids=(("Nobody", "n1"),)),
  )
  names, _ = library.now().artists
  found = {one: names[number] for one, number in mapped.artist_of.items()}
  assert found == {"a1": "Ann", "b1": "Bob <i>"}


@pytest.mark.parametrize(
  ("name", "content"),
  [
    ("ids.csv", "id,path,artist\ns1,4.mp3,Ann\ns2,5.mp3,\n"),
    ("ids.csv", '\ufeffpath,id\n"4.mp3",s1\n"5.mp3",s2\n'),
    ("ids.json", json.dumps({"s1": "4.mp3", "s2": "5.mp3"})),
    (
      "ids.json",
      json.dumps(
        [{"id": "s1", "path": "4.mp3"}, {"id": "s2", "path": "5.mp3"}]
      ),
    ),
  ],
)
def test_ids_come_from_a_file(library, tmp_path, name, content):
  (tmp_path / name).write_text(content, "utf-8")
  songs = outside_ids.read_file(tmp_path / name)
  assert _map(library, *songs).row_of == {"s1": 4, "s2": 5}


@pytest.mark.parametrize(
  ("name", "content"),
  [
    ("ids.csv", b""),
    ("ids.csv", b"name,path\na,b\n"),
    ("ids.csv", b"id,path\n\xff\xfe\n"),
    ("ids.json", b"{"),
    ("ids.json", b"3"),
    ("ids.json", b"[3]"),
  ],
)
def test_a_file_without_ids_is_refused(tmp_path, name, content):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(errors.InputError, match="columns id and path"):
    outside_ids.read_file(tmp_path / name)


def test_odd_values_of_a_record_do_no_harm():
  assert outside_ids.of_record({"path": "a.mp3"}) is None
  odd = {"id": 3, "duration": "x", "artists": "Ann", "path": None}
  assert outside_ids.of_record(odd) == Song("3")
  several = {"id": "x", "artists": [{"id": 1, "name": "Ann"}, {"id": 2}, 3]}
  assert outside_ids.of_record(several).artist_ids == (("Ann", "1"),)
