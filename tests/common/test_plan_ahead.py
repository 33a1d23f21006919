"""Tests of pcl_jax.data.plan_ahead."""

import contextlib
import threading

import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.common import plan_ahead
from pcl_jax.data import plans
from tests.support import tiny_data


def _make(epoch: int) -> plans.Plan:
  made = tiny_data.tiny_catalogue()
  return plans.of_songs(
    made.rows_of(0), np.full(len(made), 400, np.int32), 8, seed=3, epoch=epoch
  )


def test_plans_made_ahead_are_those_made_on_the_spot():
  with contextlib.closing(plan_ahead.PlanAhead(_make)) as ahead:
    for epoch in (0, 0, 1, 2, 7, 8, 3):
      assert (ahead.get(epoch).songs == _make(epoch).songs).all()
      assert (ahead.get(epoch).starts == _make(epoch).starts).all()


def test_the_next_epoch_is_planned_before_it_is_asked_for_and_once():
  called, planned = [], threading.Event()

  def make(epoch):
    called.append((epoch, threading.current_thread().name))
    if epoch == 5:
      planned.set()
    return _make(epoch)

  with contextlib.closing(plan_ahead.PlanAhead(make)) as ahead:
    ahead.get(4)
    assert planned.wait(timeout=60)
    ahead.get(5)
  assert [epoch for epoch, _ in called][:2] == [4, 5]
  assert len({epoch for epoch, _ in called}) == len(called)
  assert all(name.startswith("planner") for _, name in called)


def test_what_planning_refuses_is_raised_by_the_epoch_it_belongs_to():
  def make(epoch):
    if epoch == 1:
      raise errors.InputError("too few songs")
    return _make(epoch)

  with contextlib.closing(plan_ahead.PlanAhead(make)) as ahead:
    ahead.get(0)
    with pytest.raises(errors.InputError, match="too few songs"):
      ahead.get(1)
