"""Tests of pcl_jax.evaluation.vector_tables and of evaluation on such files."""

import json
import shutil
import tracemalloc

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import pytest

from pcl_jax import evaluate
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import song_store
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.evaluation import compare
from pcl_jax.evaluation import report
from pcl_jax.evaluation import vector_tables
from tests.support.tiny import tiny_data

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp("vectors") / "data"
  folder.mkdir()
  catalogue = tiny_data.tiny_catalogue()
  tiny_data.tiny_store(folder / song_store.FILE_NAME, catalogue, 256)
  catalogue.save(folder)
  return dataset.DataSet(folder)


def _vectors(seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).standard_normal((60, 5))


def _write(path, ids, vectors):
  """Writes a table as other programs do; returns its path."""
  vectors = [list(map(float, one)) for one in vectors]
  parquet.write_table(pa.table({"id": ids, "vector": vectors}), path)
  return path


def test_rows_are_found_by_number_by_text_and_in_any_order(data, tmp_path):
  ids, vectors = data.catalogue.song_ids, _vectors()
  order = np.random.default_rng(1).permutation(60)
  wanted = vectors.astype(np.float32)
  for named in (ids[order].tolist(), list(map(str, ids[order]))):
    path = _write(tmp_path / "a.parquet", named, vectors[order])
    np.testing.assert_array_equal(vector_tables.read(path, data).rows, wanted)
  halves = pa.FixedSizeListArray.from_arrays(
    pa.array(vectors.astype(np.float16).ravel()), 5
  )
  parquet.write_table(pa.table({"id": ids, "vector": halves}), path)
  found = vector_tables.read(path, data).rows
  np.testing.assert_array_equal(found, vectors.astype(np.float16))


def test_the_vectors_of_a_table_are_held_once(data, tmp_path, monkeypatch):
  vectors = np.random.default_rng(0).standard_normal((60, 40_000), np.float32)
  path = tmp_path / "a.parquet"
  lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 40_000)
  ids = data.catalogue.song_ids
  parquet.write_table(pa.table({"id": ids, "vector": lists}), path)
  del lists
  monkeypatch.setattr(embedding_table, "_ROWS_AT_ONCE", 2)
  parts, before = embedding_table.column_parts, pa.total_allocated_bytes()
  held = []

  def watched(*args):
    for part in parts(*args):
      held.append(pa.total_allocated_bytes() - before)
      yield part

  monkeypatch.setattr(embedding_table, "column_parts", watched)
  tracemalloc.start()
  found = vector_tables.read(path, data).rows
  most = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  np.testing.assert_array_equal(found, vectors)
  assert most < 1.5 * found.nbytes
  assert len(held) == 30
  assert max(held) < found.nbytes / 2


def test_songs_of_a_library_are_found_by_their_paths(data, tmp_path):
  folder = shutil.copytree(data.directory, tmp_path / "data")
  numbers = data.catalogue.song_ids.tolist()
  names = {f"a/{number}.mp3": number for number in numbers}
  content = {"audio_dir": "/music", "ids": names}
  (folder / "song_ids.json").write_text(json.dumps(content))
  library, wanted = dataset.DataSet(folder), _vectors().astype(np.float32)
  for root in ("", "/music/"):
    ids = [f"{root}{name}" for name in names]
    path = _write(tmp_path / "a.parquet", ids, _vectors())
    np.testing.assert_array_equal(
      vector_tables.read(path, library).rows, wanted
    )
  path = _write(tmp_path / "a.parquet", ["x"] * 60, _vectors())
  with pytest.raises(errors.InputError, match="has x, the data set a/1"):
    vector_tables.read(path, library)


def test_what_is_of_no_use_is_counted(data, tmp_path):
  ids = [*data.catalogue.song_ids.tolist(), 10**6, 10**6 + 1]
  vectors = np.concatenate([_vectors(), np.ones((2, 5))])
  vectors[7] = 0
  found = vector_tables.read(_write(tmp_path / "a.pq", ids, vectors), data)
  assert [note.split()[0] for note in found.notes] == ["2", "1"]
  assert found.rows.shape == (60, 5)


def _bad_tables(ids):
  """Yields the columns of tables that cannot be used, and what is said."""
  vectors = _vectors().tolist()
  nan = [*vectors[:3], [1.0, float("nan"), 0, 0, 0], *vectors[4:]]
  yield ids, nan, f"1 of 60 vectors .*first that of song {ids[3]}"
  huge = [[1e300] * 5, *vectors[1:]]
  yield ids, huge, "1 of 60 vectors have numbers that are not finite"
  yield ids[1:], vectors[1:], f"lacks 1 of the 60 songs.*song {ids[0]}"
  twice = [*ids, ids[4]], [*vectors, vectors[0]]
  yield *twice, f"1 songs have several rows.*song {ids[4]} with 2"
  yield [10**6 + i for i in ids], vectors, "none of the 60 ids"
  yield [float(i) for i in ids], vectors, "column id is double"
  yield [None, *ids[1:]], vectors, "1 of 60 rows have no id"
  yield ids, [*vectors[:-1], [1.0]], f"song {ids[-1]} has 1 numbers and .* 5"
  yield ids, [*vectors[:-1], None], f"song {ids[-1]} has 0 numbers"
  yield ids, ["x"] * 60, "column vector is string"
  yield [], pa.array([], pa.list_(pa.float32())), "has no rows"


