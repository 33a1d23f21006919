"""Tests of pcl_jax.embedding.table_update: a table is brought up to date."""

import json
import os
import pathlib
import shutil

import mutagen
import numpy as np
from pyarrow import parquet
import pytest

from pcl_jax.audio import decode
from pcl_jax.common import errors
from pcl_jax.embedding import embedding_run
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.embedding.tables import row_index
from pcl_jax.embedding.tables import song_table
from tests.support import music_run
from tests.support.tiny import tiny_library

BATCH, SONGS = music_run.BATCH, music_run.SONGS
_embed = music_run.embed


@pytest.fixture
def read_files(monkeypatch):
  """Names of the files whose features were read."""
  names, read = [], decode.feature_blocks

  def watched(path, *args, **kwargs):
    names.append(pathlib.Path(path).name)
    return read(path, *args, **kwargs)

  monkeypatch.setattr(decode, "feature_blocks", watched)
  return names


def _change_library(music: pathlib.Path) -> None:
  """Adds, changes, removes, moves and touches one file each."""
  tiny_library.write_song(music / "a" / "new.wav", 500.0, seconds=5.0)
  tiny_library.write_song(music / "tail.wav", 123.0, seconds=9.0)
  (music / "a" / "one sample.wav").unlink()
  (music / "b" / "song.WAV").rename(music / "a" / "moved.wav")
  os.utime(music / "b/c/long.flac")


@pytest.mark.parametrize("kind", [[], ["--per_patch"]])
def test_only_songs_that_are_new_or_changed_are_embedded_again(
  made, tmp_path, capsys, read_files, kind
):
  music, out = tmp_path / "music", tmp_path / "music.parquet"
  shutil.copytree(made / "music", music)
  flags = [f"--audio={music}", BATCH, *kind]
  assert not _embed(made, *flags, out=out)
  if not kind:
    row_index.write_rows(embedding_table.TableFile(out))
  _change_library(music)
  read_files.clear()
  capsys.readouterr()
  assert not _embed(made, *flags, out=out)
  assert sorted(read_files) == ["new.wav", "tail.wav"]
  printed = capsys.readouterr().out
  assert ("was made again for the table" in printed) == (not kind)
  assert "5 songs, " in printed and "2 are new or changed, 3 are as they" in (
    printed
  )
  assert "; 1 songs of the table are no longer there" in printed
  whole = tmp_path / "whole.parquet"
  assert not _embed(made, *flags, out=whole)
  assert parquet.read_table(out) == parquet.read_table(whole)
  about = embedding_table.read_about(whole)
  assert embedding_table.read_about(out) == about
  assert not _embed(made, *flags, out=out)
  assert "nothing to do" in capsys.readouterr().out


def test_labels_follow_the_tags_without_being_embedded_again(
  made, tmp_path, read_files
):
  music, out = tmp_path / "music", tmp_path / "music.parquet"
  tags = {"artist": "Ann", "album": "Best", "genre": "Rock", "title": "A"}
  for name in ("a.flac", "b.flac"):
    tiny_library.write_song(music / name, 300.0, seconds=5.0, **tags)
  flags = [f"--audio={music}", BATCH]
  assert not _embed(made, *flags, out=out)
  facts = song_table.read_table(out).facts
  assert [facts.artist_names(row) for row in (0, 1)] == [["Ann"], ["Ann"]]
  assert facts.album(0) == "Best" and facts.of_genre("ROCK").tolist() == [0, 1]
  assert song_table.read_table(out).names == ("Ann - A", "Ann - A")
  file = mutagen.File(music / "b.flac")
  file["artist"] = ["Bob"]
  file.save()
  read_files.clear()
  assert not _embed(made, *flags, out=out)
  table = song_table.read_table(out)
  assert not read_files and table.facts.artist_names(1) == ["Bob"]
  np.testing.assert_allclose(table.facts.seconds, 5.0, atol=0.016)


def test_a_table_of_an_earlier_version_gets_its_labels(
  made, tmp_path, read_files
):
  music, out = tmp_path / "music", tmp_path / "music.parquet"
  tiny_library.write_song(music / "a.flac", seconds=5.0, artist="Ann")
  flags = [f"--audio={music}", BATCH]
  assert not _embed(made, *flags, out=out)
  whole = parquet.read_table(out)
  parquet.write_table(whole.drop(list(embedding_table.FACTS)), out)
  assert song_table.read_table(out).facts.artist_names(0) == []
  read_files.clear()
  assert not _embed(made, *flags, out=out)
  table = song_table.read_table(out)
  assert not read_files and table.facts.artist_names(0) == ["Ann"]
  assert table.facts.seconds[0] == 4.096  # Of what was embedded.
  assert parquet.read_table(out).drop("seconds") == whole.drop("seconds")


