"""Tests of pcl_jax.library.folder_artists."""

import pytest

from pcl_jax.library import folder_artists


def _artist(path, *args, **kwargs):
  found = folder_artists.find(tuple(path.split("/")), *args, **kwargs)
  return found and found[1]


@pytest.mark.parametrize(
  ("path", "artist"),
  [
    ("Eagles/Long Road Out of Eden/Disk1", "Eagles"),
    ("Eagles/Long Road Out of Eden/CD 2", "Eagles"),
    ("Eagles/Long Road Out of Eden/Disc_1 - Early Years", "Eagles"),
    ("Eagles/Long Road Out of Eden/Bonus Disc", "Eagles"),
    ("Adele/19", "Adele"),
    ("Prince/1999", "Prince"),
    ("Queen/Greatest Hits", "Queen"),
    ("Queen/Best of Queen, Vol. 2", "Queen"),
    ("Queen", "Queen"),
    ("Music/Queen/Jazz", "Queen"),
    ("Musik/MP3/Queen", "Queen"),
    ("usr/share/games/foo/1.2/music", "foo"),
    ("Rock/Queen/Greatest Hits/CD1", "Queen"),
    ("Rock/Prince/1999", "Prince"),
    ("Queen/1975/A Night at the Opera", "Queen"),
    ("Queen/Albums/Jazz", "Queen"),
    ("Rock/Queen/Live", "Queen"),
    ("Rock/Queen", "Queen"),
    ("Music/Hip-Hop/Jay-Z/The Blueprint", "Jay-Z"),
    ("Queen/Jazz", "Queen"),
    ("Queen/Compilations/Classic Queen", "Queen"),
    ("Hans Zimmer/Original Soundtrack", "Hans Zimmer"),
    ("Live/Queen", "Queen"),
    ("Artist 0", "Artist 0"),
    ("Side Effects/One", "Side Effects"),
    ("Pink Floyd - The Wall", "Pink Floyd"),
  ],
)
def test_the_layout_says_whose_folder_it_is(path, artist):
  assert _artist(path) == artist


@pytest.mark.parametrize(
  "path",
  [
    "Greatest Hits", "Best of 1999", "music", "Music/MP3", "CD1", "Disk 2",
    "1999", "Live", "000", "311/Music", "1999 - A",
    "Unknown Artist/Unknown Album", "Various Artists/Hits 1",
    "VA - Hits 2000", "Rock", "Rock/Various Artists",
    "Soundtracks/OST", "Compilations/Hits", "usr/share",
  ],
)  # fmt: skip
def test_folders_that_say_nothing_are_no_artists(path):
  assert _artist(path) is None


def test_folders_of_one_name_in_two_places_are_two():
  places = ["a/Queen/One", "b/Queen/One", "A/queen/Two", "a/Queen/One/CD2"]
  keys = [folder_artists.find(tuple(one.split("/")))[0] for one in places]
  assert keys[0] == keys[2] == keys[3] != keys[1]


def test_two_albums_in_a_flat_folder_are_of_one_artist():
  keys = {
    folder_artists.find((name,))[0]
    for name in ("Pink Floyd - The Wall", "pink floyd - Animals")
  }
  assert len(keys) == 1


def test_a_folder_named_like_an_artist_by_tags_comes_first():
  known = {"Queen", "A - B"}.__contains__
  assert _artist("rock/collection/Queen", known=known) == "Queen"
  assert _artist("A - B", known=known) == "A - B"


def test_a_folder_of_many_folders_is_a_collection():
  paths = [("old disk", f"Band {i}") for i in range(21)]
  paths += [
    ("Queen", f"Album {i}", f"CD{j}") for i in range(20) for j in (1, 2)
  ]
  paths += [("old disk", "Band 1", "Live")]
  found = folder_artists.find_collections(paths)
  artists = [folder_artists.find(one, collections=found)[1] for one in paths]
  assert artists[:21] == [f"Band {i}" for i in range(21)]
  assert set(artists[21:-1]) == {"Queen"} and artists[-1] == "Band 1"


def test_the_rule_can_be_set():
  path = "Rock/Queen/Jazz/CD1"
  rules = {"parent": "CD1", "none": None, "1": "Rock", "2": "Queen", "9": None}
  assert {rule: _artist(path, rule) for rule in rules} == rules
  assert _artist("Rock/Unknown Artist", "2") is None
