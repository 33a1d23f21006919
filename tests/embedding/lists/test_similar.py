"""Tests of what python -m pcl_jax.similar makes of its flags."""

import dataclasses
import json
import os
import pathlib

import numpy as np
import pytest

from pcl_jax import similar
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import song_store
from pcl_jax.data import vector_sources
from pcl_jax.embedding.lists import second_vectors
from pcl_jax.embedding.tables import song_table
from pcl_jax.library import playlist_files
from tests.support.tiny import tiny_data
from tests.support.tiny import tiny_table


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> pathlib.Path:
  found = tmp_path_factory.mktemp("similar") / "music.parquet"
  tiny_table.write(found)
  return found


@pytest.fixture(scope="module")
def table(path) -> song_table.Table:
  return song_table.read_table(path)


def test_songs_are_wanted_and_unwanted(path, table, tmp_path, capsys):
  (tmp_path / "heard.m3u").write_text("1.mp3\n2.mp3\nghost.mp3\n")
  outs = [f"--{kind}={tmp_path / f'a.{kind}'}" for kind in ("json", "xspf")]
  similar.main(
    [
      *(f"--embeddings={path}", "--like", "3.mp3", "4.mp3", "--unlike=5.mp3"),
      *(f"--not_in={tmp_path / 'heard.m3u'}", "-k=55", "--min_score=0"),
      *("--order", "--paths=relative", *outs),
    ]
  )
  printed = capsys.readouterr().out
  assert "query: 4.mp3, in the table\nunlike query: 5.mp3" in printed
  assert "left out, playlist: heard, 3 entries, 2 songs of the table" in printed
  assert "songs in place of 55: no other fits" in printed
  unit = table.rows.unit
  scores = unit @ (unit[[3, 4]].mean(axis=0) - unit[5])
  rows = storage.read_json(tmp_path / "a.json")
  found = {int(row["id"].removesuffix(".mp3")) for row in rows}
  assert found == {*np.flatnonzero(scores >= 0)} - {1, 2, 3, 4, 5}
  places = [os.path.relpath(f"/music/{row['id']}", tmp_path) for row in rows]
  assert [row["path"] for row in rows] == places
  (playlist,), _ = playlist_files.read_playlists(tmp_path / "a.xspf")
  assert [entry.shown for entry in playlist.entries] == places


def test_songs_of_all_playlists_of_a_file_are_left_out(path, tmp_path, capsys):
  heard, out = tmp_path / "heard.csv", tmp_path / "a.json"
  heard.write_text("playlist,path\nA,1.mp3\nA,ghost.mp3\nB,2.mp3\nB,1.mp3\n")
  flags = [f"--embeddings={path}", "--query=3.mp3", f"--json={out}", "-k=57"]
  similar.main([*flags, f"--not_in={heard}"])
  printed = capsys.readouterr().out
  assert "left out, playlist: heard, 4 entries, 2 songs of the table" in printed
  found = {row["id"] for row in storage.read_json(out)}
  assert len(found) == 57 and not found & {"1.mp3", "2.mp3", "3.mp3"}


@pytest.mark.parametrize("entries", ["", "ghost.mp3\nnix.mp3\n", "7.mp3\n"])
def test_there_may_be_nothing_to_leave_out(
  path, tmp_path, capsys, monkeypatch, entries
):
  silent = dataclasses.replace(
    song_table.read_table(path), silent=frozenset({7})
  )
  monkeypatch.setattr(song_table, "read_table", lambda _: silent)
  flags = [f"--embeddings={path}", "--query=3.mp3"]
  (tmp_path / "heard.m3u").write_text(entries)
  lists = []
  for more in ([], [f"--not_in={tmp_path / 'heard.m3u'}"]):
    out = tmp_path / f"{len(lists)}.json"
    similar.main([*flags, *more, f"--json={out}"])
    lists.append(storage.read_json(out))
  assert lists[0] == lists[1]
  assert "left out, playlist: heard, " in capsys.readouterr().out


def test_songs_fill_the_time_that_is_given(path, table, tmp_path):
  out = tmp_path / "a.json"
  flags = [f"--embeddings={path}", "--query=3.mp3", f"--json={out}"]
  for minutes, count in ((1.0, 14), (0.5, 7), (60.0, 59)):
    similar.main([*flags, f"--max_minutes={minutes}"])
    assert len(storage.read_json(out)) == count  # Of a patch, 4.096 s, each.


def test_a_path_and_an_order_are_printed(path, tmp_path, capsys):
  similar.main([f"--embeddings={path}", "--from=3.mp3", "--to=8.mp3", "-k=5"])
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == "a path from 3.mp3 to 8.mp3"
  assert [lines[i].split()[:3:2] for i in (3, 7)] == [
    ["1", "/music/3.mp3"],
    ["5", "/music/8.mp3"],
  ]
  (tmp_path / "a.m3u").write_text("4.mp3\n5.mp3\n6.mp3\n")
  flags = [f"--embeddings={path}", f"--reorder={tmp_path / 'a.m3u'}"]
  similar.main(flags)
  lines = capsys.readouterr().out.splitlines()
  assert sorted(line.split()[2] for line in lines[3:]) == [
    "/music/4.mp3",
    "/music/5.mp3",
    "/music/6.mp3",
  ]
  with pytest.raises(errors.InputError, match="--reorder takes"):
    similar.main([*flags, "--per_artist=1"])


