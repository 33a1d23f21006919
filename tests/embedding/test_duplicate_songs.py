"""Tests of pcl_jax.embedding.duplicate_songs and of pcl_jax.duplicates."""

import csv
import dataclasses
import pathlib
import weakref

import numpy as np
import pytest
import soundfile

from pcl_jax import duplicates
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from pcl_jax.embedding import duplicate_songs
from pcl_jax.embedding.tables import song_table
from tests.support import coded_music
from tests.support.tiny import tiny_table

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_pairs_are_of_neighbours_and_each_is_there_once():
  rng = np.random.default_rng(0)
  unit = rng.normal(size=(40, 8)).astype(np.float32)
  unit /= np.linalg.norm(unit, axis=1, keepdims=True)
  unit[5] = 0
  pairs = duplicate_songs.candidates(unit, 3, 0.2)
  cosines = unit @ unit.T
  np.fill_diagonal(cosines, -2)
  expected = {
    (min(i, j), max(i, j))
    for i in range(40)
    for j in np.argsort(-cosines[i], kind="stable")[:3].tolist()
    if cosines[i, j] >= 0.2
  }
  assert {tuple(one) for one in pairs.tolist()} == expected
  assert len(pairs) == len(expected) and 5 not in pairs
  assert not len(duplicate_songs.candidates(unit[:1], 3, 0.2))


def test_groups_are_the_songs_that_pairs_connect():
  pairs = np.array([[1, 2], [7, 4], [2, 9], [4, 7]])
  found = [one.tolist() for one in duplicate_songs.groups(pairs, 12)]
  assert found == [[1, 2, 9], [4, 7]]
  assert duplicate_songs.groups(np.zeros((0, 2), np.int64), 5) == []


def test_a_song_that_cannot_be_read_is_told_of():
  music = [coded_music.music(i) for i in range(3)]
  music.append(coded_music.coded(music[1]))

  def read(row: int) -> np.ndarray:
    if row == 2:
      raise errors.InputError("it is gone")
    return music[row]

  pairs = np.array([[0, 1], [0, 2], [1, 2], [1, 3]])
  found, unread = duplicate_songs.confirm(pairs, read)
  ((first, second, correlation, shift),) = found
  assert (first, second, shift) == (1, 3, 37) and correlation > 0.97
  assert unread == {2: "it is gone"}


def test_songs_that_are_held_take_no_more_than_their_share(monkeypatch):
  song = coded_music.music(0)
  monkeypatch.setattr(duplicate_songs, "_CACHED_BYTES", 3 * song.nbytes)
  reads, made, most = [], [], 0

  def read(row: int) -> np.ndarray:
    nonlocal most
    reads.append(row)
    feature = song.copy()
    made.append(weakref.ref(feature))
    most = max(most, sum(one() is not None for one in made))
    return feature

  pairs = np.array([[0, i] for i in range(1, 12)])
  found, _ = duplicate_songs.confirm(pairs, read)
  assert len(found) == 11 and reads == list(range(12))
  assert most <= 3 + 2  # Those held, and the pair before.


@pytest.fixture
def data(tmp_path):
  """A data set of eight songs; 8 and 9 are copies of 2 and 5."""
  songs = [coded_music.music(i) for i in range(8)]
  songs += [coded_music.coded(songs[2]), coded_music.coded(songs[5])]
  folder = tmp_path / "data"
  folder.mkdir()
  writer = song_writer.SongWriter(folder / song_store.FILE_NAME)
  writer.add((10 + i, one.astype(np.float16)) for i, one in enumerate(songs))
  writer.finish({"kind": "features of a test"})
  return folder


