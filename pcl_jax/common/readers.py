"""Reader threads that cannot hang a run.

Threads of concurrent.futures are waited for when Python ends, so that one stuck
in a read of a dead disk would keep the process for ever. These are daemons: a
run that has waited too long says where each thread is, and ends.
"""

from collections.abc import Callable
import concurrent.futures
import faulthandler
import queue
import sys
import threading
from typing import Any

from pcl_jax.common import errors

NAME = "patch-reader"


class Readers:
  """Runs calls in daemon threads, in the order in which they were submitted."""

  def __init__(self, threads: int):
    """Starts the threads.

    Args:
      threads: how many; at least 1.
    """
    self._calls: queue.SimpleQueue = queue.SimpleQueue()
    self._is_stuck = False
    self._threads = [
      threading.Thread(target=self._work, name=f"{NAME}-{i}", daemon=True)
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
    self, function: Callable[..., Any], *arguments: Any
  ) -> concurrent.futures.Future:
    """Has a function called by the next free thread."""
    future: concurrent.futures.Future = concurrent.futures.Future()
    self._calls.put((future, function, arguments))
    return future

  def wait(
    self,
    future: concurrent.futures.Future,
    seconds: float,
    describe: Callable[[], str],
  ) -> Any:
    """Returns what a call returned, or raises what it raised.

    Args:
      future: of the call.
      seconds: how long it may take from now on.
      describe: says what is under way, for the message.

    Raises:
      RunError: it took longer; the stacks of all threads are on stderr.
    """
    try:
      return future.result(timeout=seconds)
    except concurrent.futures.TimeoutError:
      if future.done():  # A reader's own timeout.
        raise
      self._is_stuck = True
      faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
      raise errors.RunError(
        f"no batch has come for {seconds:g} s (config.data.stall_s): "
        f"{describe()}. Where each thread stands is written above. Look at the "
        "disk or the network file system of the data set; the same command "
        "line goes on from the last checkpoint."
      ) from None

  def close(self) -> None:
    """Ends the threads; those that are stuck are left to the end of Python."""
    while not self._calls.empty():
      self._calls.get()
    for _ in self._threads:
      self._calls.put(None)
    if not self._is_stuck:
      for thread in self._threads:
        thread.join()
