"""Tests of pcl_jax.embedding.audio_sources: data sets that have changed."""

import json

from pyarrow import parquet

from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from pcl_jax.embedding.tables import song_table
from pcl_jax.library import music_files
from tests.support import music_run

BATCH = music_run.BATCH
_embed = music_run.embed


def test_a_data_set_that_has_grown_is_embedded_as_far_as_it_is_new(
  made, data, tmp_path, monkeypatch
):
  store = song_store.SongStore(data / song_store.FILE_NAME)
  ids = store.song_ids.tolist()
  meta = [
    {"id": ids[0], "song_name": "One", "artist_name_basket": ["A", "B"]},
    {"id": ids[2], "song_name": "Two", "artist_name_basket": []},
  ]
  (data / "kakao_meta").mkdir()
  (data / "kakao_meta" / "song_meta.json").write_text(json.dumps(meta))
  smaller = tmp_path / "smaller"
  smaller.mkdir()
  writer = song_writer.SongWriter(smaller / song_store.FILE_NAME)
  writer.add((i, store.read_song(row)) for row, i in enumerate(ids) if row % 3)
  writer.finish({})
  out = tmp_path / "data.parquet"
  assert not _embed(made, f"--data={smaller}", BATCH, out=out)
  read, songs = song_store.SongStore.read_song, []

  def watched(self, position):
    songs.append(position)
    return read(self, position)

  monkeypatch.setattr(song_store.SongStore, "read_song", watched)
  assert not _embed(made, f"--data={data}", BATCH, out=out)
  assert sorted(songs) == list(range(0, 60, 3))  # Threads read them.
  whole = tmp_path / "whole.parquet"
  assert not _embed(made, f"--data={data}", BATCH, out=whole)
  assert parquet.read_table(out) == parquet.read_table(whole)
  names = song_table.read_table(out).names
  assert names == ("A, B - One", "", "Two") + 57 * ("",)


def test_paths_and_labels_follow_a_data_set_whose_songs_are_the_same(
  made, data, tmp_path, monkeypatch, capsys
):
  ids = song_store.SongStore(data / song_store.FILE_NAME).song_ids.tolist()
  out = tmp_path / "data.parquet"
  assert not _embed(made, f"--data={data}", BATCH, out=out)
  read = []
  monkeypatch.setattr(song_store.SongStore, "read_song", read.append)
  content = {"audio_dir": "/music", "ids": {"new/a.mp3": ids[0]}}
  (data / music_files.IDS).write_text(json.dumps(content))
  assert not _embed(made, f"--data={data}", BATCH, out=out)
  assert song_table.read_table(out).paths[:2] == ["/music/new/a.mp3", ""]
  (data / "kakao_meta").mkdir()
  meta = [{"id": ids[1], "song_name": "One", "artist_name_basket": ["Ann"]}]
  (data / "kakao_meta" / "song_meta.json").write_text(json.dumps(meta))
  assert not _embed(made, f"--data={data}", BATCH, out=out)
  table = song_table.read_table(out)
  assert table.names[:2] == ["", "Ann - One"]
  assert table.facts.artist_names(1) == ["Ann"] and not read
  capsys.readouterr()
  assert not _embed(made, f"--data={data}", BATCH, out=out)
  assert "nothing to do" in capsys.readouterr().out
