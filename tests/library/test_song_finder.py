"""Tests of pcl_jax.library.song_finder."""

import random
from urllib import parse

import pytest

from pcl_jax.library import song_finder
from tests.support import counted_calls


def test_entries_are_found_however_they_are_spelled(tmp_path):
  music = tmp_path / "music"
  (music / "lists").mkdir(parents=True)
  ids = {"A/x y.mp3": 0, "A/100%.mp3": 1, "Caf\u00e9/b#c.mp3": 2, "d.mp3": 3}
  (tmp_path / "link").symlink_to(music)
  finder = song_finder.SongFinder(music, ids)
  entries = {
    "../A/x y.mp3": 0,
    "..\\A\\x y.mp3": 0,
    "..\\A\\x%20y.mp3": 0,
    "A/x y.mp3": 0,
    "../a/X Y.MP3": 0,
    "../lists/../A//x%20y.mp3": 0,
    "../A/100%.mp3": 1,
    "../A/100%25.mp3": 1,
    "../Cafe\u0301/b#c.mp3": 2,
    (music / "d.mp3").as_posix(): 3,
    (tmp_path / "link" / "d.mp3").as_posix(): 3,
    (music / "d.mp3").as_uri(): 3,
    (music / "A" / "x y.mp3").as_uri(): 0,
    "../../music/d.mp3": 3,
    "../absent.mp3": None,
    "http://example.org/d.mp3": None,
    "/d.mp3": None,
    "C:\\Music\\d.mp3": None,
    "../A": None,
    "\0": None,
  }
  found = {entry: finder.find(music / "lists", entry) for entry in entries}
  assert found == entries


def test_songs_are_found_by_any_path_that_leads_to_them(tmp_path):
  music, other = tmp_path / "music", tmp_path / "other"
  for folder in (music / "Z", other / "Disk"):
    folder.mkdir(parents=True)
    (folder / "1.mp3").touch()
  (music / "A").symlink_to("Z")
  (music / "Disk").symlink_to(other / "Disk")
  (music / "link.mp3").symlink_to(other / "2.mp3")
  (other / "2.mp3").touch()
  ids = {"A/1.mp3": 0, "Disk/1.mp3": 1, "link.mp3": 2}
  finder = song_finder.SongFinder(music, ids)
  entries = {
    "Z/1.mp3": 0,
    str(music / "Z" / "1.mp3"): 0,
    str(other / "Disk" / "1.mp3"): 1,
    "../other/Disk/1.mp3": 1,
    (other / "2.mp3").as_uri(): 2,
    "Z/2.mp3": None,
  }
  assert {entry: finder.find(music, entry) for entry in entries} == entries


def test_songs_that_differ_in_case_alone_need_their_exact_name(tmp_path):
  finder = song_finder.SongFinder(
    tmp_path, {"a.mp3": 0, "A.mp3": 1, "b.mp3": 2}
  )
  found = [finder.find(tmp_path, name) for name in ("A.mp3", "a.MP3", "B.mp3")]
  assert found == [1, None, 2]


def test_addresses_of_files_are_found_however_they_are_written(tmp_path):
  ids = {"A/x y.mp3": 0, "caf\u00e9.mp3": 1, "a#b.mp3": 2, "?.mp3": 3}
  finder = song_finder.SongFinder(tmp_path, ids)
  here = parse.quote(tmp_path.as_posix())
  entries = {
    f"file://{here}/A/x%20y.mp3": 0,
    f"FILE://localhost{here}/A/x%20y.mp3": 0,
    f"file:{here}/A/x y.mp3": 0,
    f"file://{here}/A%5Cx%20y.mp3": 0,
    "file:A/x%20y.mp3": 0,
    "file://A/x%20y.mp3": 0,
    "caf%C3%A9.mp3": 1,
    "caf%E9.mp3": 1,
    f"file://{here}/caf%E9.mp3": 1,
    f"file://{here}/a%23b.mp3": 2,
    f"file://{here}/a#b.mp3": 2,
    f"file://{here}/%3F.mp3": 3,
    f"file://{here}/A/x%20y.mp3#t=30": 0,
    f"file://{here}/A/x%20y.mp3?t=30": 0,
    "file://[bad/x.mp3": None,
    "file:": None,
    "file://": None,
    "": None,
  }
  found = {entry: finder.find(tmp_path, entry) for entry in entries}
  assert found == entries


def test_names_that_are_not_utf_8_are_found(tmp_path):
  name = b"\xe9t\x92.mp3".decode("utf-8", "surrogateescape")
  finder = song_finder.SongFinder(tmp_path, {name: 5})
  # As decoded from cp1252, from latin-1, and escaped.
  for entry in ("ét\u2019.mp3", "ét\x92.mp3", "%E9t%92.mp3", name):
    assert finder.find(tmp_path, entry) == 5


def test_two_paths_of_one_song_are_one_even_in_other_case(tmp_path):
  finder = song_finder.SongFinder(tmp_path, {"a.mp3": 4, "A.mp3": 4})
  assert finder.find(tmp_path, "A.MP3") == 4


def test_what_no_file_can_be_called_is_not_found(tmp_path):
  finder = song_finder.SongFinder(tmp_path, {"a.mp3": 0})
  for entry in ("\ud800.mp3", "%ED%A0%80", "a" * 100_000, "%00", "/" * 9999):
    assert finder.find(tmp_path, entry) is None


