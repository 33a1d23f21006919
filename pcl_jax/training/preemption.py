"""SIGTERM and SIGINT: the step under way is finished and saved, then all ends.

A second signal ends the process at once, whatever it is doing. Where several
processes train as one, a small program on all devices tells each of them after
every step whether any of them received a signal, so that all end after the same
step. Its answer is fetched with the losses of the step, so nobody waits for it.
"""

import contextlib
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
    self._undo = contextlib.ExitStack()

  def __enter__(self) -> "Interruption":
    # Python lets the main thread alone listen.
    if threading.current_thread() is threading.main_thread():
      ours, theirs = socket.socketpair()
      theirs.setblocking(False)
      watcher = threading.Thread(target=self._watch, args=(ours,), daemon=True)
      watcher.start()
      self._undo.callback(watcher.join)
      # The thread then reads the end, and closes its own.
      self._undo.callback(theirs.close)
      old = signal.set_wakeup_fd(theirs.fileno())
      self._undo.callback(signal.set_wakeup_fd, old)
      for number in SIGNALS:
        old = signal.signal(number, self._record_signal)
        # None stands for a handler that was not set by Python, as that of jax.
        old = signal.SIG_DFL if old is None else old
        self._undo.callback(signal.signal, number, old)
    return self

  def __exit__(self, *_: Any) -> None:
    self._undo.close()

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
    """Prepares to ask the other processes, if there are several.

    `sharding` is that of batches, split over all devices.
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
