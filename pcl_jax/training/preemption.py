"""SIGTERM and SIGINT: the step under way is finished and saved, then all ends.

A second signal ends the process at once, whatever it is doing. Where several
processes train as one, a small program on all devices tells each of them after
every step whether any of them received a signal, so that all end after the same
step. Its answer is fetched with the losses of the step, so nobody waits for it.
"""

import os
import signal
import socket
import sys
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
  """Listens to signals while it is entered."""

  def __init__(self):
    self._name: str | None = None
    self._count = 0
    self._agreed = False
    self._marks: tuple[jax.Array, ...] = ()
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
        self._old[number] = signal.signal(number, self._record_signal)
      self._watcher = threading.Thread(
        target=self._watch, args=(ours,), daemon=True
      )
      self._watcher.start()
    return self

  def __exit__(self, *_: Any) -> None:
    for number, handler in self._old.items():
      # None stands for a handler that was not set by Python, as that of jax.
      signal.signal(number, signal.SIG_DFL if handler is None else handler)
    self._old.clear()
    if self._sockets:
      signal.set_wakeup_fd(self._wakeup)
      _, theirs = self._sockets
      theirs.close()  # The thread then reads the end, and closes its own.
      self._watcher.join()
      self._sockets = ()

  def _record_signal(self, number: int, _: Any) -> None:
    self._name = self._name or signal.Signals(number).name

  def _watch(self, ours: socket.socket) -> None:
    """Counts signals; even where the main thread is busy in the compiler."""
    with ours:
      while numbers := ours.recv(64):
        for number in numbers:
          self._count += number in SIGNALS
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
    """Prepares to ask the other processes.

    Args:
      sharding: the sharding of batches, split over all devices.
      several: whether there are other processes.
    """
    if not several:
      return
    own = len(sharding.addressable_devices)
    self._marks = tuple(
      jax.make_array_from_process_local_data(
        sharding, np.full(own, told, np.int8), (sharding.mesh.size,)
      )
      for told in (0, 1)
    )
    everywhere = jax.NamedSharding(sharding.mesh, jax.P())
    self._any = jax.jit(jnp.max, out_shardings=everywhere)

  def ask(self) -> jax.Array | None:
    """Begins to ask all processes whether one of them received a signal."""
    if not self._marks:
      return None
    return self._any(self._marks[self._name is not None])

  def record(self, answer: jax.Array | None) -> None:
    """Waits for what `ask` returned."""
    self._agreed |= answer is not None and bool(answer)

  @property
  def is_due(self) -> bool:
    """Whether to stop after this step; the same in all processes."""
    return self._agreed if self._marks else self._name is not None

  @property
  def reason(self) -> str:
    """The signal's name, for messages."""
    return self._name or "a signal to another process"
