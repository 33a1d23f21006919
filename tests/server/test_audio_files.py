"""Tests of pcl_jax.server.audio_files."""

import csv
import os
import pathlib

import pytest

from pcl_jax.embedding.tables import embedding_table
from tests.support.servers import served
from tests.support.tiny import tiny_table

SIZE = 58  # Of the file of song 57.


@pytest.mark.parametrize(
  ("asked", "begin", "end"),
  [
    ("bytes=0-0", 0, 1),
    ("bytes=10-19", 10, 20),
    ("bytes=50-", 50, SIZE),
    ("bytes=-8", 50, SIZE),
    ("bytes=-1000", 0, SIZE),
    ("bytes=57-99999", 57, SIZE),
  ],
)
def test_a_range_is_the_part_of_the_file(client, asked, begin, end):
  answer = client.get("/api/audio?id=57.mp3", headers={"range": asked})
  assert answer.status_code == 206
  assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/{SIZE}"
  assert answer.content == bytes([57]) * (end - begin)


def test_a_whole_file_comes_with_its_type_and_length(client):
  for answer in (
    client.get("/api/audio?id=57.mp3"),
    client.head("/api/audio?id=57.mp3"),
  ):
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/mpeg"
    assert answer.headers["content-length"] == str(SIZE)
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
  "asked",
  [
    "bytes=58-",
    "bytes=9-3",
    "bytes=-0",
    "bytes=-",
    "bytes=a-b",
    "bytes=0-1,5-6",
    "lines=0-1",
    "bytes",
    "",
    "bytes=" + "9" * 400 + "-",
    "bytes=0x1-0x5",
  ],
)
def test_a_range_that_is_none_is_refused(client, asked):
  answer = client.get("/api/audio?id=57.mp3", headers={"range": asked})
  assert answer.status_code == 416
  assert answer.headers["content-range"] == f"bytes */{SIZE}"
  assert "range" in answer.json()["error"]


def _error(client, name: str) -> str:
  answer = client.get("/api/audio", params={"id": name})
  assert answer.status_code == 404
  return answer.json()["error"]


def test_only_files_of_the_table_in_the_folder_are_sent(tmp_path):
  served.write(tmp_path, songs=12)
  music, secret = tmp_path / "music", tmp_path / "secret.mp3"
  secret.write_bytes(b"secret")
  for name in ("5.mp3", "6.mp3", "7.mp3", "8.mp3"):
    (music / name).unlink()
  (music / "5.mp3").symlink_to(secret)
  (music / "6.mp3").mkdir()
  (music / "8.mp3").symlink_to(music / "9.mp3")  # It stays in the folder.
  (music / "stranger.mp3").write_bytes(b"not of the table")
  library = served.serve(tmp_path / "music.parquet", music)
  with served.asked(library) as client:
    assert "not in the folder" in _error(client, "5.mp3")
    assert "gone" in _error(client, "6.mp3")
    assert "gone" in _error(client, "7.mp3")
    assert client.get("/api/audio?id=8.mp3").content == bytes([9]) * 10
    for name in (
      "stranger.mp3",
      "../secret.mp3",
      str(secret),
      "/etc/passwd",
      "music/../../secret.mp3",
    ):
      assert "no id" in _error(client, name)
    os.mkfifo(music / "7.mp3")  # Opening it would wait for ever.
    assert "gone" in _error(client, "7.mp3")


def test_a_folder_whose_name_begins_alike_is_another(tmp_path):
  served.write(tmp_path, songs=6)
  (tmp_path / "mus").mkdir()
  with served.asked(
    served.serve(tmp_path / "music.parquet", tmp_path / "mus")
  ) as client:
    assert client.get("/api/audio?id=5.mp3").status_code == 404


def test_a_library_that_has_moved_is_found_by_paths_within_it(tmp_path):
  served.write(tmp_path, songs=6)
  moved = (tmp_path / "music").rename(tmp_path / "moved")
  library = served.serve(tmp_path / "music.parquet", moved)
  with served.asked(library) as client:
    assert client.get("/api/audio?id=5.mp3").content == bytes([5]) * 6