def test_a_library_in_another_place_keeps_its_vectors(
  made, tmp_path, read_files
):
  music, out = tmp_path / "music", tmp_path / "music.parquet"
  shutil.copytree(made / "music", music)
  assert not _embed(made, f"--audio={music}", BATCH, out=out)
  music.rename(tmp_path / "disk")
  read_files.clear()
  flags = [f"--audio={tmp_path / 'disk'}", BATCH]
  assert not _embed(made, *flags, out=out)
  assert not read_files
  table = song_table.read_table(out)
  assert table.about["roots"] == [str(tmp_path / "disk")]
  assert table.paths[0] == str(tmp_path / "disk/a/one sample.wav")


@pytest.mark.long
def test_songs_of_an_album_known_by_its_folder_stay_together_when_it_moves(
  made, tmp_path, read_files
):
  music, out = tmp_path / "music", tmp_path / "music.parquet"
  best = {"album": "Best", "artist": "Ann"}
  for name, more in (
    ("a/1.flac", {}),
    ("b/1.flac", {}),
    ("c/1.flac", {"albumartist": "Ann"}),
  ):
    tiny_library.write_song(music / name, 300.0, seconds=5.0, **best, **more)
  assert not _embed(made, f"--audio={music}", BATCH, out=out)
  disk = music.rename(tmp_path / "disk")
  tiny_library.write_song(disk / "a/2.flac", 400.0, seconds=5.0, **best)
  read_files.clear()
  assert not _embed(made, f"--audio={disk}", BATCH, out=out)
  assert read_files == ["2.flac"]
  albums = parquet.read_table(out)["album_id"].to_pylist()
  assert albums[0] == albums[1] == f"best / {disk / 'a'}"
  assert albums[2:] == [f"best / {disk / 'b'}", "best / ann"]


def test_of_files_alike_one_that_was_moved_is_not_called_gone(
  made, tmp_path, capsys, read_files
):
  music, out = tmp_path / "music", tmp_path / "music.parquet"
  for name in ("a.wav", "b.wav"):
    tiny_library.write_song(music / name, 300.0, seconds=5.0)
  assert not _embed(made, f"--audio={music}", BATCH, out=out)
  (music / "b.wav").rename(music / "c.wav")
  read_files.clear()
  capsys.readouterr()
  assert not _embed(made, f"--audio={music}", BATCH, out=out)
  assert not read_files and "; 0 songs of the table" in capsys.readouterr().out
  assert song_table.read_table(out).ids == ["a.wav", "c.wav"]


