"""Tests of pcl_jax.embedding.lists.list_files."""

import csv
import dataclasses
import json
import os

import numpy as np
import pytest

from pcl_jax.embedding.lists import list_files
from pcl_jax.embedding.tables import search
from pcl_jax.library import playlist_files
from pcl_jax.library import song_finder

NAMES = [
  'Ann "A" <b>&amp;</b> - One\u2028 two',
  "\U0001f3b5 - \x07bell",
  "Cid & Dee - #1",
]
PATHS = [os.fsdecode(b"caf\xe9 100%.mp3"), "#1 \U0001f3b5.mp3", "a\nb .mp3"]


@pytest.fixture
def rows(labelled, tmp_path):
  """Three songs with names that formats have to escape."""
  folder = tmp_path / "music"
  paths = [str(folder / one) for one in PATHS]
  table = dataclasses.replace(
    labelled,
    names=(*NAMES, *labelled.names[3:]),
    paths=[*paths, *labelled.paths[3:]],
  )
  found = search.Found(np.arange(3), np.array([0.9, 0.8, 0.7], np.float32))
  return list_files.rows_of(table, found)


def _read(path, folder) -> list[str]:
  """Returns the paths that a playlist file leads to."""
  (playlist,), _ = playlist_files.read_playlists(path)
  places = [entry.places[0] for entry in playlist.entries]
  finder = song_finder.SongFinder(
    folder, {one: i for i, one in enumerate(PATHS)}
  )
  return [PATHS[finder.find(path.parent, place)] for place in places]


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("kind", ["m3u", "xspf"])
def test_a_playlist_leads_back_to_its_songs(rows, tmp_path, kind, relative):
  (tmp_path / "lists").mkdir()
  out = tmp_path / "lists" / f"mine.{kind}"
  list_files.write(kind, out, rows, relative=relative)
  assert _read(out, tmp_path / "music") == PATHS
  text = out.read_text("utf-8")
  assert (str(tmp_path) not in text) == (relative and kind == "xspf")
  assert "\x07" not in text and "\u2028" not in text
  if kind == "m3u":
    assert text.startswith("#EXTM3U\n#EXTINF:60,") and "EXTINF:61," in text
  else:
    assert "&lt;b&gt;&amp;amp;&lt;/b&gt;" in text and "60000" in text
    assert "<creator>Ann</creator>" in text
    assert "<title>#1</title>" in text  # Without the artist.


def test_relative_paths_in_the_songs_own_folder_are_names(rows, tmp_path):
  (tmp_path / "music").mkdir()
  out = tmp_path / "music" / "mine.m3u8"
  list_files.write("m3u", out, rows, relative=True)
  assert f"./{PATHS[1]}" in out.read_text("utf-8").splitlines()
  assert _read(out, tmp_path / "music") == PATHS


def test_json_has_all_that_is_known(rows, tmp_path):
  out = tmp_path / "mine.json"
  list_files.write("json", out, rows)
  found = json.loads(out.read_text("utf-8"))
  assert [one["score"] for one in found] == [0.9, 0.8, 0.7]
  assert [one["artists"] for one in found] == [["Ann"], ["Bob"], ["Cid & Dee"]]
  assert [one["path"] for one in found] == [r["path"] for r in rows]
  assert found[0]["name"] == NAMES[0] and found[0]["seconds"] == 60.0


def test_a_csv_file_has_the_columns_of_the_screen(rows, tmp_path):
  out = tmp_path / "mine.csv"
  list_files.write("csv", out, rows, relative=True)
  with open(out, encoding="utf-8", newline="") as file:
    found = list(csv.DictReader(file))
  assert list(found[0]) == ["rank", "score", "name", "id", "path"]
  assert found[1]["path"] == f"music/{PATHS[1]}"
  assert found[0]["path"].endswith("caf%E9%20100%25.mp3")
  assert [one["name"] for one in found] == NAMES


def test_the_screen_lacks_ids_that_repeat_paths_and_is_not_wide(
  rows, monkeypatch
):
  monkeypatch.setenv("COLUMNS", "60")
  rows = [row | {"id": row["path"], "name": "A"} for row in rows]
  lines = list_files.grid(rows)
  assert lines[0].split() == ["rank", "score", "name", "path"]
  assert max(map(len, lines)) <= 60 and lines[1].endswith("xe9 100%.mp3")
  rows[1]["id"] = "17"
  lines = list_files.grid(rows)
  assert lines[0].split() == ["rank", "score", "name", "id", "path"]
  assert max(map(len, lines)) <= 60 and lines[2].split()[3] == "17"
