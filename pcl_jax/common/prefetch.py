"""Work done ahead in threads and handed out in order.

The threads are daemons: Python waits for those of concurrent.futures when it
ends, so that one stuck in a read of a dead disk would keep the process forever.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
import contextlib
import faulthandler
import queue
import sys
import threading
from typing import Any, Generic, TypeVar

from pcl_jax.common import errors

NAME = "reader"

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

  def close(self, wait: bool = True) -> None:
    """Drops the calls that have not begun, and ends the threads."""
    with contextlib.suppress(queue.Empty):
      while True:
        self._calls.get_nowait()
    for _ in self._threads:
      self._calls.put(None)
    if wait:
      for thread in self._threads:
        thread.join()


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
) -> Iterator[_Out]:
  """Yields the results of a function in the order of its arguments.

  Args:
    function: called in threads; what it raises takes its result's place.
    items: its arguments, taken as they are needed.
    threads: how many calls run at once.
    ahead: calls begun behind the result in use; by default one a thread.
    stall_s: how long to wait for a result, in seconds; by default for ever.
    describe_stall: returns the message of the RunError.

  Raises:
    RunError: a result took longer than `stall_s`; the stacks of all threads are
      on stderr.
  """
  pool, is_stuck = Threads(threads), False
  begun = (pool.submit(function, item) for item in items)
  try:
    for future in keep_ahead(begun, threads if ahead is None else ahead):
      try:
        result = future.result(timeout=stall_s)
      except futures.TimeoutError:
        if future.done():  # A timeout of the function's own.
          raise
        is_stuck = True
        faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
        raise errors.RunError(describe_stall()) from None
      yield result
  finally:
    pool.close(wait=not is_stuck)


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
