"""Tests of which flags and launchers make a process join others."""

import os

import pytest

from pcl_jax.common import errors
from pcl_jax.common import hosts


@pytest.fixture
def no_launcher(monkeypatch):
  """Takes away what a launcher has told this process."""
  for name in (*hosts._COUNTS, hosts._TPU_HOSTS, hosts._ADDRESS):
    monkeypatch.delitem(os.environ, name, raising=False)


@pytest.mark.parametrize(
  "distributed, given, expected",
  [
    (None, {}, False),
    (None, {"coordinator": None, "num_processes": 2}, True),
    (None, {"process_id": 0}, True),
    (None, {"coordinator": "a:1"}, True),
    (False, {}, False),
    (True, {}, True),
  ],
)
def test_flags_that_tell_of_other_processes_join_them(
  distributed, given, expected, no_launcher
):
  assert hosts.are_asked_for(distributed, **given) == expected


def test_other_processes_that_are_told_of_and_not_wanted_are_refused():
  with pytest.raises(errors.InputError, match="--process_id=0 .*leave one of"):
    hosts.are_asked_for(False, coordinator=None, process_id=0)


def test_a_process_that_a_launcher_started_stays_alone_where_that_is_wanted(
  monkeypatch, no_launcher
):
  monkeypatch.setitem(os.environ, hosts._ADDRESS, "node0:1")
  assert hosts.are_asked_for(None, coordinator=None)
  assert not hosts.are_asked_for(False, coordinator=None)
