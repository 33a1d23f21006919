"""Tests of pcl_jax.train_log."""

import jax

from pcl_jax.training import metric_writers
from pcl_jax.training import train_log


def test_a_loader_that_holds_training_back_is_said_once(tmp_path, capsys):
  writer = metric_writers.MetricWriter(tmp_path, 0)
  log = train_log.LateLog(writer)
  for step, share in ((5, 0.9), (30, 0.1), (31, 0.5), (32, 0.6)):
    row = {"epoch": 0, "step": step, "songs_per_s": 1.0}
    log.put(row | {"data_wait_share": share}, {"total": jax.numpy.ones(())})
    log.flush()
    said = capsys.readouterr().out
    assert ("--config.data.order=blocks" in said) == (step == 31)
  writer.close()