def test_an_interrupted_update_goes_on(made, tmp_path, monkeypatch, read_files):
  monkeypatch.setattr(embedding_run, "PART_BATCHES", 0)  # A song is a part.
  music, out = tmp_path / "music", tmp_path / "music.parquet"
  shutil.copytree(made / "music", music)
  assert not _embed(made, f"--audio={music}", BATCH, out=out)
  before = out.read_bytes()
  _change_library(music)
  with monkeypatch.context() as patch:
    patch.setattr(embedding_run, "failures_path", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      _embed(made, f"--audio={music}", BATCH, out=out)
  assert out.read_bytes() == before
  read_files.clear()
  assert not _embed(made, f"--audio={music}", BATCH, out=out)
  assert not read_files
  assert not _embed(
    made, f"--audio={music}", BATCH, out=tmp_path / "whole.parquet"
  )
  whole = parquet.read_table(tmp_path / "whole.parquet")
  assert parquet.read_table(out) == whole


@pytest.mark.parametrize(
  "kind",
  [
    [],
    pytest.param(["--per_patch"], marks=pytest.mark.long),
    pytest.param(["--shard=1/1"], marks=pytest.mark.long),
  ],
)
def test_finished_songs_are_kept_though_the_library_changes_before_the_end(
  made, tmp_path, monkeypatch, read_files, capsys, kind
):
  monkeypatch.setattr(embedding_run, "PART_BATCHES", 0)  # A song is a part.
  music, out = tmp_path / "music", tmp_path / "music.parquet"
  shutil.copytree(made / "music", music)
  flags = [f"--audio={music}", BATCH, *kind]

  def interrupted_after(parts: int) -> list[str]:
    write, left = embedding_table.write, parts

    def limited(path, *args):
      nonlocal left
      if path.name.startswith("0"):
        if not left:
          raise KeyboardInterrupt
        left -= 1
      write(path, *args)

    read_files.clear()
    with monkeypatch.context() as patch:
      patch.setattr(embedding_table, "write", limited)
      with pytest.raises(KeyboardInterrupt):
        _embed(made, *flags, out=out)
    return read_files

  interrupted_after(3)
  _change_library(music)
  capsys.readouterr()
  assert "short.wav" not in interrupted_after(1)
  assert "songs have changed since" in capsys.readouterr().out
  tiny_library.write_song(music / "b/other.wav", 700.0, seconds=5.0)
  interrupted_after(2)
  assert not out.exists()
  read_files.clear()
  assert not _embed(made, *flags, out=out)
  assert len(read_files) == 2
  assert "no longer there" not in capsys.readouterr().out
  whole = tmp_path / "whole.parquet"
  assert not _embed(made, *flags, out=whole)
  assert parquet.read_table(out) == parquet.read_table(whole)
  assert not out.with_name(out.name + embedding_run.PARTS).exists()


@pytest.mark.long
def test_an_interrupted_update_keeps_what_it_finished_when_more_changes(
  made, tmp_path, monkeypatch, read_files, capsys
):
  monkeypatch.setattr(embedding_run, "PART_BATCHES", 0)  # A song is a part.
  music, out = tmp_path / "music", tmp_path / "music.parquet"
  shutil.copytree(made / "music", music)
  flags = [f"--audio={music}", BATCH]
  assert not _embed(made, *flags, out=out)
  _change_library(music)
  with monkeypatch.context() as patch:
    patch.setattr(embedding_run, "failures_path", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      _embed(made, *flags, out=out)
  tiny_library.write_song(music / "a" / "new.wav", 600.0, seconds=5.0)
  (music / "b/c/long.flac").rename(music / "long.flac")
  read_files.clear()
  capsys.readouterr()
  assert not _embed(made, *flags, out=out)
  assert read_files == ["new.wav"]
  printed = capsys.readouterr().out
  assert "2 are new or changed, 3 are as they were in the table; 1 songs" in (
    printed
  )
  whole = tmp_path / "whole.parquet"
  assert not _embed(made, *flags, out=whole)
  assert parquet.read_table(out) == parquet.read_table(whole)
  for seconds in (6.0, 7.0):
    tiny_library.write_song(music / "a" / "new.wav", 700.0, seconds=seconds)
    with monkeypatch.context() as patch:
      patch.setattr(embedding_run, "failures_path", lambda *_: 1 / 0)
      with pytest.raises(ZeroDivisionError):
        _embed(made, *flags, out=out)
  read_files.clear()
  assert not _embed(made, *flags, "--force", out=out)
  assert len(read_files) == 5


def test_songs_that_cannot_be_read_are_tried_again_in_an_update(
  made, tmp_path, read_files
):
  music, out = tmp_path / "music", tmp_path / "music.parquet"
  shutil.copytree(made / "music", music)
  (music / "broken.mp3").write_text("this is not music")
  flags = [f"--audio={music}", BATCH]
  assert _embed(made, *flags, out=out) == errors.EXIT_FAILED
  (music / "tail.wav").unlink()
  read_files.clear()
  assert _embed(made, *flags, out=out) == errors.EXIT_FAILED
  assert read_files == ["broken.mp3"]
  assert song_table.read_table(out).ids == list(SONGS)[:-1]
  failures = json.loads(embedding_run.failures_path(out).read_text())
  assert [one["id"] for one in failures] == ["broken.mp3"]


@pytest.mark.parametrize(
  "kind", [[], pytest.param(["--per_patch"], marks=pytest.mark.long)]
)
def test_songs_that_could_not_be_read_are_tried_again_where_nothing_else_is_new(
  made, tmp_path, capsys, monkeypatch, kind
):
  music, out = tmp_path / "music", tmp_path / "music.parquet"
  for number, name in enumerate(("a.wav", "b.wav", "c.wav")):
    tiny_library.write_song(music / name, 300.0 + number, seconds=5.0)
  flags, read = [f"--audio={music}", BATCH, *kind], decode.feature_blocks
  failing = ["b.wav", "c.wav"]

  def refused(path, *args, **kwargs):
    if pathlib.Path(path).name in failing:
      raise errors.InputError("the disk does not answer")
    return read(path, *args, **kwargs)

  monkeypatch.setattr(decode, "feature_blocks", refused)
  assert _embed(made, *flags, out=out) == errors.EXIT_FAILED
  before, inode = out.read_bytes(), out.stat().st_ino
  assert _embed(made, *flags, out=out) == errors.EXIT_FAILED
  assert (out.read_bytes(), out.stat().st_ino) == (before, inode)
  printed = capsys.readouterr().out
  assert f"1 songs, 1 patches; {out} stays as it was" in printed
  assert "2 songs cannot be read:\n" in printed
  failing.remove("b.wav")
  assert _embed(made, *flags, out=out) == errors.EXIT_FAILED
  assert "1 are new or changed, 1 are as they were" in capsys.readouterr().out
  failing.clear()
  assert not _embed(made, *flags, out=out)
  assert parquet.read_table(out)["id"].to_pylist() == [
    "a.wav",
    "b.wav",
    "c.wav",
  ]
  assert json.loads(embedding_run.failures_path(out).read_text()) == []
  assert not _embed(made, *flags, out=out)
  assert "nothing to do" in capsys.readouterr().out