ARTISTS = ("Brenton Brown", "Rising Appalachia", "The Beatles")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
  """A finder of twelve songs in folders of the same names, and others."""
  paths = [
    f"{artist}/Album/0{i} Song {i}.mp3" for artist in ARTISTS for i in range(4)
  ]
  paths += ["hejira/s1t1.mp3", "icarus/s1t1.mp3", "alone.mp3", "One/hit.mp3"]
  root = tmp_path_factory.mktemp("music")
  ids = {path: i for i, path in enumerate(paths)}
  return song_finder.SongFinder(root, ids), ids


@pytest.mark.parametrize(
  ("entry", "song"),
  [
    (r"C:\Users\me\Music\Brenton Brown\Album\01 Song 1.mp3", None),
    ("Z:/Media/Flac/Brenton Brown/Album/01 Song 1.mp3", None),
    (r"\\NAS\music\brenton brown\album\01 Song 1.MP3", None),
    (r"\Music\Brenton Brown\Album\01 Song 1.mp3", None),
    ("/Volumes/Data/Music/Brenton Brown/Album/01 Song 1.mp3", None),
    ("/Brenton Brown/Album/01 Song 1.mp3", None),
    ("primary:Music/Brenton Brown/Album/01 Song 1.mp3", None),
    ("file:///C:/Users/me/Brenton%20Brown/Album/01%20Song%201.mp3", None),
    ("file://localhost/Users/Brenton%20Brown/Album/01%20Song%201.mp3", None),
    ("smb://nas/music/Brenton Brown/Album/01 Song 1.mp3", None),
    (r"Brenton\ Brown/Album/01\ Song\ 1.mp3", None),
    ('"Brenton Brown/Album/01 Song 1.mp3"', None),
    ("../../Music/Brenton Brown/Album/01 Song 1.mp3", None),
    (r"C:\old\icarus\s1t1.mp3", "icarus/s1t1.mp3"),
    (r"C:\Users\me\Music\alone.mp3", "alone.mp3"),
    (r"C:\Music\hit.mp3", "One/hit.mp3"),
    ("/hit.mp3", "One/hit.mp3"),
  ],
)
def test_a_path_of_another_machine_is_found_by_its_longest_ending(
  foreign, entry, song
):
  finder, ids = foreign
  found = finder.find_by_ending(entry)
  assert found == ids[song or "Brenton Brown/Album/01 Song 1.mp3"]


@pytest.mark.parametrize(
  "entry",
  [
    r"C:\Elsewhere\Album\01 Song 1.mp3",  # Three songs have this ending.
    r"C:\Music\s1t1.mp3",
    "01 Song 1.mp3",
    "hit.mp3",  # The file next to the playlist is gone.
    "Other/hit.mp3",
    r"D:\Music\Other\hit.mp3",
    "http://server/Brenton Brown/Album/01 Song 1.mp3",
    "https://host:4533/rest/stream?id=3",
    "",
    "/",
    "C:",
    "..",
  ],
)
def test_an_ending_that_may_mean_another_song_finds_none(foreign, entry):
  assert foreign[0].find_by_ending(entry) is None


def _longest_ending(ids, root: str, entry: str):
  """Compares a plain path with that of every song."""
  wanted = [one for one in entry.casefold().split("/") if one]
  found = []
  for path, song in ids.items():
    own = path.casefold().split("/")
    whole = [one for one in root.casefold().split("/") if one] + own
    common = 0
    for mine, theirs in zip(reversed(whole), reversed(wanted), strict=False):
      if mine != theirs:
        break
      common += 1
    found.append((common, len(own), song))
  longest = max(common for common, *_ in found)
  found = [one for one in found if one[0] == longest]
  short = entry.startswith("/") and len(wanted) < 3
  if longest and len({song for *_, song in found}) == 1:
    if longest > 1 or short or found[0][1] == 1:
      return found[0][2]
  return None


def test_the_longest_ending_is_that_of_comparing_with_every_song(tmp_path):
  rng, seen = random.Random(4), []

  def path(most: int) -> str:
    folders = rng.choices("abC", k=rng.randrange(most))
    return "/".join([*folders, rng.choice(["1.mp3", "2.mp3", "3.mp3"])])

  for _ in range(60):
    paths = {path(4): None for _ in range(rng.randrange(1, 9))}
    ids = {one: rng.randrange(6) for one in paths}  # Some songs have two.
    finder = song_finder.SongFinder(tmp_path / "a", ids)
    for _ in range(20):
      entry = rng.choice(["", "/", "/a/"]) + path(5)
      expected = _longest_ending(ids, str(tmp_path / "a"), entry)
      assert finder.find_by_ending(entry) == expected, (ids, entry)
      seen.append(expected)
  assert seen.count(None) > 100 and len(seen) - seen.count(None) > 300


def test_an_ending_is_looked_up_without_going_through_songs_of_its_name(
  tmp_path,
):
  calls = []
  for songs in (200, 3200):
    ids = {f"Artist {i}/CD 1/01.mp3": i for i in range(songs)}
    finder = song_finder.SongFinder(tmp_path, ids)
    finder.find_by_ending("/x/01.mp3")  # Makes the index.
    for entry, song in (
      ("/srv/Artist 150/CD 1/01.mp3", 150),
      ("/srv/Nobody/CD 1/01.mp3", None),
      ("/srv/Nobody/CD 2/01.mp3", None),
    ):
      found, count = counted_calls.of(
        lambda e=entry, f=finder: f.find_by_ending(e)
      )
      assert found == song
      calls.append(count)
  assert sum(calls[3:]) < 1.5 * sum(calls[:3])
