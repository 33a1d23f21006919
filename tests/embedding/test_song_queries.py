"""Tests of pcl_jax.embedding.song_queries and of python -m pcl_jax.similar."""

import csv
import dataclasses
import json
import os
import pathlib

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import pytest
import soundfile

from pcl_jax import embed
from pcl_jax import similar
from pcl_jax.common import errors
from pcl_jax.embedding import song_queries
from pcl_jax.embedding.lists import list_files
from pcl_jax.embedding.lists import song_lists
from pcl_jax.embedding.tables import search
from pcl_jax.embedding.tables import song_table
from pcl_jax.embedding.tables import vector_rows
from pcl_jax.library import playlist_files
from tests.support import quick_backbone
from tests.support import quick_run
from tests.support.tiny import tiny_library
from tests.support.tiny import tiny_table

SONGS = tiny_table.SONGS


def _look_up(table, query: str, k: int):
  """Returns the songs nearest to a query, and what it was taken for."""
  queries, lines = song_queries.look_up(table, [query], k)
  return song_lists.similar(table, queries, k), lines[0]


def _complete(table, path: pathlib.Path, k: int):
  """Returns the songs that continue a playlist, and what is said of it."""
  members, lines = song_queries.members_of(table, path, None)
  return table.continue_playlist(members, k), "\n".join(lines)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> pathlib.Path:
  found = tmp_path_factory.mktemp("similar") / "music.parquet"
  tiny_table.write(found)
  return found


@pytest.fixture(scope="module")
def table(path) -> song_table.Table:
  return song_table.read_table(path)


def _cosines(table, query: np.ndarray) -> np.ndarray:
  norms = np.linalg.norm(table.vectors, axis=1) * np.linalg.norm(query)
  return table.vectors @ query / norms


