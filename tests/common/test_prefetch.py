"""Tests of pcl_jax.common.prefetch."""

import contextlib
import itertools
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


def _numbers(stream: int):
  """A stream of as many numbers as its own, and the fifth fails."""
  for number in range(100 * stream):
    yield stream, number
  if stream == 5:
    raise ValueError("stream 5 is damaged")


@pytest.mark.parametrize("threads", [1, 3])
def test_streams_come_in_order_and_fail_where_they_fail(threads):
  streams = prefetch.streams(_numbers, [3, 5, 0, 9], threads=threads, ahead=2)
  found = []
  for stream, pieces in streams:
    count = 0
    try:
      for count, piece in enumerate(pieces, start=1):
        assert piece == (stream, count - 1)
    except ValueError as error:
      assert str(error) == "stream 5 is damaged" and stream == 5
    found.append((stream, count))
  assert found == [(3, 300), (5, 500), (0, 0), (9, 900)]


def test_threads_of_streams_end_when_nobody_reads_on():
  before = threading.active_count()
  streams = prefetch.streams(
    lambda _: itertools.count(), itertools.count(), threads=2
  )
  with contextlib.closing(streams):
    number, pieces = next(streams)
    assert number == 0 and next(iter(pieces)) == 0
    assert threading.active_count() > before
  assert threading.active_count() == before


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
