"""Tests of pcl_jax.common.usable_cores."""

import os

from pcl_jax.common import usable_cores


def test_only_cores_that_this_process_may_use_are_counted(monkeypatch):
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 7, 9})
  assert usable_cores.count() == 3


def test_cores_are_counted_where_a_process_cannot_be_asked(monkeypatch):
  monkeypatch.delattr(os, "sched_getaffinity")
  for cores, expected in ((12, 12), (None, 1)):
    monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
    assert usable_cores.count() == expected