def test_the_nearest_songs_are_printed_and_written(
  path, table, tmp_path, capsys
):
  names = ["--query=7.mp3", f"--csv={tmp_path / 'a.csv'}", "-k=5"]
  names.append(f"--m3u={tmp_path / 'a.m3u'}")
  similar.main([f"--embeddings={path}", *names])
  cosines = _cosines(table, table.vectors[7])
  cosines[7] = -2  # The query itself is not found.
  expected = np.argsort(-cosines)[:5]
  with open(tmp_path / "a.csv", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  assert list(rows[0]) == ["rank", "score", "id", "path"]
  assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"]
  assert [row["id"] for row in rows] == [f"{i}.mp3" for i in expected]
  for row, song in zip(rows, expected, strict=True):
    assert float(row["score"]) == pytest.approx(cosines[song], abs=1e-4)
  printed = capsys.readouterr().out.splitlines()
  assert "query: 7.mp3, in the table" in printed
  for row in rows:
    shown = [row["rank"], row["score"], row["path"]]  # It ends with the id.
    assert shown in [line.split() for line in printed]
  playlists, _ = playlist_files.read_playlists(tmp_path / "a.m3u")
  found = [entry.shown for entry in playlists[0].entries]
  assert found == [row["path"] for row in rows]


@pytest.fixture
def with_silence(table):
  """The table; some songs that are near to song 7 are silent."""
  near = table.nearest(table.vectors[7], 3, without=7).rows.tolist()
  return dataclasses.replace(table, silent=frozenset({*near, 40})), near


def test_silent_songs_are_not_found(table, with_silence):
  quiet, near = with_silence
  found, _ = _look_up(quiet, "7.mp3", 20)
  expected, _ = _look_up(table, "7.mp3", 24)
  kept = [row for row in expected.rows.tolist() if row not in quiet.silent]
  assert found.rows.tolist() == kept[:20]
  np.testing.assert_allclose(
    found.scores, _cosines(table, table.vectors[7])[found.rows], rtol=1e-5
  )
  with pytest.raises(errors.InputError, match=f"{near[0]}.mp3 is silent"):
    _look_up(quiet, f"{near[0]}.mp3", 5)
  with pytest.raises(errors.InputError, match="has 55 songs to find"):
    _look_up(quiet, "7.mp3", 56)


def test_silent_songs_of_a_playlist_are_left_out(table, with_silence, tmp_path):
  quiet, near = with_silence
  playlist = tmp_path / "some.m3u"
  playlist.write_text(f"7.mp3\n9.mp3\n{near[0]}.mp3\n")
  found, about = _complete(quiet, playlist, 40)
  assert "silent, and left out: 1" in about
  assert not quiet.silent & set(found.rows.tolist())
  kept = np.delete(table.vectors, sorted(quiet.silent), axis=0)
  rows = np.delete(np.arange(SONGS), sorted(quiet.silent))
  members = np.searchsorted(rows, [7, 9])
  expected = search.continue_playlist(kept, members, 40)
  np.testing.assert_array_equal(found.rows, rows[expected.rows])
  playlist.write_text(f"{near[0]}.mp3\n")
  with pytest.raises(errors.InputError, match="are silent"):
    _complete(quiet, playlist, 5)


def test_silent_songs_are_found_where_that_is_asked_for(tmp_path, capsys):
  path = tmp_path / "music.parquet"
  table = tiny_table.write(path, silent=[3, 4])
  flags = [f"--embeddings={path}", "--query=7.mp3", f"-k={SONGS - 1}"]
  with pytest.raises(errors.InputError, match="has 57 songs"):
    similar.main(flags)
  assert "2 silent songs of the table are left out" in capsys.readouterr().out
  similar.main([*flags, "--keep_silent"])
  printed = capsys.readouterr().out
  assert "left out" not in printed and "/music/3.mp3\n" in printed
  assert table.silent == {3, 4}


def test_a_song_is_found_by_its_path_too(table):
  assert song_queries.find_row(table, "/music/3.mp3") == 3
  assert song_queries.find_row(table, "/music/../music/3.mp3") == 3
  assert song_queries.find_row(table, "/elsewhere/3.mp3") is None


@pytest.fixture
def of_data_set(table) -> song_table.Table:
  """A table of a data set: ids are numbers, and names are known."""
  paths = ["/m/A/one.mp3", "/m/B/one.mp3", "/m/B/Two.mp3", "/m/C/t.mp3", ""]
  names = ("A - Same", "B - Same", "B - Café", "C - Two", "D - Nowhere")
  return dataclasses.replace(
    table,
    ids=["10", "11", "12", "13", "14"],
    paths=paths,
    names=names,
    rows=vector_rows.VectorRows(table.vectors[:5]),
    about=table.about | {"roots": ["/m"]},
  )


@pytest.mark.parametrize(
  ("query", "row"),
  [
    ("12", 2),
    ("A/one.mp3", 0),
    ("b/ONE", 1),
    ("two.mp3", 2),
    ("two", 2),  # A file's name comes before a title.
    ("Cafe\u0301", 2),
    ("c - two", 3),
    ("nowhere", 4),
  ],
)
def test_a_song_of_a_data_set_is_found_by_its_path_or_name(
  of_data_set, query, row
):
  found, about = _look_up(of_data_set, query, 2)
  assert about.startswith(f"query: {of_data_set.ids[row]} (")
  assert row not in found.rows
  (first, _) = list_files.shown(list_files.rows_of(of_data_set, found))
  assert list(first) == ["rank", "score", "name", "id", "path"]
  assert first["name"] == of_data_set.names[int(first["id"]) - 10]


def test_a_folder_of_its_name_does_not_hide_a_song(
  table, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "7").mkdir()
  assert song_queries.find_song(table, "7") == 7


def test_a_name_of_several_songs_is_refused_with_what_they_are(of_data_set):
  with pytest.raises(errors.InputError, match=r"2 songs.*10 \(A - Same, /m/A/"):
    _look_up(of_data_set, "one.mp3", 2)
  with pytest.raises(errors.InputError, match="2 songs"):
    _look_up(of_data_set, "same", 2)
  with pytest.raises(errors.InputError, match="Similar names are: .*Nowhere"):
    _look_up(of_data_set, "nowhere man", 2)


def test_a_playlist_of_another_machine_is_continued(of_data_set, tmp_path):
  file = tmp_path / "mine.m3u"
  file.write_text("C:\\Music\\B\\one.mp3\nhttp://host/A/one.mp3\n")
  _, about = _complete(of_data_set, file, 2)
  assert "2 entries, 1 songs of the table" in about


def test_a_playlist_file_is_completed_and_what_is_unknown_is_said(
  path, tmp_path, capsys
):
  file = tmp_path / "mine.m3u"
  # Absolute, as an id, relative to the folder embedded, twice, and unknown.
  file.write_text(
    "#EXTM3U\n/music/3.mp3\n4.mp3\n./5.MP3\n3.mp3\nfile:///music/6.mp3\n"
    "/other/ghost.mp3\n"
  )
  out = tmp_path / "found.csv"
  similar.main(
    [f"--embeddings={path}", f"--playlist={file}", "-k=50", f"--csv={out}"]
  )
  printed = capsys.readouterr().out
  assert "6 entries, 4 songs of the table" in printed
  assert "not in the table: 1\n  /other/ghost.mp3" in printed
  with open(out, encoding="utf-8") as opened:
    rows = list(csv.DictReader(opened))
  assert list(rows[0]) == ["rank", "score", "lists", "id", "path"]
  assert len(rows) == 50
  assert not {row["id"] for row in rows} & {f"{i}.mp3" for i in (3, 4, 5, 6)}


def test_songs_of_any_names_are_found_written_and_read_back(tmp_path, capsys):
  contents = [b"caf\xe9.mp3", b"two\nlines\r.mp3", b' "a", #1 100%25.mp3']
  contents += [b"\xf0\x9f\x8e\xb5\xc2\x85.mp3", b"end \t"]
  names = list(map(os.fsdecode, contents))
  table = tiny_table.write(tmp_path / "a.parquet", songs=7, names=names)
  assert table.ids[:5] == names
  flags = [f"--embeddings={table.path}", "--query=6.mp3", "-k=6"]
  for kind in ("csv", "m3u"):
    flags.append(f"--{kind}={tmp_path / f'a.{kind}'}")
  similar.main(flags)
  printed = capsys.readouterr().out
  for text in (r"caf\xe9.mp3", r"two\nlines\r.mp3", r"🎵\x85.mp3"):
    assert f"  /music/{text}\n" in printed
  (playlist,), _ = playlist_files.read_playlists(tmp_path / "a.m3u")
  found, missing = song_queries.find_members(table, playlist, tmp_path)
  assert sorted(found.tolist()) == [0, 1, 2, 3, 4, 5] and not missing
  with open(tmp_path / "a.csv", encoding="utf-8", newline="") as file:
    rows = {row["id"]: row["path"] for row in csv.DictReader(file)}
  assert rows[r"caf\xe9.mp3"] == "file:///music/caf%E9.mp3"
  for name in names[1:]:
    assert rows[name] == f"/music/{name}"
  for query in (names[0], r"caf\xe9.mp3", f"/music/{names[0]}"):
    assert song_queries.find_row(table, query) == 0


def test_a_file_of_several_playlists_needs_a_title(path, tmp_path, capsys):
  file = tmp_path / "all.csv"
  file.write_text("playlist,path\nold,1.mp3\nnew,2.mp3\n")
  flags = [f"--embeddings={path}", f"--playlist={file}"]
  with pytest.raises(errors.InputError, match="2 playlists.*'old', 'new'"):
    similar.main(flags)
  similar.main([*flags, "--title=new"])
  assert "playlist: new, 1 entries, 1 songs" in capsys.readouterr().out


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
  """Folder of a run, of six songs and of their table."""
  root = tmp_path_factory.mktemp("embedded")
  for number in range(6):
    tiny_library.write_song(
      root / "music" / f"{number}.wav", 200.0 * 1.5**number, seconds=9.0
    )
  with pytest.MonkeyPatch.context() as patch:
    quick_backbone.register(patch)
    quick_run.save(root / "run")
    embed.main(
      [
        f"--workdir={root / 'run'}",
        f"--audio={root / 'music'}",
        f"--out={root / 'music.parquet'}",
        "--batch_patches=4",
      ]
    )
    yield root


def test_an_audio_file_is_nearest_to_its_own_copy(embedded, tmp_path, capsys):
  copy = tmp_path / "copy.wav"
  copy.write_bytes((embedded / "music" / "4.wav").read_bytes())
  flags = [f"--embeddings={embedded / 'music.parquet'}", "-k=2"]
  similar.main([*flags, f"--query={copy}"])
  printed = capsys.readouterr().out.splitlines()
  assert printed[0] == f"query: {copy}, embedded as the table's songs were"
  assert printed[3].split()[:2] == ["1", "1.0000"]
  assert printed[3].endswith("music/4.wav")
  # The file of the table itself is not found, being the query.
  similar.main([*flags, f"--query={embedded / 'music' / '4.wav'}"])
  printed = capsys.readouterr().out
  assert "query: 4.wav, in the table" in printed
  assert printed.count("4.wav") == 1


def test_a_silent_file_is_a_query_only_where_that_is_asked_for(
  embedded, tmp_path
):
  silence = tmp_path / "silence.wav"
  soundfile.write(silence, np.zeros(6 * 16_000), 16_000)
  flags = [f"--embeddings={embedded / 'music.parquet'}", "-k=2"]
  flags.append(f"--query={silence}")
  with pytest.raises(errors.InputError, match="silen"):
    similar.main(flags)
  similar.main([*flags, "--keep_silent"])


def test_a_query_of_another_encoder_is_refused(embedded, tmp_path):
  query = tiny_library.write_song(tmp_path / "query.wav")
  other = quick_run.save(tmp_path / "other", seed=1, step=9)
  flags = [f"--embeddings={embedded / 'music.parquet'}", "-k=2"]
  with pytest.raises(errors.InputError, match="two different encoders") as info:
    similar.main([*flags, f"--query={query}", f"--workdir={other}"])
  assert f"step 1 of {embedded / 'run'}" in str(info.value)
  assert f"step 9 of {other}" in str(info.value)
  # The same weights elsewhere are the same encoder.
  moved = quick_run.save(tmp_path / "moved", step=5)
  similar.main([*flags, f"--query={query}", f"--workdir={moved}"])


def test_a_run_that_was_moved_is_asked_for(path, tmp_path):
  query = tiny_library.write_song(tmp_path / "query.wav")
  with pytest.raises(errors.InputError, match="/runs/gone .*--workdir"):
    similar.main([f"--embeddings={path}", f"--query={query}"])


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (
      ["--query=77.mp3"],
      "neither a file nor an id, .*Similar names are: 7.mp3",
    ),
    (["--query=7.mp3", "-k=60"], "-k is 60, and .* has 59 songs to find"),
    (["--query=conftest.py", "-k=61"], "-k is 61, and .* has 60 songs to find"),
    (["--playlist=mine.txt"], "none of the suffixes"),
    (["--playlist=absent.m3u"], "absent.m3u cannot be read"),
  ],
)
def test_what_cannot_be_looked_up_is_refused(path, flags, message, monkeypatch):
  monkeypatch.chdir(pathlib.Path(__file__).parents[1])
  with pytest.raises(errors.InputError, match=message):
    similar.main([f"--embeddings={path}", *flags])


