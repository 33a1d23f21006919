"""Tests of --shard: parts of a library, embedded apart, become one table."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.common import locks
from pcl_jax.embedding import embedding_run
from pcl_jax.embedding import embedding_shards
from pcl_jax.embedding.tables import embedding_table
from tests.support import music_run

BATCH, SONGS = music_run.BATCH, music_run.SONGS


def _embed(made, out: pathlib.Path, *flags: str) -> int | None:
  music = f"--audio={made / 'music'}"
  return music_run.embed(made, music, BATCH, *flags, out=out)


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory):
  """The table of one process."""
  out = tmp_path_factory.mktemp("whole") / "music.parquet"
  _embed(made, out)
  return embedding_table.read_rows(out)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shards_become_the_table_of_one_process(
  made, whole, tmp_path, capsys, order
):
  out = tmp_path / "music.parquet"
  for number in order[:-1]:
    assert not _embed(made, out, f"--shard={number}/3")
    assert not out.exists()
  missing = f"is made by the last shard; still missing: {order[-1]}"
  assert missing in capsys.readouterr().out
  assert not _embed(made, out, f"--shard={order[-1]}/3")
  assert "5 songs, 14 patches, padded" or capsys.readouterr().out
  assert embedding_table.read_rows(out).equals(whole, check_metadata=True)
  assert {one.name for one in tmp_path.iterdir()} == {
    "music.parquet",
    "music.parquet.failures.json",
  }


def test_no_other_shard_takes_a_table_away_while_it_is_counted(
  made, tmp_path, monkeypatch
):
  out = tmp_path / "music.parquet"
  count, refused = embedding_run.report_of, []

  def counted(path, *args):
    monkeypatch.setattr(locks, "_WAIT_S", 0.0)
    try:
      with locks.hold(tmp_path / "music.parquet.joining", "another"):
        refused.append(False)
    except errors.InputError:
      refused.append(True)
    return count(path, *args)

  monkeypatch.setattr(embedding_run, "report_of", counted)
  for number in (1, 1, 2):
    assert not _embed(made, out, f"--shard={number}/2")
  assert refused == [True] * 4


def test_a_shard_whose_table_another_has_joined_tells_of_all(
  made, tmp_path, monkeypatch, capsys
):
  out = tmp_path / "music.parquet"
  assert not _embed(made, out, "--shard=1/2")
  embed = embedding_run.embed_source

  def joined_meanwhile(*args, **kwargs):
    report = embed(*args, **kwargs)
    assert not _embed(made, out, "--shard=1/2")
    return report

  monkeypatch.setattr(embedding_run, "embed_source", joined_meanwhile)
  capsys.readouterr()
  assert not _embed(made, out, "--shard=2/2")
  printed = capsys.readouterr().out
  assert printed.count(f"5 songs, 14 patches, written to {out}") == 2
  assert "missing" not in printed


def test_more_shards_than_songs_are_a_table_all_the_same(made, whole, tmp_path):
  out = tmp_path / "music.parquet"
  for number in range(1, 8):
    assert not _embed(made, out, f"--shard={number}/7")
  assert embedding_table.read_rows(out).equals(whole, check_metadata=True)


def test_a_shard_that_is_there_is_not_embedded_again(made, tmp_path, capsys):
  out = tmp_path / "music.parquet"
  _embed(made, out, "--shard=1/2")
  path = embedding_shards.Shard(1, 2).path(out)
  before = path.stat()
  assert not _embed(made, out, "--shard=1/2")
  printed = capsys.readouterr().out
  assert "is there already; --force makes it again" in printed
  assert "still missing: 2" in printed
  assert path.stat() == before


def test_failures_of_all_shards_are_listed(made, tmp_path):
  music = shutil.copytree(made / "music", tmp_path / "music")
  for name in ("a/one sample.wav", "tail.wav"):
    (music / name).unlink()
    (music / name).symlink_to("nowhere.wav")
  out, of_all = tmp_path / "music.parquet", f"--audio={music}"
  codes = [
    music_run.embed(made, of_all, BATCH, f"--shard={number}/5", out=out)
    for number in range(1, 6)
  ]
  assert codes == [1, None, None, None, 1]
  failures = json.loads(embedding_run.failures_path(out).read_text())
  assert [one["id"] for one in failures] == ["a/one sample.wav", "tail.wav"]
  assert len(embedding_table.read_rows(out)) == 3


def test_a_shard_of_other_songs_is_not_joined(made, tmp_path):
  music = shutil.copytree(made / "music", tmp_path / "music")
  out, of_all = tmp_path / "music.parquet", f"--audio={music}"
  music_run.embed(made, of_all, BATCH, "--shard=1/2", out=out)
  (music / "b" / "song.WAV").rename(music / "b" / "tune.wav")
  with pytest.raises(errors.InputError, match="shard_1_of_2 is of other songs"):
    music_run.embed(made, of_all, BATCH, "--shard=2/2", out=out)
  assert not out.exists()
  embedding_shards.Shard(1, 2).path(out).write_bytes(b"cut")
  with pytest.raises(errors.InputError, match="shard_1_of_2 cannot be read"):
    music_run.embed(made, of_all, BATCH, "--shard=2/2", out=out)


def test_a_table_that_is_there_is_not_updated_by_shards(made, tmp_path):
  music = shutil.copytree(made / "music", tmp_path / "music")
  out, of_all = tmp_path / "music.parquet", f"--audio={music}"
  music_run.embed(made, of_all, BATCH, out=out)
  before = out.read_bytes()
  assert not music_run.embed(made, of_all, BATCH, "--shard=1/2", out=out)
  (music / "tail.wav").unlink()
  with pytest.raises(errors.InputError, match="up to date without --shard"):
    music_run.embed(made, of_all, BATCH, "--shard=1/2", out=out)
  assert out.read_bytes() == before


@pytest.mark.parametrize(
  "text", ["0/2", "3/2", "1", "1/0", "-1/2", "a/b", "1/2/3"]
)
def test_what_is_no_shard_is_refused(made, tmp_path, text):
  with pytest.raises(
    errors.InputError, match=f"--shard is '{text}'.*=2/8|1 to"
  ):
    _embed(made, tmp_path / "music.parquet", f"--shard={text}")


def test_the_same_shard_is_not_made_twice_at_once(made, tmp_path):
  out = tmp_path / "music.parquet"
  path = embedding_shards.Shard(1, 2).path(out)
  with (
    locks.hold(path.with_name(path.name + embedding_run.PARTS), "another"),
    pytest.raises(errors.InputError, match="is being written to by"),
  ):
    _embed(made, out, "--shard=1/2")


@pytest.mark.parametrize("count", [0, 1, 5, 64, 1000])
@pytest.mark.parametrize("of", [1, 3, 7, 64])
def test_shards_have_each_song_once_and_as_many(count, of):
  shards = [
    embedding_shards.Shard(n, of).songs(count) for n in range(1, of + 1)
  ]
  assert sum(shards, []) == list(range(count))
  assert np.ptp([len(one) for one in shards]) <= 1
