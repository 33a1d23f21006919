"""From a trained run to embeddings, search, all tasks and a comparison."""

import functools
import json
import pathlib

import numpy as np
from pyarrow import parquet
import pytest

from pcl_jax import embed
from pcl_jax import evaluate
from pcl_jax import similar
from pcl_jax.data import dataset
from pcl_jax.embedding.tables import song_table
from pcl_jax.evaluation import registry
from pcl_jax.evaluation import report
from pcl_jax.evaluation.retrieval import precision_at_k
from pcl_jax.evaluation.tagging import probe_training
from pcl_jax.pages import report_page
from preprocessing.tagging import gtzan
from preprocessing.tagging import preparation
from tests.support import quick_backbone
from tests.support import quick_run
from tests.support.tiny import tiny_tagging

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROW = "trained (SS)"
GTZAN = ("gtzan-filtered-linear", "gtzan-filtered-mlp")


@pytest.fixture
def runs(tmp_path, smoke_sample, monkeypatch):
  """Two runs that differ in their seed; probes are few and stop soon."""
  quick_backbone.register(monkeypatch)
  few = functools.partial(
    probe_training.Search, rates=(1e-3, 1e-2), decays=(0.0,), rounds=5
  )
  monkeypatch.setattr(probe_training, "Search", few)
  folders = [tmp_path / "a", tmp_path / "b"]
  for seed, folder in enumerate(folders):
    quick_run.train_epoch(folder, smoke_sample, seed=seed)
  return folders


@pytest.fixture
def gtzan_set(tmp_path, monkeypatch) -> pathlib.Path:
  """A prepared set of 30 clips of ten genres."""
  lists, audio = tiny_tagging.make_gtzan(tmp_path / "gtzan")
  monkeypatch.setattr(gtzan, "PUBLISHED", 30)
  clips = preparation.read_lists("gtzan", lists)
  preparation.prepare(clips, audio, tmp_path / "prepared")
  return tmp_path / "prepared"


def _check_embeddings(workdir, data, out, capsys) -> song_table.Table:
  """Embeds the data set, looks a song up in the table; returns the table."""
  flags = [f"--workdir={workdir}", f"--data={data}", f"--out={out}"]
  assert not embed.main(flags)
  table = song_table.read_table(out)
  capsys.readouterr()
  similar.main([f"--embeddings={out}", f"--query={table.ids[7]}", "-k=3"])
  printed = capsys.readouterr().out
  unit = table.vectors / np.linalg.norm(table.vectors, axis=1, keepdims=True)
  cosines = unit @ unit[7]
  cosines[7] = -1
  best = int(cosines.argmax())
  rows = map(str.split, printed.splitlines())
  first = next(row for row in rows if row[:1] == ["1"])
  assert float(first[1]) == pytest.approx(cosines[best], abs=1e-4)
  assert first[2] == table.ids[best]
  return table


def _check_results(workdir, table: song_table.Table, data) -> list[str]:
  """Checks that nothing is missing; returns what was measured."""
  results = json.loads((workdir / report.FILE_NAME).read_text())
  assert list(results["tasks"]) == [*registry.TASKS, *GTZAN]
  measured = []
  for name, rows in results["tasks"].items():
    row = rows[ROW]
    if "not_given" in row:
      assert row["not_given"], name
      continue
    measured.append(name)
    assert row["metrics"] and row["settings"], name
    items = parquet.read_table(workdir / report.FOLDER / f"{name}.parquet")
    assert len(items) > 0, name
  catalogue = dataset.DataSet(data).catalogue
  expected = precision_at_k.precisions(catalogue, table.vectors)
  assert results["precision_at_5"][ROW] == expected
  assert all(one["passed"] or one["expected"] for one in results["checks"])
  made = results["certificate"]
  assert made["checkpoint"]["encoder_sha256"] == table.about["weights_sha256"]
  assert made["trained_on"]["same_data"]
  return measured


@pytest.mark.long
def test_a_run_is_embedded_searched_measured_by_all_tasks_and_compared(
  runs, gtzan_set, smoke_sample, tmp_path, capsys
):
  out = tmp_path / "songs.parquet"
  table = _check_embeddings(runs[0], smoke_sample, out, capsys)
  for workdir in runs:
    flags = [f"--workdir={workdir}", f"--tasks={','.join(registry.TASKS)}"]
    evaluate.main([*flags, f"--tagging={gtzan_set}", "--verbose"])
  printed = capsys.readouterr().out
  measured = _check_results(runs[0], table, smoke_sample)
  assert {*registry.TASKS, *GTZAN} == set(measured)
  for name in measured:
    assert f"({name})" in printed
  evaluate.main(["--compare", *map(str, runs)])
  compared = capsys.readouterr().out.splitlines()
  named = {line.split()[0] for line in compared if str(runs[1]) in line}
  assert named == set(measured)
  pytest.importorskip("vl_convert")
  pytest.importorskip("jinja2")
  page = report_page.write(runs)
  assert page.songs == page.heard == len(table.ids)
  assert not page.notes
