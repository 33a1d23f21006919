"""Tests of pcl_jax.common.prefetch."""

import contextlib
import itertools
import queue
import threading

import pytest

from pcl_jax.common import errors
from pcl_jax.common import prefetch


def test_results_come_in_order_whichever_thread_is_slow():
  late = threading.Event()

  def function(number):
    if number == 0:
      late.wait()  # Until another thread has computed a later result.
    late.set() if number else None
    return number

  found = prefetch.in_order(function, range(9), threads=2)
  assert list(found) == list(range(9))


@pytest.mark.parametrize("ahead", [0, 3])
def test_few_arguments_are_taken_ahead_and_an_error_is_in_its_place(ahead):
  taken = []

  def arguments():
    for number in range(9):
      taken.append(number)
      yield number

  found = prefetch.in_order(
    lambda number: 1 // (number - 2), arguments(), threads=2, ahead=ahead
  )
  assert next(found) == -1 and len(taken) == ahead + 1
  assert next(found) == -1
  with pytest.raises(ZeroDivisionError):
    next(found)


def test_threads_end_when_nobody_reads_on():
  before = threading.active_count()
  found = prefetch.in_order(abs, itertools.count(), threads=2)
  with contextlib.closing(found):
    assert next(found) == 0
    assert threading.active_count() > before
  assert threading.active_count() == before


@pytest.fixture
def hanging(monkeypatch):
  """A function of which the call for 0 alone ends."""
  monkeypatch.setattr(prefetch, "_LEAVE_S", 0.0)
  monkeypatch.setattr(prefetch, "_ASK_S", 0.0)
  let_go = threading.Event()
  yield lambda number: let_go.wait() if number else number
  let_go.set()


def test_a_call_that_never_ends_is_left_alone_where_a_stall_is_bounded(hanging):
  found = prefetch.in_order(hanging, itertools.count(), threads=2, stall_s=60.0)
  with contextlib.closing(found):
    assert next(found) == 0


def test_waiting_for_a_result_ends_where_all_is_to_stop(hanging):
  asked = [False]
  found = prefetch.in_order(
    hanging,
    itertools.count(),
    threads=1,
    stall_s=60.0,
    is_stopped=lambda: asked[0],
  )
  assert next(found) == 0
  asked[0] = True
  assert next(found, "stopped") == "stopped"


class _TakenMeanwhile(queue.SimpleQueue):
  """A queue whose last call a thread takes after it was seen there."""

  def empty(self):
    return False


def test_closing_does_not_wait_for_a_call_that_a_thread_took_meanwhile():
  pool = prefetch.Threads(1)
  pool.close()
  pool._calls = _TakenMeanwhile()
  closing = threading.Thread(target=pool.close, daemon=True)
  closing.start()
  closing.join(timeout=20)
  assert not closing.is_alive()


def test_what_is_planned_ahead_is_what_would_be_made_on_the_spot_and_once():
  called, planned = [], threading.Event()

  def make(number):
    called.append((number, threading.current_thread().name))
    if number == 5:
      planned.set()
    return number**2

  with contextlib.closing(prefetch.Planner(make)) as planner:
    assert planner.get(4) == 16
    assert planned.wait(timeout=60)
    assert [planner.get(number) for number in (5, 5, 9, 10)] == [
      25,
      25,
      81,
      100,
    ]
  assert [number for number, _ in called][:2] == [4, 5]
  assert len(set(called)) == len(called)
  assert all(name.startswith("planner") for _, name in called)


def test_what_planning_refuses_is_raised_by_the_number_it_belongs_to():
  def make(number):
    if number == 1:
      raise errors.InputError("too few songs")
    return number

  with contextlib.closing(prefetch.Planner(make)) as planner:
    planner.get(0)
    with pytest.raises(errors.InputError, match="too few songs"):
      planner.get(1)
