"""Tests of pcl_jax.server.sonic_api, as the plugin of Navidrome asks."""

from concurrent import futures

import numpy as np
import pytest

from pcl_jax import serve
from pcl_jax.common import errors
from pcl_jax.server import open_subsonic
from pcl_jax.server import outside_ids
from pcl_jax.server import sonic_api
from tests.support.servers import fake_music_server
from tests.support.servers import served
from tests.support.tiny import tiny_table

SONGS = tiny_table.SONGS
GONE = range(50, SONGS)  # Songs that the music server does not have.


def _record(table, row: int) -> dict:
  artists = table.facts.artist_names(row)
  return {
    "id": f"nd-{row}",
    "title": f"Song {row}",
    "artist": ", ".join(artists),
    "artists": [{"id": f"artist-{one}", "name": one} for one in artists],
    "album": f"Album {row // 10}",
    "path": table.ids[row],
    "duration": 60 + row,
  }


@pytest.fixture(scope="module")
def plugin(library):
  """Asks as a plugin does whose music server has the first 50 songs."""
  table = library.now().table
  records = [_record(table, row) for row in range(GONE[0])]
  with fake_music_server.listening(
    fake_music_server.MusicServer(records)
  ) as music_server:
    account = fake_music_server.USER, fake_music_server.PASSWORD
    songs = open_subsonic.MusicServer(music_server.url, *account).songs
    more = sonic_api.SonicApi(songs).endpoints()
    with served.asked(library, more) as client:
      yield client


def _ask(client, path: str, **given):
  answer = client.get(f"/api/{path}", params=given)
  assert answer.status_code == 200, answer.text
  return answer.json()


def test_similar_tracks_are_those_of_the_music_server_by_its_ids(
  plugin, library
):
  found = _ask(
    plugin,
    "similar_tracks",
    item_id="nd-7",
    n=8,
    eliminate_duplicates="false",
    radius_similarity="true",
    server="main",
  )
  table = library.now().table
  cosines = table.rows.unit @ table.rows.unit[7]
  order = np.argsort(-cosines).tolist()
  rows = [i for i in order if i != 7 and i not in GONE][:8]
  assert [one["item_id"] for one in found] == [f"nd-{i}" for i in rows]
  distances = [one["distance"] for one in found]
  np.testing.assert_allclose(distances, 1 - cosines[rows], atol=1e-5)
  for one, row in zip(found, rows, strict=True):
    record = _record(table, row)
    assert one["title"] == record["title"]
    assert one["author"] == (record["artist"] or "unknown")
    assert one["album"] == record["album"]


def test_eliminated_duplicates_leave_three_songs_of_an_artist(plugin):
  given = {"item_id": "nd-7", "n": 1000}
  found = _ask(plugin, "similar_tracks", **given, eliminate_duplicates="true")
  authors = [one["author"] for one in found]
  assert {authors.count(one) for one in ("Ann", "Bob <i>", "Cid & Dee")} == {3}
  assert len(_ask(plugin, "similar_tracks", **given)) == GONE[0] - 1
  assert len(_ask(plugin, "similar_tracks", **given | {"n": -3})) == 1


def test_a_song_is_also_known_by_title_and_artist(plugin):
  found = _ask(plugin, "similar_tracks", title="Song 9", artist="Bob <i>", n=3)
  assert found == _ask(plugin, "similar_tracks", item_id="nd-9", n=3)


def test_similar_artists_are_near_in_the_mean_of_their_songs(plugin, library):
  found = _ask(plugin, "similar_artists", artist="artist-Ann", n=10)
  names, unit = library.now().artists
  cosines = (unit @ unit[names.index("Ann")]).tolist()
  near = dict(zip(names, cosines, strict=True))
  expected = sorted(set(names) - {"Ann"}, key=lambda one: -near[one])
  assert [one["artist"] for one in found] == expected
  assert [one["artist_id"] for one in found] == [
    f"artist-{e}" for e in expected
  ]
  for one in found:
    assert one["divergence"] == pytest.approx(1 - near[one["artist"]], abs=1e-5)
    assert "component_matches" not in one
  assert found == _ask(plugin, "similar_artists", artist="ann")
  assert found == _ask(plugin, "similar_artists", artist_id="artist-Ann")


def test_artists_come_with_songs_of_both(plugin, library):
  given = {"artist": "artist-Ann", "include_component_matches": "true"}
  for one in _ask(plugin, "similar_artists", **given):
    (match,) = one["component_matches"]
    for which, artist in ((1, "Ann"), (2, one["artist"])):
      songs = match[f"artist{which}_representative_songs"]
      assert len(songs) == 5
      for song in songs:
        row = int(song["item_id"].removeprefix("nd-"))
        assert library.now().table.facts.artist_names(row) == [artist]
        assert song["title"] == f"Song {row}"


def test_a_path_leads_between_ids(plugin):
  given = {"start_song_id": "nd-5", "end_song_id": "nd-40"}
  found = _ask(
    plugin,
    "find_path",
    **given,
    max_steps=9,
    count=9,
    path_fix_size="false",
    mood_pct=100,
  )
  ids = [one["item_id"] for one in found["path"]]
  assert len(set(ids)) == 9 and (ids[0], ids[-1]) == ("nd-5", "nd-40")
  assert all(int(one.removeprefix("nd-")) < GONE[0] for one in ids)
  assert found["total_distance"] > 0
  assert len(_ask(plugin, "find_path", **given)["path"]) == 25
  many = _ask(plugin, "find_path", **given, max_steps=10**6)
  assert len(many["path"]) <= GONE[0]