def test_copies_in_a_data_set_are_printed_and_written(data, tmp_path, capsys):
  outs = [f"--csv={tmp_path / 'a.csv'}", f"--json={tmp_path / 'a.json'}"]
  duplicates.main([f"--data={data}", *outs])
  printed = capsys.readouterr().out
  assert printed.startswith("10 songs, ")
  assert "4 songs in 2 groups of one recording" in printed
  groups = storage.read_json(tmp_path / "a.json")["groups"]
  assert groups == [["12", "18"], ["15", "19"]]
  with open(tmp_path / "a.csv", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  assert [(one["id"], one["with"]) for one in rows] == [
    ("12", "18"),
    ("18", "12"),
    ("15", "19"),
    ("19", "15"),
  ]
  assert [one["begins_s"] for one in rows[:2]] == ["-0.59", "+0.59"]


def test_without_copies_the_file_of_an_earlier_call_is_emptied(
  data, tmp_path, capsys
):
  out = tmp_path / "copies.csv"
  duplicates.main([f"--data={data}", f"--csv={out}"])
  header = out.read_text().splitlines()[0]
  flags = [f"--data={data}", f"--csv={out}", "--min_correlation=1"]
  duplicates.main(flags)
  assert out.read_text().splitlines() == [header]
  assert f"written to {out}" in capsys.readouterr().out


def _write_copies(*paths):
  """Writes one recording at several levels, whose mean is silent."""
  rng = np.random.default_rng(0)
  level = np.repeat(rng.uniform(0.1, 1, 50), 3200)
  music = level * rng.uniform(-0.5, 0.5, len(level))
  for number, path in enumerate(paths, 1):
    both = np.stack([music, -music], axis=1) / number
    path.parent.mkdir(exist_ok=True, parents=True)
    soundfile.write(path, both, 16_000, subtype="FLOAT")


@pytest.mark.parametrize("folders", [("old",), ("old/A", "old/B")])
def test_songs_of_folders_that_have_moved_together_are_found(
  tmp_path, capsys, monkeypatch, folders
):
  roots = [str(tmp_path / one) for one in folders]
  paths = [f"{roots[0]}/a.wav", f"{roots[-1]}/b.wav"]
  _write_copies(*map(pathlib.Path, paths))
  table = tiny_table.write(
    tmp_path / "a.parquet", facts={"path": paths}, vectors=np.ones((2, 4)),
    names=paths if len(roots) > 1 else ["a.wav", "b.wav"], channels="left",
  )  # fmt: skip
  table = dataclasses.replace(table, about=table.about | {"roots": roots})
  monkeypatch.setattr(song_table, "read_table", lambda _: table)
  (tmp_path / "old").rename(tmp_path / "new")
  new = f"--audio={tmp_path / 'new'}"
  duplicates.main([f"--embeddings={table.path}", new])
  assert "2 songs in 1 groups of one" in capsys.readouterr().out


def test_files_are_laid_over_each_other_by_the_channels_of_the_table(
  tmp_path, capsys
):
  _write_copies(tmp_path / "a.wav", tmp_path / "b.wav")
  table = tiny_table.write(
    tmp_path / "a.parquet", root=str(tmp_path), names=["a.wav", "b.wav"],
    vectors=np.ones((2, 4)), channels="loudest",
  )  # fmt: skip
  duplicates.main([f"--embeddings={table.path}"])
  assert "2 songs in 1 groups of one" in capsys.readouterr().out


def test_files_of_a_table_that_are_gone_are_counted(tmp_path, capsys):
  vectors = np.ones((3, 4))
  table = tiny_table.write(tmp_path / "a.parquet", vectors=vectors)
  with pytest.raises(errors.RunError, match="not one of .* --audio"):
    duplicates.main([f"--embeddings={table.path}"])
  printed = capsys.readouterr().out
  assert "0 songs in 0 groups" in printed
  assert "3 songs cannot be read, and were not compared" in printed
  assert "/music/1.mp3: " in printed
  empty = tiny_table.write(tmp_path / "b.parquet", songs=0)
  duplicates.main([f"--embeddings={empty.path}"])
  assert "0 songs, 0 pairs compared" in capsys.readouterr().out
  with pytest.raises(SystemExit):
    duplicates.main([])


@pytest.mark.parametrize(
  "flags, said",
  [
    (["--min_correlation=90"], "--min_correlation is 90; it is a number from"),
    (["--min_cosine=0.9"], "--min_cosine goes with --embeddings"),
    (["--embeddings=t", "--min_cosine=nan"], "--min_cosine is nan"),
    (["--audio=music"], "--audio does nothing with --data"),
  ],
)
def test_flags_that_cannot_be_meant_are_refused(data, flags, said, capsys):
  with pytest.raises(SystemExit):
    duplicates.main([f"--data={data}", *flags])
  assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["csv", "json"])
def test_places_of_lists_are_looked_at_before_the_songs(
  data, tmp_path, monkeypatch, name
):
  monkeypatch.setattr(duplicates._Library, "candidates", lambda _: 1 / 0)
  with pytest.raises(errors.InputError, match=f"is a folder.*another --{name}"):
    duplicates.main([f"--data={data}", f"--{name}={tmp_path}"])