def test_a_small_table_gives_all_others_where_no_number_is_asked_for(
  tmp_path, capsys
):
  place = tmp_path / "few.parquet"
  tiny_table.write(place, songs=5)
  (tmp_path / "mine.m3u").write_text("1.mp3\n3.mp3\n")
  for flags, count in (
    (["--query=1.mp3"], 4),
    (["--like", "1.mp3", "2.mp3", "--unlike", "3.mp3"], 2),
    ([f"--playlist={tmp_path / 'mine.m3u'}"], 3),
    (["--from=1.mp3", "--to=3.mp3"], 5),
  ):
    out = tmp_path / "found.json"
    similar.main([f"--embeddings={place}", *flags, f"--json={out}"])
    assert len(json.loads(out.read_text())) == count, flags
  tiny_table.write(place, songs=1)
  with pytest.raises(errors.InputError, match="no other songs to find"):
    similar.main([f"--embeddings={place}", "--query=0.mp3"])


def test_a_playlist_of_strangers_is_refused(path, tmp_path):
  (tmp_path / "a.m3u").write_text("ghost.mp3\n")
  with pytest.raises(errors.InputError, match="no song of .*a.m3u is in"):
    similar.main([f"--embeddings={path}", f"--playlist={tmp_path / 'a.m3u'}"])


def test_a_playlist_cannot_be_written_without_paths(tmp_path):
  tiny_table.write(tmp_path / "a.parquet", root="")
  flags = [f"--embeddings={tmp_path / 'a.parquet'}", "--query=1.mp3"]
  with pytest.raises(errors.InputError, match="m3u needs the paths"):
    similar.main([*flags, f"--m3u={tmp_path / 'a.m3u'}"])


def test_a_table_that_is_not_ours_is_refused(tmp_path):
  file = tmp_path / "a.parquet"
  flags = [f"--embeddings={file}", "--query=1.mp3"]
  with pytest.raises(errors.InputError, match="is not a file"):
    similar.main(flags)
  file.write_bytes(b"PAR1 and nothing else")
  with pytest.raises(errors.InputError, match="cannot be read as a Parquet"):
    similar.main(flags)
  parquet.write_table(pa.table({"id": ["1.mp3"]}), file)
  with pytest.raises(errors.InputError, match="not of embeddings"):
    similar.main(flags)
