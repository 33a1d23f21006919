"""Tests of pcl_jax.evaluation.folds and preprocessing.data_folds."""

import dataclasses
import json
import os
import shutil
import types

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import pytest

from pcl_jax import evaluate
from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import ragged
from pcl_jax.data import song_store
from pcl_jax.embedding import encoder_loading
from pcl_jax.evaluation import evaluator
from pcl_jax.evaluation import folds
from pcl_jax.evaluation import report
from preprocessing import data_folds
from preprocessing.vectors import genre_words
from tests.support.tiny import tiny_data

pytestmark = pytest.mark.usefixtures("quick_compilation")

FOLDS = 3


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
  """A data set of 15 artists, its folds, and a table of vectors."""
  root = tmp_path_factory.mktemp("folds")
  data = root / "data"
  data.mkdir()
  artists = ragged.Ragged.from_lists([[i // 4] for i in range(60)])
  made = dataclasses.replace(tiny_data.tiny_catalogue(), artists=artists)
  tiny_data.tiny_store(data / song_store.FILE_NAME, made, 256)
  made.save(data)
  flags = [f"--data={data}", f"--out={data}-folds", f"--folds={FOLDS}"]
  data_folds.main(flags)
  rng = np.random.default_rng(0)
  vectors = np.eye(15)[np.arange(60) // 4] + 3 * rng.random((60, 15))
  table = {"id": made.song_ids.tolist(), "vector": list(vectors)}
  parquet.write_table(pa.table(table), root / "table.parquet")
  return root


def _found(root, fold):
  return evaluator.evaluate_table(
    root / "table.parquet", str(root / "data-folds" / str(fold)), tasks="artist"
  )


def test_folds_are_data_sets_whose_test_songs_are_all_songs(divided):
  tested = []
  for number in range(FOLDS):
    data = dataset.DataSet(divided / "data-folds" / str(number))
    tested += data.catalogue.rows_of(catalogues.TEST).tolist()
    learned = data.catalogue.artists.select(
      np.flatnonzero(data.catalogue.learned)
    )
    mine = data.catalogue.artists.select(
      data.catalogue.rows_of(catalogues.TEST)
    )
    assert not np.intersect1d(learned.values, mine.values).size
    pairs = data.catalogue.validation_pairs["Playlist"]
    parts = data.catalogue.split[pairs]
    assert (parts == catalogues.VALIDATION).all()
  assert sorted(tested) == list(range(60))
  with pytest.raises(errors.InputError, match="exists"):
    data_folds.make(divided / "data", divided / "data-folds")


def test_vectors_of_a_fold_are_made_as_those_of_the_data_set(
  divided, tmp_path, monkeypatch
):
  np.save(tmp_path / dataset.GENRE_VECTORS, np.zeros((5, 16), np.float32))
  how = {"seed": 3, "epochs": 20, "dims": 16}
  content = {"settings": how | {"sources": "of the catalogue"}}
  storage.write_json(
    (tmp_path / dataset.GENRE_VECTORS).with_suffix(".json"), content
  )
  made = []
  monkeypatch.setitem(
    data_folds._MAKERS, dataset.GENRE_VECTORS, lambda _, **how: made.append(how)
  )
  data = types.SimpleNamespace(directory=tmp_path)
  data_folds._make_vectors(data, tmp_path / "fold")
  assert made == [how]


def test_a_fold_that_may_learn_no_genre_is_made_without_and_that_is_said(
  divided, tmp_path, capsys
):
  whole = catalogues.load(divided / "data")
  genres = [[1] if i < 4 else [] for i in range(60)]  # Of one artist alone.
  made = dataclasses.replace(whole, genres=ragged.Ragged.from_lists(genres))
  data = tmp_path / "data"
  shutil.copytree(divided / "data", data)
  made.save(data)
  genre_words.make_genre_vectors(data, dims=4)
  folds_of = data_folds.make(data, tmp_path / "folds", folds=FOLDS)
  without = [
    one.name for one in folds_of if not (one / dataset.GENRE_VECTORS).exists()
  ]
  assert len(without) == 1
  said = capsys.readouterr().out
  assert f"fold {without[0]} is without genre_vectors.npy: " in said
  assert said.count("is without") == 1


def test_queries_of_all_folds_are_measured_together(divided, capsys):
  evaluate.main(
    [f"--embeddings={divided / 'table.parquet'}", "--folds",
     f"--data={divided / 'data-folds'}",
     "--tasks=artist,hubs,playlist_continuation,collapse", "--verbose"]
  )  # fmt: skip
  printed = capsys.readouterr().out
  assert f"Queries of {FOLDS} folds together" in printed
  folder = divided / "table.evaluated"
  results = json.loads((folder / report.FILE_NAME).read_text())
  parts = [_found(divided, number) for number in range(FOLDS)]
  row = results["tasks"]["artist"]["table"]
  metric = row["metrics"]["average_precision"]
  values = [one.items["artist"]["table"]["average_precision"] for one in parts]
  assert metric["items"] == 60 == sum(map(len, values))
  assert metric["value"] == pytest.approx(np.concatenate(values).mean())
  low, high = metric["interval_95"]
  assert low < metric["value"] < high
  assert row["settings"]["folds"] == FOLDS
  assert results["tasks"]["artist"]["chance"]["metrics"]
  look_up = results["precision_at_5"]["table"]["artist"]
  assert look_up["queries"] == 60
  skewness = results["tasks"]["hubs"]["table"]["metrics"]
  assert list(skewness) == ["never_returned"]  # The other is no mean.
  items = parquet.read_table(folder / report.FOLDER / "artist.parquet")
  assert len(items) == 2 * 60
  lists = parquet.read_table(
    folder / report.FOLDER / "playlist_continuation.parquet"
  ).to_pylist()
  names = [one["playlist"] for one in lists if one["representation"] == "table"]
  assert len(names) == len(set(names)) > 30
  checks = {one["name"]: one["passed"] for one in results["checks"]}
  assert checks["copies"] and checks["artists"]
  path = str(divided / "table.parquet")
  evaluate.main(["--compare", path, path, "--tasks=artist"])
  assert "+0.000" in capsys.readouterr().out


def test_runs_of_all_folds_are_evaluated_and_pooled(
  divided, tmp_path, monkeypatch
):
  def measure(workdir, data_dir, **how):
    del data_dir, how
    return _found(divided, int(workdir.name))

  monkeypatch.setattr(evaluator, "evaluate", measure)
  monkeypatch.setattr(folds, "check_runs", lambda *_: None)
  flags = [f"--workdir={tmp_path}", "--folds"]
  (tmp_path / "0").mkdir()
  for names in ("has 0. ", "has 0, 2. "):
    with pytest.raises(errors.InputError, match=names):
      evaluate.main(flags)
    (tmp_path / "2").mkdir(exist_ok=True)
  (tmp_path / "1").mkdir()
  evaluate.main(flags)
  results = json.loads((tmp_path / report.FILE_NAME).read_text())
  assert results["tasks"]["artist"]["table"]["metrics"]["r_precision"]
  for number in range(FOLDS):
    assert (tmp_path / str(number) / report.FILE_NAME).exists()


def test_runs_of_folds_are_looked_at_before_the_first_is_measured(
  divided, tmp_path, monkeypatch
):
  measured = []
  monkeypatch.setattr(
    evaluator, "evaluate", lambda *given, **_: measured.append(given)
  )
  places = {str(i): str(divided / "data-folds" / str(i)) for i in range(FOLDS)}
  places["2"] = places["1"]

  def load(workdir, which):
    if which == "latest":
      raise errors.InputError(f"{workdir} holds no finished checkpoint yet")
    config = {"data": {"dir": places[workdir.name]}}
    feature = melspectrogram.SETTINGS.as_dict()
    return None, {"config": config, "feature": feature}

  monkeypatch.setattr(encoder_loading, "load_network", load)
  for name in places:
    (tmp_path / name).mkdir()
  flags = [f"--workdir={tmp_path}", "--folds"]
  with pytest.raises(
    errors.InputError, match="1 and .*2 were trained on the s"
  ):
    evaluate.main(flags)
  with pytest.raises(errors.InputError, match="no finished checkpoint"):
    evaluate.main([*flags, "--checkpoint=latest"])
  assert not measured


def test_results_that_could_not_be_written_are_not_measured(
  divided, tmp_path, monkeypatch
):
  measured, checked = [], []
  monkeypatch.setattr(
    evaluator, "evaluate_table", lambda *given, **_: measured.append(given)
  )

  def refuse(path, remedy):
    checked.append(path)
    raise errors.InputError(f"{path} cannot be written: {remedy}.")

  monkeypatch.setattr(storage, "check_writable", refuse)
  table = divided / "table.parquet"
  with pytest.raises(errors.InputError, match="so give a copy of it"):
    evaluate.main([f"--embeddings={table}", f"--data={divided / 'data'}"])
  assert not measured and checked[0].parent in (
    table.parent, report.folder_of(table)
  )  # fmt: skip


def test_a_look_up_that_some_folds_lack_is_pooled_over_the_others():
  genre = {"precision_at_5": 0.6, "queries": 10}
  artist = {"precision_at_5": 0.4, "queries": 90}
  tables = [{"a": {"genre": genre}}, {"a": {"artist": artist, "genre": genre}}]
  for given in (tables, tables[::-1]):
    pooled = folds._pool_precision(given)["a"]
    found = {
      k: (one["precision_at_5"], one["queries"]) for k, one in pooled.items()
    }
    assert found == {"artist": (0.4, 90), "genre": (0.6, 20)}


def test_lists_of_different_lengths_are_not_pooled():
  given = [
    (i, {"settings": {"neighbours": k}, "metrics": {"recall": 0.5}})
    for i, k in enumerate((100, 20, 100))
  ]
  found, items = folds._pool_row(given, [], {})
  assert "(20, 100)" in found["not_given"] and not items
  assert found["not_given"].endswith("give --neighbours=20")


def test_validation_songs_of_folds_are_not_pooled(divided, capsys):
  with pytest.raises(SystemExit):
    evaluate.main(
      [f"--embeddings={divided / 'table.parquet'}", "--folds",
       f"--data={divided / 'data-folds'}", "--split=validation"]
    )  # fmt: skip
  assert "leave out --split" in capsys.readouterr().err


def test_a_table_of_any_name_has_results_of_each_fold(divided, tmp_path):
  table = tmp_path / os.fsdecode(b"caf\xe9.parquet")
  shutil.copyfile(divided / "table.parquet", table)
  evaluate.main(
    [f"--embeddings={table}", f"--data={divided / 'data-folds'}", "--folds",
     "--tasks=artist,collapse"]
  )  # fmt: skip
  folder = report.folder_of(table)
  for number in range(FOLDS):
    one = storage.read_json(folder / str(number) / report.FILE_NAME)
    assert (
      "effective_rank" in one["tasks"]["collapse"][one["trained"]]["metrics"]
    )
  whole = storage.read_json(folder / report.FILE_NAME)
  assert whole["trained"] == "caf\\xe9"
  evaluate.main(["--compare", str(table), str(table), "--tasks=artist"])


def test_a_song_that_two_folds_ask_for_is_refused(divided):
  found = _found(divided, 0)
  with pytest.raises(errors.InputError, match="is a query in folds 0 and 1"):
    folds.pool([found, found])
