"""Tests of pcl_jax.server.song_api, api_parameters and application."""

import csv
import json
import pathlib
import re

import numpy as np
import pytest

from pcl_jax import similar
from pcl_jax.embedding.tables import song_table
from pcl_jax.library import playlist_files
from pcl_jax.server import api_parameters
from tests.support.servers import served
from tests.support.tiny import tiny_table

SONGS = tiny_table.SONGS


def _ids(answer) -> list[str]:
  assert answer.status_code == 200, answer.text
  return [one["id"] for one in answer.json()["songs"]]


def _refused(answer, status: int, *words: str) -> str:
  """Checks that an answer refuses in one line of json."""
  assert answer.status_code == status, answer.text
  assert answer.headers["content-type"] == "application/json"
  (text,) = answer.json().values()
  assert "Traceback" not in text and "\n" not in text
  for word in words:
    assert word in text
  return text


@pytest.mark.parametrize(
  "options",
  [
    {},
    {"unlike": "9.mp3"},
    {"exclude_same": "artist,album", "k": "30"},
    {"per_artist": "2"},
    {"min_score": "0.3"},
    {"max_minutes": "5"},
    {"genre": "jazz"},
    {"diversity": "0.7"},
    {"order": "true"},
  ],
)
def test_neighbours_are_those_of_the_command(folder, client, tmp_path, options):
  options = {"k": "8"} | options
  given = {"like": ["7.mp3", "20.mp3"]} | options
  answer = client.get("/api/similar", params=given)
  out = tmp_path / "found.csv"
  words = [
    f"--{name}={value}" for name, value in options.items() if name != "k"
  ]
  words = [one.removesuffix("=true") for one in words]
  similar.main(
    [
      f"--embeddings={folder / 'music.parquet'}",
      *("--like", "7.mp3", "20.mp3"),
      *(f"-k={options['k']}", f"--csv={out}"),
      *words,
    ]
  )
  with open(out, encoding="utf-8") as file:
    expected = list(csv.DictReader(file))
  found = answer.json()["songs"]
  assert [one["id"] for one in found] == [one["id"] for one in expected]
  scores = [float(one["score"]) for one in expected]
  np.testing.assert_allclose([r["score"] for r in found], scores, atol=2e-4)
  assert [one["rank"] for one in found] == list(range(1, len(found) + 1))


def test_songs_are_found_by_words_of_name_path_and_album(client):
  assert _ids(client.get("/api/songs?q=SONG 20")) == ["20.mp3"]
  albums = _ids(client.get("/api/songs?q=bob album&k=100"))
  assert len(albums) == len(range(1, SONGS, 4)) and "57.mp3" in albums
  assert len(_ids(client.get("/api/songs?k=7"))) == 7
  composed = client.get("/api/songs", params={"q": "\u00e9"})
  assert _ids(composed) == [served.ODD_NAMES[1]]
  assert _ids(client.get("/api/songs?q=nothing of this kind")) == []


def test_a_path_leads_from_one_song_to_the_other(client):
  found = _ids(client.get("/api/path?from=5.mp3&to=Song 9&k=7"))
  assert found[0] == "5.mp3" and found[-1] == "9.mp3"
  assert len(set(found)) == 7
  _refused(client.get("/api/path?from=5.mp3&to=5.mp3"), 400, "two songs")
  _refused(client.get("/api/path?from=5.mp3"), 400, "to is missing")


@pytest.mark.parametrize("kind", ["m3u8", "xspf", "csv", "json"])
def test_lists_come_as_files_that_lead_to_the_songs(
  client, folder, tmp_path, kind
):
  given = {"like": "8.mp3", "k": SONGS, "format": kind}
  answer = client.get("/api/similar", params=given)
  table = song_table.read_table(folder / "music.parquet")
  expected = sorted(path for path in table.paths if "8.mp3" not in path[-6:])
  if kind == "json":
    assert len(answer.json()["songs"]) == SONGS - 1
    return
  assert f"pcl_jax.{kind}" in answer.headers["content-disposition"]
  path = tmp_path / f"list.{kind}"
  path.write_bytes(answer.content)
  if kind == "csv":
    rows = list(csv.DictReader(answer.text.splitlines(keepends=True)))
    assert rows[0]["rank"] == "1"
    return
  (found,), _ = playlist_files.read_playlists(path)
  assert len(found.entries) == SONGS - 1
  for name in ("quotes", "emoji", "lines", "caf"):
    assert any(name in one.places[0] for one in found.entries)
  assert expected