def _with_roots(path: pathlib.Path, roots: list[str]) -> None:
  """Has a table say that it was made of these folders."""
  rows = embedding_table.read_rows(path)
  about = embedding_table.TableFile(path).about | {"roots": roots}
  like = embedding_table.schema(tiny_table.LENGTH, about, odd_names=True)
  embedding_table.write(path, like, [rows.cast(like)])


def _places(client, name: str) -> list[str]:
  """Returns the absolute and the relative path that playlists have."""
  found = []
  for paths in ("absolute", "relative"):
    answer = client.post(
      f"/api/playlist?format=csv&paths={paths}", json={"songs": [name]}
    )
    assert answer.status_code == 200, answer.text
    found += [one["path"] for one in csv.DictReader(answer.text.splitlines())]
  return found


def test_playlists_of_a_library_that_has_moved_lead_to_its_files(tmp_path):
  served.write(tmp_path, songs=7)
  moved = (tmp_path / "music").rename(tmp_path / "moved")
  (moved / "6.mp3").unlink()
  library = served.serve(tmp_path / "music.parquet", moved)
  with served.asked(library) as client:
    assert _places(client, "5.mp3") == [str(moved / "5.mp3"), "5.mp3"]
    # A file that is nowhere keeps the table's path.
    assert _places(client, "6.mp3")[0] == str(tmp_path / "music" / "6.mp3")
    answer = client.get("/api/similar?like=5.mp3&format=m3u8&k=6")
    assert answer.text.count(f"{moved}/") == 5


def test_playlists_lead_into_the_folder_that_is_served_through_links(tmp_path):
  served.write(tmp_path, songs=6)
  music, link = tmp_path / "music", tmp_path / "link"
  link.symlink_to(music)
  with served.asked(served.serve(tmp_path / "music.parquet", link)) as client:
    assert _places(client, "5.mp3") == [str(link / "5.mp3"), "5.mp3"]
  table = tmp_path / "linked.parquet"
  tiny_table.write(table, songs=6, root=str(link))
  with served.asked(served.serve(table, music)) as client:
    assert _places(client, "5.mp3") == [str(music / "5.mp3"), "5.mp3"]


def test_songs_outside_of_the_folder_that_is_served_keep_their_paths(tmp_path):
  served.write(tmp_path, songs=6)
  part = tmp_path / "music" / "part"
  part.mkdir()
  with served.asked(served.serve(tmp_path / "music.parquet", part)) as client:
    absolute = str(tmp_path / "music" / "5.mp3")
    assert _places(client, "5.mp3") == [absolute, "../5.mp3"]


def test_another_song_does_not_stand_in_for_one_of_another_root(tmp_path):
  names = ["a/1.mp3", "b/1.mp3"]
  for name in names:
    (tmp_path / "music" / name).parent.mkdir(parents=True)
  served.write(tmp_path, songs=2, names=names)
  path = tmp_path / "music.parquet"
  _with_roots(path, [str(tmp_path / "music" / one) for one in "ab"])
  audio = tmp_path / "music" / "a"
  with served.asked(served.serve(path, audio)) as client:
    assert client.get("/api/audio?id=a/1.mp3").status_code == 200
    assert "not in the folder" in _error(client, "b/1.mp3")
    other = str(tmp_path / "music" / "b" / "1.mp3")
    assert _places(client, "b/1.mp3") == [other, "../b/1.mp3"]


def test_without_a_folder_nothing_is_sent(folder: pathlib.Path):
  with served.asked(served.serve(folder / "music.parquet")) as client:
    assert "--audio" in _error(client, "5.mp3")


def test_a_file_that_a_browser_would_run_is_plain_bytes(tmp_path):
  served.write(tmp_path, songs=5, names=("a.html", "b.svg"))
  library = served.serve(tmp_path / "music.parquet", tmp_path / "music")
  with served.asked(library) as client:
    for name in ("a.html", "b.svg"):
      answer = client.get(f"/api/audio?id={name}")
      assert answer.headers["content-type"] == "application/octet-stream"
