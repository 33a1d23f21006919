"""Tests of pcl_jax.pages.run_records."""

import json

import numpy as np
import pytest

from pcl_jax.pages import run_records


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "config.json").write_text('{"seed": 0}')
  return tmp_path


def _write(folder, rows, more=""):
  lines = [json.dumps({"kind": "train", "epoch": 1} | row) for row in rows]
  (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n" + more)


def test_torn_lines_and_numbers_that_are_not_finite_are_counted(folder):
  rows = [{"step": 1, "total": None}, {"step": 2, "total": 3.0}]
  _write(folder, rows, '{"kind": "train", "st')
  record = run_records.read(folder)
  assert [row["step"] for row in record.rows["train"]] == [1, 2]
  assert record.metrics() == ["total"]
  first, second = record.notes
  assert first.startswith("1 lines of") and second.startswith("1 numbers of")


def test_a_long_run_has_the_means_of_neighbouring_rows(folder):
  values = np.random.default_rng(0).random(1000)
  _write(folder, [{"step": i, "total": v} for i, v in enumerate(values)])
  record = run_records.read(folder)
  rows = record.rows["train"]
  assert len(rows) == 334  # Of three rows each, and one.
  assert rows[0]["total"] == pytest.approx(values[:3].mean())
  assert rows[0]["step"] == 2 and rows[-1]["step"] == 999
  assert "mean of 3" in record.notes[0]


def test_a_table_of_vectors_has_no_curves(tmp_path):
  path = tmp_path / "other.parquet"
  path.touch()
  record = run_records.read(path)
  assert not record.metrics() and len(record.notes) == 1
