"""Tests of preprocessing.library.credits."""

from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
import pytest

from pcl_jax.common import errors
from pcl_jax.library import artist_names
from pcl_jax.library import name_keys
from pcl_jax.library import placeholders
from pcl_jax.library.audio_tags import Tags
from preprocessing.library import credits


def _artists(tags, **rules):
  found = credits.credit(tags, credits.Rules(**rules))
  shown = found.names["artists"].shown
  return {
    path: [shown(key) for key in keys] for path, keys in found.artists.items()
  }


def test_names_are_one_artist_however_they_are_spelled():
  names = [
    "Beyonce\u0301",
    "Beyonc\u00e9",
    "BEYONC\u00c9",
    "Beyonc\u00e9\u200b",
  ]
  tags = {f"{i}.mp3": Tags(artists=(name,)) for i, name in enumerate(names)}
  found = credits.credit(tags, credits.Rules())
  assert len({key for keys in found.artists.values() for key in keys}) == 1
  report = credits.report(found)
  assert report["most_songs"] == [{"artist": "Beyonc\u00e9", "songs": 4}]
  assert report["merged"]["artists"] == {
    "Beyonc\u00e9": {"Beyonc\u00e9": 3, "BEYONC\u00c9": 1}
  }


def test_placeholders_are_no_artist_even_in_a_folder():
  tags = {
    "Queen/1.mp3": Tags(artists=("Unknown Artist",)),
    "Queen/2.mp3": Tags(artists=("<Unknown>",), album_artists=("Queen",)),
    "3.mp3": Tags(album_artists=("Various Artists",)),
    "4.mp3": Tags(artists=("VA",), artist_list=("VA", "Eminem")),
    "Various Artists/Hits/5.mp3": Tags(),
  }
  assert list(_artists(tags).values()) == [[], ["Queen"], [], ["Eminem"], []]
  report = credits.report(credits.credit(tags, credits.Rules()))
  assert report["no_names"]["artists"] == {
    "Unknown Artist": 1, "<Unknown>": 1, "Various Artists": 1, "VA": 1
  }  # fmt: skip
  assert report["by_album_artist"] == 1
  # Of the list that is given, only its names.
  own = _artists(tags, no_artists="Queen")
  assert own["Queen/1.mp3"] == ["Unknown Artist"]


def test_artists_are_those_of_the_track_before_those_of_the_album():
  tags = {
    "1.mp3": Tags(artists=("One",), album_artists=("Various Artists",)),
    "2.mp3": Tags(album_artists=("Two",)),
    "3.mp3": Tags(artists=("A & B",), artist_list=("A", "B")),
    "4.mp3": Tags(artists=("B & A",)),
    "5.mp3": Tags(artists=("Simon & Garfunkel feat. One",)),
  }
  assert list(_artists(tags).values()) == [
    ["One"], ["Two"], ["A", "B"], ["B", "A"], ["Simon & Garfunkel", "One"]
  ]  # fmt: skip
  found = credits.credit(tags, credits.Rules())
  assert found.split == {"B & A": ["B", "A"]}
  assert _artists(tags, split_artists="never")["4.mp3"] == ["B & A"]


def test_untagged_files_have_the_artist_of_their_folder_by_whole_path():
  tags = {
    "a/music/1.mp3": Tags(),
    "b/Music/2.mp3": Tags(),
    "a/music/3.mp3": Tags(),
    "music/4.mp3": Tags(),
    "5.mp3": Tags(),
    "x/Queen/6.mp3": Tags(),
    "7.mp3": Tags(artists=("queen",)),
    "y/Abba/Hits/8.mp3": Tags(titles=("Title",)),
    "z/Abba/Hits/9.mp3": Tags(albums=("Album",)),
  }
  found = credits.credit(tags, credits.Rules())
  keys = {path: keys for path, keys in found.artists.items()}
  assert keys["a/music/1.mp3"] == keys["a/music/3.mp3"] != keys["b/Music/2.mp3"]
  assert keys["music/4.mp3"] == keys["5.mp3"] == []
  assert keys["x/Queen/6.mp3"] == keys["7.mp3"]
  assert keys["y/Abba/Hits/8.mp3"] != keys["z/Abba/Hits/9.mp3"]
  folders = credits.report(found)["from_folders"]
  assert folders[0] == {
    "artist": "a", "songs": 2, "example": "a/music/1.mp3"
  }  # fmt: skip
  names = [one["artist"] for one in folders]
  assert names == ["a", "b", "Queen", "Abba", "Abba"]
  without = _artists(tags, artist_folder="none")
  assert [path for path, names in without.items() if names] == ["7.mp3"]