def _playlist_data(data: pathlib.Path, root: str) -> list[int]:
  """Writes a data set of songs of a folder; returns those with a vector."""
  data.mkdir()
  catalogue = tiny_data.tiny_catalogue()
  tiny_data.tiny_store(data / song_store.FILE_NAME, catalogue)
  catalogue.save(data)
  ids = catalogue.song_ids.tolist()
  index = {"audio_dir": root, "ids": {f"{i}.mp3": ids[i] for i in range(20)}}
  (data / "song_ids.json").write_text(json.dumps(index))
  vectors = np.random.default_rng(0).normal(size=(len(ids), 9))
  np.save(data / "playlist_vectors.npy", vectors.astype(np.float32))
  _, learned = vector_sources.learned_entries(catalogue)
  return [row for row in range(20) if row in learned]


def test_playlists_vectors_are_blended(path, tmp_path, capsys):
  data = tmp_path / "data"
  known = _playlist_data(data, "/music")
  flags = [f"--embeddings={path}", "-k=3", "--blend=0.5", f"--data={data}"]
  vectors = (data / "playlist_vectors.npy").rename(tmp_path / "vectors.npy")
  with pytest.raises(errors.InputError, match="has no playlist_vectors.npy"):
    similar.main([*flags, "--query=0.mp3"])
  vectors.rename(data / "playlist_vectors.npy")
  similar.main([*flags, f"--query={known[0]}.mp3"])
  printed = capsys.readouterr().out
  assert f"vectors of playlists: {len(known)} of 60 songs" in printed
  with pytest.raises(errors.InputError, match="in a playlist that the vectors"):
    similar.main([*flags, "--query=50.mp3"])
  with pytest.raises(errors.InputError, match="blend is 2"):
    similar.main([*flags, "--query=0.mp3", "--blend=2"])


def test_vectors_of_another_library_with_the_same_ids_are_not_blended(
  table, tmp_path
):
  data = tmp_path / "data"
  known = _playlist_data(data, "/music")
  ids = list(map(str, tiny_data.tiny_catalogue().song_ids.tolist()))

  def moved(place):  # As embed --data makes them.
    paths = [place.format(i) for i in range(60)]
    roots = {"roots": [os.path.dirname(place)]}
    return dataclasses.replace(
      table, ids=ids, paths=paths, about=table.about | roots
    )

  with pytest.raises(errors.InputError, match="none of the songs of"):
    second_vectors.of_playlists(moved("/jazz/b{}.mp3"), data, 0.5)
  found = second_vectors.of_playlists(moved("/moved/{}.mp3"), data, 0.5)
  assert found.count() == len(known)


def test_playlists_vectors_of_a_folder_that_is_a_link_are_blended(
  tmp_path, capsys
):
  disk, link = tmp_path / "disk", tmp_path / "music"
  disk.mkdir()
  link.symlink_to(disk)
  for number, (of_table, of_data) in enumerate([(link, disk), (disk, link)]):
    table = tmp_path / f"{number}.parquet"
    tiny_table.write(table, root=str(of_table))
    data = tmp_path / f"data{number}"
    known = _playlist_data(data, str(of_data))
    flags = [f"--embeddings={table}", "--blend=0.5", f"--data={data}"]
    similar.main([*flags, f"--query={known[0]}.mp3"])
    printed = capsys.readouterr().out
    assert f"vectors of playlists: {len(known)} of 60 songs" in printed


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--query=" + 10_000 * "x"], "x\\.\\.\\. is neither a file"),
    (["--query=a\0b"], "is neither a file"),
    (["--like", "1.mp3", "--unlike", "1.mp3"], "cancel each other out"),
    (["--from=1.mp3", "--to=1.mp3"], "the same song"),
    (["--from=1.mp3", "--to=2.mp3", "-k=61"], "give 2 to 60"),
    (["--from=1.mp3", "--to=conftest.py"], "conftest.py is not in .*embed it"),
    (["--from=1.mp3", "--to=../tests"], "../tests is neither a file nor"),
    (["--query=1.mp3", "--exclude_same=artist,year"], "'year': give some of"),
  ],
)
def test_lists_that_cannot_be_had_are_refused(
  path, flags, message, monkeypatch
):
  monkeypatch.chdir(pathlib.Path(__file__).parents[2])
  with pytest.raises(errors.InputError, match=message) as info:
    similar.main([f"--embeddings={path}", *flags])
  assert len(str(info.value)) < 1000


def test_one_song_and_no_song_are_tables_too(tmp_path):
  for songs in (0, 1):
    table = tiny_table.write(tmp_path / f"{songs}.parquet", songs=songs)
    flags = [f"--embeddings={table.path}", "-k=1"]
    message = "no other songs to find" if songs else "neither a file nor"
    with pytest.raises(errors.InputError, match=message):
      similar.main([*flags, "--query=0.mp3"])
