"""Decodes many audio files, several at once, and goes on where one fails."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
import dataclasses
import os
import pathlib
from typing import TypeVar

from jaxtyping import Float16
import numpy as np

from pcl_jax.audio import decode as audio_file

MAX_THREADS = 8
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclasses.dataclass(frozen=True)
class Decoded:
  """A file's feature, or why it has none.

  Attributes:
    feature: float16 [frames, 48], or None.
    reason: why there is none; else empty.
    needs: what the file may be readable with and is not there, or empty.
  """

  feature: Float16[np.ndarray, "frames bands"] | None
  reason: str = ""
  needs: str = ""


def default_threads() -> int:
  """Returns how many files are decoded at once where nothing is said."""
  return min(os.cpu_count() or 1, MAX_THREADS)


def decode(
  path: pathlib.Path, from_s: float = 0.0, to_s: float | None = None
) -> Decoded:
  """Computes the feature of a file, or of a part of it; never raises.

  Args:
    path: an audio file.
    from_s: where the part begins, in seconds.
    to_s: where it ends; None for the file's end.
  """
  if not path.exists():
    return Decoded(
      None, "it is not in the folder any more, or a link to nowhere"
    )
  try:
    return Decoded(audio_file.read_feature(path, from_s, to_s))
  except audio_file.UnreadableAudio as error:
    return Decoded(None, error.reason, error.needs)
  # One file that no one thought of is not to end a run of hours.
  except Exception as error:  # noqa: BLE001
    return Decoded(None, f"decoding it fails ({type(error).__name__}: {error})")


def in_order(
  function: Callable[[_In], _Out], todo: Iterable[_In], threads: int
) -> Iterator[_Out]:
  """Yields a function's results in the order of its arguments.

  Args:
    function: called in threads.
    todo: its arguments, taken as they are needed.
    threads: how many calls run at once; few more results wait.
  """
  pool = futures.ThreadPoolExecutor(threads)
  waiting: collections.deque = collections.deque()
  try:
    for item in todo:
      waiting.append(pool.submit(function, item))
      if len(waiting) > 2 * threads:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
  finally:
    pool.shutdown(cancel_futures=True)