@pytest.mark.parametrize(
  ("path", "given", "status"),
  [
    ("similar_tracks", {}, 400),
    ("similar_tracks", {"item_id": "nd-999"}, 404),
    ("similar_tracks", {"item_id": "20.mp3"}, 404),
    ("similar_tracks", {"item_id": "/etc/passwd"}, 404),
    ("similar_tracks", {"item_id": "x" * 10_000}, 400),
    ("similar_tracks", {"item_id": "nd-7", "n": "many"}, 400),
    ("similar_artists", {}, 400),
    ("similar_artists", {"artist": "nobody"}, 404),
    ("find_path", {"start_song_id": "nd-5"}, 400),
    ("find_path", {"start_song_id": "nd-5", "end_song_id": "nd-5"}, 400),
    ("find_path", {"start_song_id": "nd-5", "end_song_id": "<b>\n'"}, 404),
  ],
)
def test_what_cannot_be_answered_is_refused(plugin, path, given, status):
  answer = plugin.get(f"/api/{path}", params=given)
  assert answer.status_code == status
  assert answer.json()["error"]


def test_a_library_without_a_music_server_has_the_tables_ids(library):
  with served.asked(library, sonic_api.SonicApi().endpoints()) as client:
    found = _ask(client, "similar_tracks", item_id="7.mp3", n=5)
    near = client.get("/api/similar?like=7.mp3&k=5").json()["songs"]
    assert [one["item_id"] for one in found] == [one["id"] for one in near]
    (ann, *_) = _ask(client, "similar_artists", artist="Bob <i>")
    assert ann["artist_id"] is None


def test_ids_are_asked_for_again_when_the_table_is_replaced(tmp_path):
  served.write(tmp_path, songs=9)
  one, asked = served.serve(tmp_path / "music.parquet"), []

  def songs():
    asked.append(1)
    return [served_song(i) for i in range(12)]

  def served_song(i):
    return sonic_api.outside_ids.OutsideSong(f"nd-{i}", f"{i}.mp3")

  with served.asked(one, sonic_api.SonicApi(songs).endpoints()) as client:
    for _ in range(3):
      found = _ask(client, "similar_tracks", item_id="nd-8", n=99)
    assert len(asked) == 1 and len(found) == 4  # Odd names are not there.
    served.write(tmp_path, songs=12)
    assert len(_ask(client, "similar_tracks", item_id="nd-11", n=99)) == 7
    assert len(asked) == 2


def _nine_then_twelve(folder, replaced):
  """Returns a library of nine songs, and a function that asks for their ids.

  Twelve songs come in place of the nine as soon as the ids are known; then
  `replaced` is called each time before ids are given.
  """
  served.write(folder, songs=9)
  one, asked = served.serve(folder / "music.parquet"), []

  def songs():
    asked.append(1)
    if len(asked) > 1:
      replaced(len(asked))
    rows = range(12 if len(asked) > 1 else 9)
    return [outside_ids.OutsideSong(f"nd-{i}", f"{i}.mp3") for i in rows]

  return one, songs


def test_plugins_are_answered_by_the_ids_of_before_until_new_ones_are_there(
  tmp_path,
):
  meanwhile = []
  with futures.ThreadPoolExecutor() as pool:

    def ask(_):
      asked = pool.submit(_ask, client, "similar_tracks", item_id="nd-8", n=99)
      meanwhile.extend(asked.result(timeout=20))

    one, songs = _nine_then_twelve(tmp_path, ask)
    with served.asked(one, sonic_api.SonicApi(songs).endpoints()) as client:
      before = _ask(client, "similar_tracks", item_id="nd-8", n=99)
      served.write(tmp_path, songs=12, seed=1)
      after = _ask(client, "similar_tracks", item_id="nd-8", n=99)
  assert meanwhile == before and len(before) == 4 and len(after) == 7


def test_a_music_server_that_fails_later_leaves_the_ids_of_before(
  tmp_path, capsys
):
  failed, now = [], [0.0]

  def fail(count):
    if count < 4:
      failed.append(count)
      raise errors.InputError("the music server gives no songs")

  one, songs = _nine_then_twelve(tmp_path, fail)
  api = sonic_api.SonicApi(songs, clock=lambda: now[0])
  with served.asked(one, api.endpoints()) as client:
    before = _ask(client, "similar_tracks", item_id="nd-8", n=99)
    served.write(tmp_path, songs=12, seed=1)
    for hours in (0, 0, 1, 1):  # It is not asked at each request.
      now[0] = 3600.0 * hours
      assert _ask(client, "similar_tracks", item_id="nd-8", n=99) == before
    assert failed == [2, 3]
    assert capsys.readouterr().err.count("gives no songs") == 2
    now[0] *= 2
    assert len(_ask(client, "similar_tracks", item_id="nd-8", n=99)) == 7


def test_the_command_takes_ids_from_a_file_or_a_server(folder, tmp_path):
  ids = tmp_path / "ids.csv"
  ids.write_text("id,path\nnd-7,7.mp3\nnd-8,8.mp3\n")
  flags = serve._arguments(
    [f"--embeddings={folder / 'music.parquet'}", f"--ids={ids}"]
  )
  library = serve.served_library(flags)
  more = serve.sonic_api(flags).endpoints()
  with served.asked(library, more) as client:
    (found,) = _ask(client, "similar_tracks", item_id="nd-7", n=9)
    assert found["item_id"] == "nd-8"