def test_a_playlist_is_made_of_given_songs_in_their_order(client, folder):
  songs = ["4.mp3", served.ODD_NAMES[0], "5.mp3"]
  answer = client.post(
    "/api/playlist?format=m3u8&paths=relative", json={"songs": songs}
  )
  lines = [one for one in answer.text.splitlines() if one[0] != "#"]
  assert lines == songs
  ordered = client.post("/api/playlist?order=true", json={"songs": songs})
  assert sorted(_ids(ordered)) == sorted(songs)
  for body in (b"{", b"[]", b'{"songs": 3}', b'{"songs": []}', b"[" * 99999):
    answer = client.post("/api/playlist", content=body)
    assert answer.status_code == 400 and answer.json()["error"]
  many = {"songs": ["4.mp3"] * 1001}
  _refused(client.post("/api/playlist", json=many), 400, "1 to 1000")
  large = {"songs": ["4.mp3" * 500_000]}
  _refused(client.post("/api/playlist", json=large), 413, "larger")


@pytest.mark.parametrize("given", [{}, {"names": ()}], ids=["bytes", "text"])
def test_a_half_of_a_character_is_no_song(tmp_path, given):
  served.write(tmp_path, songs=5, **given)
  with served.asked(served.serve(tmp_path / "music.parquet")) as client:
    for name in ("\ud800", "4.mp3\udc80", "\udce9"):
      content = json.dumps({"songs": ["4.mp3", name]})
      _refused(client.post("/api/playlist", content=content), 404, "no id")


def test_odd_names_are_found_by_what_the_server_calls_them(client, folder):
  table = song_table.read_table(folder / "music.parquet")
  found = client.get(f"/api/songs?k={SONGS}").json()["songs"]
  assert len(found) == SONGS
  for row, one in enumerate(found[:4]):
    assert client.get("/api/song", params={"id": one["id"]}).json() == one
    answer = client.get(one["audio"])
    assert answer.content == bytes([row]) * (row + 1), table.ids[row]
  assert found[0]["id"] == served.ODD_NAMES[0]
  assert found[3]["id"] == "caf\\xe9 100% #?+.mp3"
  assert "\n" not in found[2]["name"]


def test_what_is_no_song_is_refused_with_similar_names(client):
  _refused(client.get("/api/similar?like=Song 2x"), 404, "no id", "Song 2")
  _refused(client.get("/api/similar?like=mp3"), 404)
  _refused(client.get("/api/song?id=/etc/passwd"), 404)
  _refused(client.get("/api/song?id=..%2f..%2fetc%2fpasswd"), 404)
  _refused(client.get("/api/song?id=%00"), 404)
  _refused(client.get("/api/similar?unlike=4.mp3"), 400, "like is missing")
  _refused(client.get("/nothing"), 404)
  _refused(client.delete("/api/similar"), 405)


@pytest.mark.parametrize(
  ("query", "words"),
  [
    ("k=0", "k is 0: give a number from 1 to 1000"),
    ("k=1001", "1 to 1000"),
    ("k=ten", "kind integer"),
    ("k=", None),
    ("k=1&k=2", "given 2 times"),
    ("min_score=nan", "-1 to 1"),
    ("min_score=1e999", "-1 to 1"),
    ("diversity=2", "0 to 1"),
    ("order=perhaps", "true or false"),
    ("exclude_same=shoes", "give one of"),
    ("format=exe", "give one of"),
    ("kk=3", "no parameter 'kk'"),
    ("genre=polka", "no song"),
    ("folder=nowhere", "lies in"),
    ("folder=~%00", "lies in"),
    ("min_score=0.9999", "lower min_score"),
    ("max_minutes=0.5", "give more"),
    ("blend=0.5", "--data"),
    ("unlike=4.mp3", "cancel each other out"),
    ("not_in=4.mp3&not_in=nix", "nix"),
    ("not_in=~nix%00", "nix"),
    ("like=" + "x" * 10_000, "1000 are the most"),
    ("like=" + "&like=".join(["4.mp3"] * 300), "at most 200 times"),
    ("genre=%F0%9F%8E%B5%22%27%3Cb%3E%0A", "no song"),
  ],
)
def test_bad_parameters_are_refused_in_one_line(client, query, words):
  answer = client.get(f"/api/similar?like=4.mp3&{query}")
  if words is None:
    assert answer.status_code == 200
  else:
    status = 404 if "nix" in query else 400
    _refused(answer, status, words)


@pytest.mark.parametrize("name", ["like", "unlike", "not_in"])
def test_songs_may_be_given_as_often_as_the_docs_say(client, name):
  text = (pathlib.Path(__file__).parents[2] / "docs/server.md").read_text()
  most = int(re.search(r"may be given (\d+) times", text)[1])
  for count, status in ((most, 200), (most + 1, 400)):
    given = {"like": ["4.mp3"]} | {name: ["9.mp3"] * count}
    assert client.get("/api/similar", params=given).status_code == status


