"""Tests of what a run writes down and prints."""

import errno
import json
import math
import os
import threading

import pytest
import tensorboardX
from tensorboardX import event_file_writer

from configs import common
from pcl_jax.training import metric_writers
from pcl_jax.training import trackers
from tests.support import event_files


def _rows(workdir):
  lines = (workdir / metric_writers.FILE_NAME).read_text().splitlines()
  return [json.loads(line) for line in lines]


def _writer(workdir, first_step=0, names=("tensorboard",)):
  config = common.get_config()
  config.trackers = names
  followers = trackers.open_all(config, workdir, first_step)
  return metric_writers.MetricWriter(workdir, first_step, followers)


def _write(workdir, first_step, steps):
  writer = _writer(workdir, first_step)
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
  for torn in (b'{"kind": "tra', whole.splitlines()[0].encode(), b"\0\xff"):
    path.write_bytes(whole.encode() + torn)
    _write(tmp_path, 2, [3])
    assert [row["step"] for row in _rows(tmp_path)] == [1, 2, 3]


def test_nothing_is_dropped_where_there_is_no_file(tmp_path):
  path = tmp_path / metric_writers.FILE_NAME
  metric_writers.drop_after(path, 3)
  assert not path.exists()


def test_what_is_not_finite_is_null_in_json_and_absent_from_curves(tmp_path):
  writer = _writer(tmp_path)
  writer.write("train", 1, {"total": math.nan, "other": 2.0})
  writer.close()
  text = (tmp_path / metric_writers.FILE_NAME).read_text()
  assert json.loads(text, parse_constant=pytest.fail)["total"] is None
  assert event_files.scalars(tmp_path / "tensorboard") == [
    ("train/other", 1, 2.0)
  ]


@pytest.mark.parametrize(
  "when", ["opening", "writing", "its thread", "closing"]
)
def test_a_dead_tracker_is_warned_of_once_and_no_row_is_lost(
  when, tmp_path, monkeypatch, capsys
):
  def fail(*_, **__):
    raise OSError("no space on the tracker")

  def after(act):
    # Else the library, at the end of the process, finds it half open.
    def acts_and_fails(*args, **kwargs):
      act(*args, **kwargs)
      fail()

    return acts_and_fails

  # That of its thread is printed by threading, and counts as a warning here.
  monkeypatch.setattr(threading, "excepthook", lambda _: None)
  written = event_file_writer.EventsWriter
  if when == "opening":
    monkeypatch.setattr(tensorboardX, "SummaryWriter", fail)
  others = set(threading.enumerate())
  writer = _writer(tmp_path)
  begun = set(threading.enumerate()) - others
  if when == "writing":
    does = tensorboardX.SummaryWriter.add_scalar
    monkeypatch.setattr(tensorboardX.SummaryWriter, "add_scalar", after(does))
  elif when == "its thread":
    monkeypatch.setattr(written, "write_event", fail)
    monkeypatch.setattr(written, "flush", fail)
  elif when == "closing":
    does = tensorboardX.SummaryWriter.close
    monkeypatch.setattr(tensorboardX.SummaryWriter, "close", after(does))
  writer.write("train", 1, {"total": 1.0})
  if when == "its thread":
    (worker,) = begun
    worker.join(timeout=60)
    assert not worker.is_alive()
  for step in range(2, 40):  # More than its queue holds.
    writer.write("train", step, {"total": 1.0})
  writer.close()
  assert [row["step"] for row in _rows(tmp_path)] == list(range(1, 40))
  said = capsys.readouterr().err
  assert said.count("warning: no more numbers are given to TensorBoard") == 1


def test_a_row_in_whose_middle_the_trackers_thread_dies_does_not_block(
  tmp_path, monkeypatch
):
  def fail(*_):
    raise OSError("no space on the tracker")

  monkeypatch.setattr(threading, "excepthook", lambda _: None)
  writer = _writer(tmp_path)
  monkeypatch.setattr(event_file_writer.EventsWriter, "write_event", fail)
  row = {f"term_{i}": 1.0 for i in range(100)}
  writing = threading.Thread(
    target=writer.write, args=("train", 1, row), daemon=True
  )
  writing.start()
  writing.join(timeout=60)
  assert not writing.is_alive()
  writer.close()


@pytest.mark.parametrize("part", [0, 5])
def test_rows_that_a_full_disk_refuses_are_written_when_there_is_room(
  part, tmp_path, monkeypatch, capsys
):
  writer = metric_writers.MetricWriter(tmp_path, 0)
  writer.write("train", 1, {"total": 1.0})
  write = os.write

  def full(file, data):
    if not data.startswith(b'{"kind"'):
      return write(file, data)
    if part:
      return write(file, data[:part])
    raise OSError(errno.ENOSPC, "No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(metric_writers.os, "write", full)
    for step in (2, 3):
      writer.write("train", step, {"total": 1.0})
  # No torn row is left behind.
  assert [row["step"] for row in _rows(tmp_path)] == [1]
  writer.write("train", 4, {"total": 1.0})
  writer.close()
  assert [row["step"] for row in _rows(tmp_path)] == [1, 2, 3, 4]
  said = capsys.readouterr().err
  assert said.count("cannot be written (No space left") == 1
  assert "after 2 failures; no row is lost" in said


def test_rows_that_are_lost_at_the_end_are_counted(
  tmp_path, monkeypatch, capsys
):
  writer = metric_writers.MetricWriter(tmp_path, 0)
  with monkeypatch.context() as patch:
    patch.setattr(metric_writers.os, "write", lambda *_: 0)
    for step in (1, 2):
      writer.write("train", step, {"total": 1.0})
    writer.close()
  assert "warning: 2 rows of" in capsys.readouterr().err


def test_the_first_step_of_an_epoch_has_the_speed_of_the_steps_before_it():
  now = 0.0
  meter = metric_writers.Meter(clock=lambda: now)
  rows = []
  for _ in range(3):
    meter.go_on()
    for _ in range(4):
      now += 0.02  # Waiting for data.
      meter.add(100, 0.02)
      # As in the loop: read before the step is waited for.
      rows.append(meter.read())
      meter.leave_out_compilation()
      now += 0.98
    meter.pause()
    now += 1000.0  # Validation.
  for row in rows[1:]:
    assert row == {"songs_per_s": 100.0, "data_wait_share": 0.02}


def test_a_loader_that_holds_training_back_is_said_once(tmp_path, capsys):
  writer = metric_writers.MetricWriter(tmp_path, 0)
  for step, share in ((5, 0.9), (30, 0.1), (31, 0.5), (32, 0.6)):
    row = {"epoch": 0, "step": step, "songs_per_s": 1.0}
    writer.write_step(row | {"data_wait_share": share}, {"total": 1.0})
    said = capsys.readouterr().out
    assert ("--config.data.order=blocks" in said) == (step == 31)
  writer.close()
