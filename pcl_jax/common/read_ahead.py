"""Streams read ahead in threads and handed out in their order."""

from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
import queue
import threading
from typing import Any

_PIECES = 16  # Of one stream that are held; its thread then waits.
_LOOK_S = 0.1  # How often a thread that waits looks whether it shall stop.
_END = object()


class _Stream:
  """One stream between the thread that reads it and the one that uses it."""

  def __init__(self, stop: threading.Event):
    self._pieces: queue.Queue[tuple[Any, Any]] = queue.Queue(_PIECES)
    self._stop = stop

  def _put(self, piece: Any, error: BaseException | None = None) -> bool:
    while not self._stop.is_set():
      try:
        self._pieces.put((piece, error), timeout=_LOOK_S)
      except queue.Full:
        continue
      return True
    return False

  def fill(self, read: Callable[[int], Iterable[Any]], number: int) -> None:
    """Reads a stream to its end, its error, or until it is not wanted."""
    try:
      for piece in read(number):
        if not self._put(piece):
          return
    except BaseException as error:  # noqa: BLE001  Raised where it is used.
      self._put(None, error)
    else:
      self._put(_END)

  def __iter__(self) -> Iterator[Any]:
    while True:
      piece, error = self._pieces.get()
      if error is not None:
        raise error
      if piece is _END:
        return
      yield piece


def in_order(
  read: Callable[[int], Iterable[Any]],
  numbers: Iterable[int],
  *,
  threads: int,
  ahead: int = 32,
) -> Iterator[tuple[int, Iterable[Any]]]:
  """Reads streams ahead, several at once, each a bounded number of pieces.

  Args:
    read: returns the pieces of a stream; called and used in one thread.
    numbers: which streams, in the order wanted.
    threads: how many are read at once.
    ahead: how many are begun, or finished and held, behind the one in use.

  Yields:
    Each number with its pieces, which are used before the next is asked for.
    What goes wrong while a stream is read is raised where its pieces end.
  """
  stop = threading.Event()
  begun: list[tuple[int, _Stream]] = []
  numbers = iter(numbers)
  pool = futures.ThreadPoolExecutor(threads, "read")
  try:
    for number in numbers:
      begun.append((number, _Stream(stop)))
      pool.submit(begun[-1][1].fill, read, number)
      if len(begun) > ahead:
        yield begun.pop(0)
    while begun:
      yield begun.pop(0)
  finally:
    stop.set()
    pool.shutdown(cancel_futures=True)