def test_bad_vectors_are_refused_with_the_rule_and_the_song(data, tmp_path):
  path = tmp_path / "a.parquet"
  cases = list(_bad_tables(data.catalogue.song_ids.tolist()))
  for ids, vectors, said in cases:
    parquet.write_table(pa.table({"id": ids, "vector": vectors}), path)
    with pytest.raises(errors.InputError, match=said) as error:
      vector_tables.read(path, data)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
  parquet.write_table(pa.table({"id": [1], "embedding": [[1.0]]}), path)
  with pytest.raises(errors.InputError, match="no column vector; it has id"):
    vector_tables.read(path, data)
  path.write_bytes(b"no table")
  with pytest.raises(errors.InputError, match="cannot be read as a Parquet"):
    vector_tables.read(path, data)
  with pytest.raises(errors.InputError, match="is not a file"):
    vector_tables.read(tmp_path / "none.parquet", data)


def test_vectors_go_through_tasks_audits_and_tests_as_a_run_does(
  data, tmp_path, capsys
):
  ids, folder = data.catalogue.song_ids.tolist(), str(data.directory)
  cluster = np.eye(4)[np.arange(60) % 4] + 0.05 * _vectors()[:, :4]
  good = _write(tmp_path / "good.parquet", ids, cluster)
  bad = _write(tmp_path / "bad.parquet", ids, _vectors(3))
  tasks = "--tasks=sub_genre,hubs,collapse"
  for path, more in ((good, ["--name=clusters"]), (bad, ["--baselines"])):
    words = [f"--embeddings={path}", f"--data={folder}", tasks]
    evaluate.main([*words, *more, "--verbose"])
  printed = capsys.readouterr().out
  assert "clusters" in printed
  assert "which songs clusters has learned from is not on record" in printed
  results = json.loads((tmp_path / "bad.evaluated/results.json").read_text())
  assert {"bad", "mean mel"} <= results["tasks"]["sub_genre"].keys()
  assert results["certificate"]["embeddings"]["path"] == str(bad)
  checks = {one["name"]: one["passed"] for one in results["checks"]}
  assert checks["copies"] is True
  assert checks["training data"] is None
  items = tmp_path / "good.evaluated" / report.FOLDER / "sub_genre.parquet"
  tests = data.catalogue.rows_of(catalogues.TEST)
  assert len(parquet.read_table(items)["song_id"].unique()) <= len(tests)
  evaluate.main(["--compare", str(bad), str(good), "--tasks=sub_genre"])
  printed = capsys.readouterr().out
  (line, *_) = [one for one in printed.splitlines() if "sub_genre" in one]
  assert "good.parquet" in line
  assert float(line.split()[5]) > 0.05
  good.with_suffix(".evaluated").rename(tmp_path / "moved")
  with pytest.raises(errors.InputError, match="--embeddings=.*good.parquet"):
    evaluate.main(["--compare", str(bad), str(good)])


def test_tables_whose_names_begin_alike_have_results_of_their_own(
  data, tmp_path, capsys
):
  ids, folder = data.catalogue.song_ids.tolist(), str(data.directory)
  cluster = np.eye(4)[np.arange(60) % 4] + 0.05 * _vectors()[:, :4]
  tables = [
    str(_write(tmp_path / name, ids, rows))
    for name, rows in (("e.v1", cluster), ("e.v2", _vectors(3)))
  ]
  for path in tables:
    evaluate.main([f"--embeddings={path}", f"--data={folder}", "--tasks=hubs"])
  assert (tmp_path / "e.v1.evaluated" / report.FILE_NAME).exists()
  assert (tmp_path / "e.v2.evaluated" / report.FILE_NAME).exists()
  _write(tmp_path / "e.v2", ids, _vectors(4))
  with pytest.raises(errors.InputError, match="written again after it was"):
    evaluate.main(["--compare", *tables])


def test_vectors_need_their_data_set_and_a_name_of_their_own(data, tmp_path):
  path = _write(
    tmp_path / "a.parquet", data.catalogue.song_ids.tolist(), _vectors()
  )
  for words in ([f"--embeddings={path}"], ["--workdir=x", "--name=a"]):
    with pytest.raises(SystemExit):
      evaluate.main(words)
  with pytest.raises(errors.InputError, match="name of a baseline"):
    evaluate.main(
      [f"--embeddings={path}", f"--data={data.directory}", "--name=mean mel"]
    )


def test_pooled_results_of_a_table_written_again_are_refused(tmp_path):
  """Those of `--folds` have a certificate for each fold."""
  path = _write(tmp_path / "e.parquet", [1, 2], _vectors()[:2])
  results = {"tasks": {}, "trained": "e", "fingerprint": "f"}
  certificate = {"embeddings": {"sha256": storage.sha256(path)}}
  folder = report.folder_of(path)
  folder.mkdir()
  storage.write_json(
    folder / report.FILE_NAME,
    results | {"folds": [{"certificate": certificate}, {}]},
  )
  assert compare.read(path).results["trained"] == "e"
  _write(path, [1, 2], _vectors(4)[:2])
  with pytest.raises(errors.InputError, match="written again after it was"):
    compare.read(path)
