"""Work done ahead in threads and handed out in order.

The threads are daemons: Python waits for those of concurrent.futures when it
ends, so that one stuck in a read of a dead disk would keep the process forever.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
import contextlib
import faulthandler
import math
import queue
import sys
import threading
import time
from typing import Any, Generic, TypeVar

from pcl_jax.common import errors

NAME = "reader"
_ASK_S = 0.5  # Between two questions whether to stop.
_LEAVE_S = 5.0  # For calls under way: a dead disk answers none.

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Threads:
  """Runs calls in daemon threads, in the order in which they were submitted."""

  def __init__(self, threads: int, name: str = NAME):
    """Starts so many threads, whose names begin with `name`."""
    self._calls: queue.SimpleQueue = queue.SimpleQueue()
    self._threads = [
      threading.Thread(target=self._work, name=f"{name}-{i}", daemon=True)
      for i in range(threads)
    ]
    for thread in self._threads:
      thread.start()

  def _work(self) -> None:
    while (call := self._calls.get()) is not None:
      future, function, arguments = call
      try:
        future.set_result(function(*arguments))
      # Whatever it is, it is raised by whoever waits for it.
      except BaseException as error:  # noqa: BLE001
        future.set_exception(error)

  def submit(
    self, function: Callable[..., _Out], *arguments: Any
  ) -> futures.Future[_Out]:
    """Calls it in one of the threads, as soon as one is free."""
    future: futures.Future = futures.Future()
    self._calls.put((future, function, arguments))
    return future

  def close(self, within_s: float | None = None) -> None:
    """Drops the calls that have not begun, and ends the threads.

    Waits for the calls under way; not longer than so many seconds, if given.
    """
    with contextlib.suppress(queue.Empty):
      while True:
        self._calls.get_nowait()
    for _ in self._threads:
      self._calls.put(None)
    end_s = None if within_s is None else time.monotonic() + within_s
    for thread in self._threads:
      thread.join(end_s and max(end_s - time.monotonic(), 0.0))


def keep_ahead(begun: Iterable[_Out], count: int) -> Iterator[_Out]:
  """Yields what was begun, in order, with `count` more begun behind it."""
  held: collections.deque[_Out] = collections.deque()
  for one in begun:
    held.append(one)
    if len(held) > count:
      yield held.popleft()
  yield from held


def in_order(
  function: Callable[[_In], _Out],
  items: Iterable[_In],
  *,
  threads: int,
  ahead: int | None = None,
  stall_s: float | None = None,
  describe_stall: Callable[[], str] = str,
  is_stopped: Callable[[], bool] = bool,
) -> Iterator[_Out]:
  """Yields the results of a function in the order of its arguments.

  Args:
    function: called in threads; what it raises takes its result's place.
    items: its arguments, taken as they are needed.
    threads: how many calls run at once.
    ahead: calls begun behind the result in use; by default one a thread.
    stall_s: how long to wait for a result, in seconds; by default for ever. If
      given, calls still under way at the end are soon left alone.
    describe_stall: returns the message of the RunError.
    is_stopped: asked while a result is waited for; ends all where it is true.

  Raises:
    RunError: a result took longer than `stall_s`; the stacks of all threads are
      on stderr.
  """
  pool = Threads(threads)
  leave_s = None if stall_s is None else _LEAVE_S
  begun = (pool.submit(function, item) for item in items)
  try:
    for future in keep_ahead(begun, threads if ahead is None else ahead):
      end_s = math.inf if stall_s is None else time.monotonic() + stall_s
      while not _has_ended(future, end_s):
        if is_stopped():
          return
        if time.monotonic() >= end_s:
          leave_s = 0.0
          faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
          raise errors.RunError(describe_stall())
      yield future.result()
  finally:
    pool.close(leave_s)


def _has_ended(future: futures.Future, end_s: float) -> bool:
  """Waits for a call, at most a while and until `end_s` of the clock."""
  wait_s = max(min(_ASK_S, end_s - time.monotonic()), 0.0)
  return future.done() or bool(futures.wait([future], wait_s).done)


class Planner(Generic[_Out]):
  """Gives what a function makes of 0, 1, 2...; the next is made meanwhile."""

  def __init__(self, make: Callable[[int], _Out]):
    self._make = make
    self._pool = Threads(1, "planner")
    self._begun: dict[int, futures.Future[_Out]] = {}

  def get(self, number: int) -> _Out:
    """Returns what is made of a number, and begins with the next one.

    What `make` raises is raised for the number it belongs to.
    """
    self._begun = {
      one: self._begun.get(one) or self._pool.submit(self._make, one)
      for one in (number, number + 1)
    }
    return self._begun[number].result()

  def close(self) -> None:
    """Waits for the call under way, and forgets those that have not begun."""
    self._pool.close()
