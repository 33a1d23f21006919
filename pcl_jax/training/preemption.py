"""SIGTERM and SIGINT: the step under way is finished and saved, then all ends.

A second signal ends the process at once, whatever it is doing. Where several
processes train as one, what any of them was told travels with the next step's
batch and comes back with its losses, so that all learn of it after the same
step: no clock and no further message is needed.
"""

from collections.abc import Mapping
import os
import signal
import socket
import sys
import threading
from typing import Any

import jax
import numpy as np

from pcl_jax.training import train_step

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
  """Notes what the process is told by signals, while it is entered."""

  def __init__(self):
    """Notes nothing yet."""
    self._name: str | None = None
    self._count = 0
    self._agreed = False
    self._marks: tuple[jax.Array, jax.Array] | None = None
    self._old: dict[int, Any] = {}
    self._wakeup = -1
    self._sockets: tuple[socket.socket, ...] = ()

  def __enter__(self) -> "Interruption":
    # Python lets the main thread alone listen.
    if threading.current_thread() is threading.main_thread():
      ours, theirs = self._sockets = socket.socketpair()
      theirs.setblocking(False)
      self._wakeup = signal.set_wakeup_fd(theirs.fileno())
      for number in SIGNALS:
        self._old[number] = signal.signal(number, self._note)
      self._watcher = threading.Thread(
        target=self._watch, args=(ours,), daemon=True
      )
      self._watcher.start()
    return self

  def __exit__(self, *_: Any) -> None:
    for number, handler in self._old.items():
      # None stands for one that was not set by Python, as that of jax.
      signal.signal(number, signal.SIG_DFL if handler is None else handler)
    self._old.clear()
    if self._sockets:
      signal.set_wakeup_fd(self._wakeup)
      _, theirs = self._sockets
      theirs.close()  # The thread then reads the end, and closes its own.
      self._watcher.join()
      self._sockets = ()

  def _note(self, number: int, _: Any) -> None:
    self._name = self._name or signal.Signals(number).name

  def _watch(self, ours: socket.socket) -> None:
    """Counts signals; even where the main thread is busy in the compiler."""
    with ours:
      while numbers := ours.recv(64):
        for number in numbers:
          if number in SIGNALS:
            self._count += 1
          if self._count > 1:
            os.write(
              sys.__stderr__.fileno(),
              b"a second signal: ended at once; the same command line goes on "
              b"from the last checkpoint\n",
            )
            os._exit(128 + number)

  def prepare(
    self, sharding: jax.sharding.NamedSharding, *, several: bool
  ) -> None:
    """Prepares to speak with the other processes.

    Args:
      sharding: of batches, split over all devices.
      several: whether there are others.
    """
    if not several:
      return
    shape = (sharding.mesh.size,)
    own = len(sharding.addressable_devices)
    self._marks = tuple(
      jax.make_array_from_process_local_data(
        sharding, np.full(own, told, np.int8), shape
      )
      for told in (0, 1)
    )

  def mark(self, batch: Mapping[str, jax.Array]) -> Mapping[str, jax.Array]:
    """Returns a batch that tells the other processes what this one was told."""
    if self._marks is None:
      return batch
    return {**batch, train_step.STOP: self._marks[self._name is not None]}

  def hear(self, flags: Mapping[str, float]) -> None:
    """Takes in what a step's flags say of all processes."""
    if flags.get(train_step.STOP):
      self._agreed = True

  @property
  def is_due(self) -> bool:
    """Whether to stop after this step; the same in all processes."""
    if self._marks is None:
      return self._name is not None
    return self._agreed

  @property
  def reason(self) -> str:
    """The signal's name, for messages."""
    return self._name or "a signal to another process"