def test_a_name_that_no_user_has_is_no_song(client):
  body = b'{"songs": ["~\\ud800"]}'
  _refused(client.post("/api/playlist", content=body), 404, "~\ud800")


def test_the_home_of_a_user_is_not_asked_for(client, folder, monkeypatch):
  monkeypatch.setenv("HOME", str(folder / "music"))
  _refused(client.get("/api/song?id=~/7.mp3"), 404, "~/7.mp3")


def test_a_query_that_is_far_too_long_is_not_read(client):
  answer = client.get("/api/songs?q=" + "x" * 60_000)
  _refused(answer, 414, "characters")


def test_more_songs_than_there_are_give_all_and_a_remark(client):
  answer = client.get("/api/similar?like=4.mp3&k=1000").json()
  assert len(answer["songs"]) == SONGS - 1
  assert answer["said"] == [
    f"{SONGS - 1} songs in place of 1000: no other fits"
  ]


def test_a_library_of_one_song_has_no_neighbours_and_says_so(tmp_path):
  served.write(tmp_path, songs=1)
  one = served.serve(tmp_path / "music.parquet")
  with served.asked(one) as client:
    (found,) = client.get("/api/songs").json()["songs"]
    given = {"like": found["id"]}
    _refused(client.get("/api/similar", params=given), 400, "is left")
    assert len(client.get("/api/map").json()["songs"]["x"]) == 1
    assert found["audio"] is None


def test_silent_songs_are_neither_found_nor_queries(tmp_path):
  served.write(tmp_path, songs=9, silent=[5])
  with served.asked(served.serve(tmp_path / "music.parquet")) as client:
    for query in (
      "similar?like=5.mp3",
      "similar?like=6.mp3&unlike=Song 5",
      "path?from=5.mp3&to=6.mp3",
      "path?from=6.mp3&to=5.mp3",
    ):
      _refused(client.get(f"/api/{query}"), 400, "is silent", "--keep_silent")
    assert "5.mp3" not in _ids(client.get("/api/similar?like=6.mp3&k=100"))


def test_silent_songs_are_shown_played_left_out_and_saved(tmp_path):
  served.write(tmp_path, songs=9, silent=[5])
  library = served.serve(tmp_path / "music.parquet", tmp_path / "music")
  with served.asked(library) as client:
    (song,) = client.get("/api/songs?q=song 5").json()["songs"]
    assert client.get("/api/song?id=Song 5").json() == song
    assert client.get(song["audio"]).content == bytes([5]) * 6
    every = _ids(client.get("/api/similar?like=6.mp3&k=5"))
    given = "like=6.mp3&k=5&not_in=5.mp3"
    assert _ids(client.get(f"/api/similar?{given}")) == every
    body = {"songs": ["6.mp3", "5.mp3"]}
    saved = client.post("/api/playlist?format=m3u8", json=body)
    assert "/5.mp3\n" in saved.text
    ordered = client.post("/api/playlist?order=true", json=body)
    _refused(ordered, 400, "5.mp3", "is silent")


def test_the_map_has_every_song_and_what_colours_it(client):
  made = client.get("/api/map").json()
  songs = made["songs"]
  assert len(songs["id"]) == len(songs["x"]) == len(songs["y"]) == SONGS
  assert set(songs["has"]) == {"genre", "artist", "folder"}
  assert songs["has"]["genre"]["names"] == ["<u>", "Jazz", "Rock"]
  assert str(SONGS) in made["spec"]["description"]


def test_openapi_describes_every_address_and_parameter(client):
  described = client.get("/api/openapi.json").json()
  assert described["openapi"] == "3.1.0"
  routes = {route.path for route in client.app.routes if "/api/" in route.path}
  assert set(described["paths"]) == routes - {"/api/openapi.json", "/api/docs"}
  similar_of = described["paths"]["/api/similar"]
  assert set(similar_of) == {"get", "post"}
  (k,) = [one for one in similar_of["get"]["parameters"] if one["name"] == "k"]
  assert k["schema"] == {
    "type": "integer", "minimum": 1, "maximum": 1000, "default": 10
  }  # fmt: skip
  assert json.dumps(described, allow_nan=False)


def test_a_failure_of_the_server_is_json_without_a_traceback(
  library, monkeypatch
):
  def fail(*_):
    raise RuntimeError("secret")

  monkeypatch.setattr(type(library), "now", fail)
  with served.asked(library) as client:
    text = _refused(client.get("/api/songs"), 500)
  assert "secret" not in text


def test_the_values_of_a_parameter_are_of_its_kind():
  parameter = api_parameters.Parameter("x", "a number", float, 0.5, 0, 1)
  assert parameter.read([]) == 0.5 and parameter.read(["1"]) == 1.0
  with pytest.raises(api_parameters.Refusal, match=re.escape("x is -1")):
    parameter.read(["-1"])