def test_a_folder_can_be_the_album_of_files_without_an_album_tag():
  tags = {
    "Game/a/1.mp3": Tags(),
    "game/b/2.mp3": Tags(albums=("Unknown Album",)),
    "Game/b/3.mp3": Tags(),
    "Game/b/4.mp3": Tags(albums=("Game",)),
    "5.mp3": Tags(),
  }
  found = credits.credit(tags, credits.Rules(album_folder="1")).albums
  assert found["Game/a/1.mp3"] == found["Game/b/3.mp3"] is not None
  assert len(set(found.values())) == 4 and found["5.mp3"] is None
  assert set(credits.credit(tags, credits.Rules()).albums.values()) == {
    None,
    found["Game/b/4.mp3"],
  }


def test_an_album_is_its_artists_or_else_its_folders():
  found = credits.credit(
    {
      "Score/1.mp3": Tags(artists=("One",), albums=("Score",)),
      "Score/CD2/2.mp3": Tags(artists=("Two",), albums=("score",)),
      "Queen/3.mp3": Tags(artists=("Queen",), albums=("Greatest Hits",)),
      "Abba/4.mp3": Tags(artists=("Abba",), albums=("Greatest Hits",)),
      "p/5.mp3": Tags(albums=("Blue",), album_artists=("Miles",)),
      "q/6.mp3": Tags(albums=("Blue",), album_artists=("MILES",)),
      "q/7.mp3": Tags(albums=("Blue",), album_artists=("Joni",)),
      "r/8.mp3": Tags(albums=("Hits",), album_artists=("Various Artists",)),
      "s/9.mp3": Tags(albums=("Hits",), album_artists=("VA",)),
      "t/10.mp3": Tags(albums=("Unknown Album",)),
      "t/11.mp3": Tags(),
    },
    credits.Rules(),
  )
  one = list(found.albums.values())
  assert one[0] == one[1] and one[4] == one[5]
  assert len({one[0], one[2], one[3], one[4], one[6], one[7], one[8]}) == 7
  assert one[9] is one[10] is None


@pytest.mark.parametrize(
  ("value", "genres"),
  [
    ("Rock / Pop", ["Rock", "Pop"]),
    ("Rock, Pop", ["Rock", "Pop"]),
    ("Rock;Pop|rock", ["Rock", "Pop"]),
    ("Folk, World, & Country", ["Folk", "World", "Country"]),
    ("Drum & Bass", ["Drum & Bass"]),
    ("Unknown", []),
    ("Other, Jazz", ["Jazz"]),
  ],
)
def test_genres_are_split_by_a_rule(value, genres):
  found = credits.credit({"a": Tags(genres=(value,))}, credits.Rules())
  shown = found.names["genres"].shown
  assert [shown(key) for key in found.genres["a"]] == genres


def test_the_rule_of_genres_can_be_set():
  rules = credits.Rules(genre_separators="", no_genres="Jazz")
  found = credits.credit({"a": Tags(genres=("Rock/Pop; Jazz",))}, rules)
  assert found.genres["a"] == ["rock/pop"]


_NAMES = strategies.lists(
  strategies.sampled_from("A B C".split())
  | strategies.sampled_from(["VA", "A & B", "B, C", "a feat. D", "[unknown]"])
  | strategies.text("a&,;/().9 \u200b\u0301\udce9", max_size=6),
  max_size=3,
).map(tuple)
_FIELDS = ("artists", "artist_list", "album_artists", "albums", "genres")
_TAGS = strategies.fixed_dictionaries(dict.fromkeys(_FIELDS, _NAMES))
_PATHS = strategies.sampled_from(
  [
    "1.mp3",
    "A/1.mp3",
    "A/CD1/1.mp3",
    "x/music/1.mp3",
    "VA/1.mp3",
    "\udce9/1.mp3",
  ]
)


@settings(
  deadline=None,
  max_examples=50,
  suppress_health_check=[HealthCheck.too_slow],
)
@given(
  strategies.dictionaries(_PATHS, _TAGS),
  strategies.sampled_from(artist_names.RULES),
)
def test_whatever_tags_say_names_are_real_and_each_is_there_once(tags, rule):
  tags = {path: Tags(**values) for path, values in tags.items()}
  found = credits.credit(tags, credits.Rules(split_artists=rule))
  assert found.artists.keys() == found.albums.keys() == tags.keys()
  none = placeholders.Placeholders("artists")
  for kind, songs in (("artists", found.artists), ("genres", found.genres)):
    for keys in songs.values():
      assert len(keys) == len(set(keys))
      names = [found.names[kind].shown(key) for key in keys]
      assert all(name == name_keys.clean(name) != "" for name in names)
      assert kind == "genres" or not any(name in none for name in names)
  report = credits.report(found)
  assert sum(one["songs"] for one in report["most_songs"]) == sum(
    map(len, found.artists.values())
  )


@pytest.mark.parametrize(
  "rules",
  [{"split_artists": "some"}, {"artist_folder": "0"}, {"album_folder": "0"}],
)
def test_rules_that_do_not_exist_are_refused(rules):
  with pytest.raises(errors.InputError, match=f"--{next(iter(rules))} is"):
    credits.Rules(**rules).check()
