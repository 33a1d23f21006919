"""Tests of the index beside a table, and of python -m pcl_jax.index."""

import sys

import numpy as np
import pytest

from pcl_jax import index
from pcl_jax.common import errors
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.embedding.tables import row_index
from pcl_jax.embedding.tables import search
from pcl_jax.embedding.tables import song_table
from tests.support import full_disk
from tests.support.tiny import tiny_table


@pytest.fixture
def path(tmp_path):
  path = tmp_path / "music.parquet"
  tiny_table.write(path, silent=[4])
  return path


@pytest.fixture
def read(monkeypatch) -> list[int]:
  """How many times vectors were read from a table."""
  times, batches = [], embedding_table.TableFile.vector_batches

  def watched(self):
    times.append(1)
    return batches(self)

  monkeypatch.setattr(embedding_table.TableFile, "vector_batches", watched)
  return times


def test_an_index_takes_the_place_of_the_vectors(path, read, capsys):
  before = song_table.read_table(path)
  expected = before.nearest(before.vectors[7], 10, without=7)
  index.main([f"--embeddings={path}"])
  read.clear()
  table = song_table.read_table(path)
  found = table.nearest(before.vectors[7], 10, without=7)
  assert not read  # Of the table's vectors, none.
  np.testing.assert_array_equal(found.rows, expected.rows)
  np.testing.assert_array_equal(table.rows.unit, search.unit(before.vectors))
  with pytest.raises(ValueError, match="read-only"):
    table.rows.unit[0] = 0
  np.testing.assert_array_equal(table.vectors, before.vectors)
  capsys.readouterr()
  index.main([f"--embeddings={path}"])
  assert "nothing to do" in capsys.readouterr().out


def test_an_index_that_finds_no_room_is_one_message(tmp_path, capsys):
  """A mapped file without room would kill the process."""
  path = tmp_path / "music.parquet"
  tiny_table.write(path, songs=300)
  with full_disk.at(4096), pytest.raises(SystemExit):
    errors.run_command(lambda: index.main([f"--embeddings={path}"]))
  said = capsys.readouterr().err
  assert said.startswith("error: ") and "music.parquet.index" in said
  assert not list(row_index.folder_of(path).iterdir())


def test_the_index_of_another_table_is_not_taken(path, read, capsys):
  index.main([f"--embeddings={path}"])
  (old,) = row_index.folder_of(path).iterdir()
  table = tiny_table.write(path, seed=1)
  np.testing.assert_array_equal(table.rows.unit, search.unit(table.vectors))
  assert "music.parquet.index is of another state" in capsys.readouterr().err
  index.main([f"--embeddings={path}"])
  (new,) = row_index.folder_of(path).iterdir()
  assert new != old
  again = song_table.read_table(path)
  np.testing.assert_array_equal(again.rows.unit, table.rows.unit)


def test_a_table_that_was_replaced_meanwhile_is_read_again(path):
  table = song_table.read_table(path)
  tiny_table.write(path, seed=1)
  with pytest.raises(errors.InputError, match="changed after it was read"):
    table.nearest(np.ones(tiny_table.LENGTH, np.float32), 3)


def test_what_cannot_be_an_index_is_refused(path, tmp_path):
  index.main([f"--embeddings={path}"])
  (file,) = row_index.folder_of(path).iterdir()
  file.write_bytes(file.read_bytes()[:-8])
  with pytest.raises(errors.InputError, match="rows_.*npy cannot be used"):
    song_table.read_table(path).rows.unit  # noqa: B018
  index.main([f"--embeddings={path}", "--force"])
  song_table.read_table(path).rows.unit  # noqa: B018
  empty = tiny_table.write(tmp_path / "empty.parquet", songs=0)
  with pytest.raises(errors.InputError, match="has no songs"):
    index.main([f"--embeddings={empty.path}"])
  vectors = np.ones((3, 4))
  vectors[1, 2] = np.nan
  odd = tiny_table.write(tmp_path / "odd.parquet", vectors=vectors)
  with pytest.raises(errors.InputError, match="row 1 of .*not finite"):
    index.main([f"--embeddings={odd.path}"])
  assert not list(row_index.folder_of(odd.path).iterdir())
  file = embedding_table.TableFile(odd.path)
  file.vector_batches = lambda: iter((vectors[:1], vectors[1:]))
  with pytest.raises(errors.InputError, match="row 1 of .*not finite"):
    row_index.write_rows(file)


def test_a_graph_that_is_missing_is_asked_for(path, monkeypatch):
  table = song_table.read_table(path)
  query = table.vectors[0]
  with pytest.raises(errors.InputError, match="index --embeddings=.* --graph"):
    table.nearest(query, 3, approximate=True)
  monkeypatch.setitem(sys.modules, "usearch.index", None)
  with pytest.raises(errors.InputError, match=r'install "pcl_jax\[index\]"'):
    index.main([f"--embeddings={path}", "--graph"])


def test_a_graph_finds_nearly_the_best(tmp_path):
  pytest.importorskip("usearch.index")
  rng = np.random.default_rng(0)
  vectors = rng.normal(size=(3000, 8)) @ rng.normal(size=(8, 32))
  path = tmp_path / "music.parquet"
  tiny_table.write(path, vectors=vectors, silent=[5])
  index.main([f"--embeddings={path}", "--graph"])
  table, hits = song_table.read_table(path), 0
  for row in range(50):
    query = table.vectors[row]
    found = table.nearest(query, 10, without=row, approximate=True)
    exact = table.nearest(query, 10, without=row)
    hits += len(np.intersect1d(found.rows, exact.rows))
    assert row not in found.rows and 5 not in found.rows
    assert (np.diff(found.scores) <= 0).all()
  assert hits >= 0.95 * 500


def test_an_index_follows_its_table_and_a_graph_is_called_old(path):
  assert row_index.follow(path) == []
  index.main([f"--embeddings={path}"])
  assert row_index.follow(path) == []
  (old,) = row_index.folder_of(path).iterdir()
  (old.parent / "graph_0.usearch").touch()
  table = tiny_table.write(path, seed=1)
  made, left = row_index.follow(path)
  assert "rows_" in made and "--graph makes it again" in left
  np.testing.assert_array_equal(
    row_index.open_rows(embedding_table.TableFile(path)),
    search.unit(table.vectors),
  )
  assert not old.exists()


def test_no_index_is_made_where_none_was_asked_for(path):
  row_index.folder_of(path).mkdir()
  assert row_index.follow(path) == []
  assert not list(row_index.folder_of(path).iterdir())


@pytest.mark.parametrize("content", [b"", b"no graph", None])
def test_a_damaged_graph_is_refused(path, content):
  pytest.importorskip("usearch.index")
  index.main([f"--embeddings={path}", "--graph"])
  (file,) = row_index.folder_of(path).glob("graph_*")
  whole = file.read_bytes()
  file.write_bytes(whole[: len(whole) // 2] if content is None else content)
  table = song_table.read_table(path)
  with pytest.raises(errors.InputError, match="graph_.* cannot be used"):
    table.nearest(table.vectors[0], 3, approximate=True)
