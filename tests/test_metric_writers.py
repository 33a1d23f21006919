"""Tests of pcl_jax.metric_writers."""

import json

from pcl_jax import metric_writers
from tests import event_files


def _rows(workdir):
  lines = (workdir / metric_writers.FILE_NAME).read_text().splitlines()
  return [json.loads(line) for line in lines]


def _write(workdir, first_step, steps):
  writer = metric_writers.MetricWriter(workdir, first_step)
  for step in steps:
    writer.write("train", step, {"total": step / 2})
  writer.close()


def test_rows_are_json_one_a_line_and_there_before_the_writer_closes(tmp_path):
  writer = metric_writers.MetricWriter(tmp_path, 0)
  writer.write("train", 1, {"epoch": 0, "total": 0.1})
  writer.write("validation", 1, {"total": 1e-30})
  assert _rows(tmp_path) == [
    {"kind": "train", "step": 1, "epoch": 0, "total": 0.1},
    {"kind": "validation", "step": 1, "total": 1e-30},
  ]
  writer.close()


def test_tensorboard_gets_the_same_numbers(tmp_path):
  _write(tmp_path, 0, [1, 2, 3])
  assert event_files.scalars(tmp_path / "tensorboard") == [
    ("train/total", step, step / 2) for step in (1, 2, 3)
  ]


def test_going_on_drops_the_rows_past_its_step_and_keeps_the_others(tmp_path):
  _write(tmp_path, 0, [1, 2, 3, 4])
  _write(tmp_path, 2, [3, 4, 5])
  assert [row["step"] for row in _rows(tmp_path)] == [1, 2, 3, 4, 5]
  _write(tmp_path, 0, [1])
  assert [row["step"] for row in _rows(tmp_path)] == [1]


def test_a_row_torn_by_a_kill_is_dropped(tmp_path):
  _write(tmp_path, 0, [1, 2])
  path = tmp_path / metric_writers.FILE_NAME
  whole = path.read_text()
  for torn in ('{"kind": "tra', whole.splitlines()[0], "\0\0\0"):
    path.write_text(whole + torn)
    _write(tmp_path, 2, [3])
    assert [row["step"] for row in _rows(tmp_path)] == [1, 2, 3]


def test_nothing_is_dropped_where_there_is_no_file(tmp_path):
  path = tmp_path / metric_writers.FILE_NAME
  metric_writers.drop_after(path, 3)
  assert not path.exists()
