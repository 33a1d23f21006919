"""Reads a whole song store and compares it with its checksums."""

import concurrent.futures
import functools
import multiprocessing
import multiprocessing.connection
import pathlib
import signal

from jaxtyping import Float16
import lmdb
import numpy as np
import tqdm

from pcl_jax.common import errors
from pcl_jax.data import song_store

_SONGS_PER_CALL = 64
_INFINITY = 0x7C00  # In float16; NaN is above it.
_STALLED_S = 120  # Damaged pages may also send a reader round in circles.


def _is_finite(feature: Float16[np.ndarray, "frames bands"]) -> bool:
  """Looks at the bits: np.isfinite takes four times as long as a checksum."""
  magnitudes = feature.view("<u2") & 0x7FFF
  return int(magnitudes.max(initial=0)) < _INFINITY


def _check_song(store: song_store.SongStore, song: int) -> str | None:
  try:
    feature = store.read_song(song)
  except errors.InputError as error:
    return str(error)
  except lmdb.Error as error:
    return (
      f"song {store.song_ids[song]} of {store.path} cannot be read ({error}): "
      "the file's pages are damaged. Copy it again, or make it again."
    )
  # The checksum is right, so what is wrong here was written wrong.
  if not _is_finite(feature):
    return f"song {store.song_ids[song]} of {store.path} is not finite"
  return None


def _read_store(
  path: pathlib.Path, threads: int, pipe: multiprocessing.connection.Connection
) -> None:
  """Reads all songs and sends (songs, bytes, problems) as it goes."""
  try:
    store = song_store.SongStore(path, readahead=True)
  except errors.InputError as error:
    pipe.send((0, 0, [str(error)]))
    return
  check = functools.partial(_check_song, store)
  frame_bytes = 2 * song_store.MEL_BANDS
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    for start in range(0, len(store), _SONGS_PER_CALL):
      songs = range(start, min(start + _SONGS_PER_CALL, len(store)))
      found = [one for one in pool.map(check, songs) if one]
      size = int(store.frames[start : songs.stop].sum()) * frame_bytes
      pipe.send((len(songs), size, found))


def check_store(path: pathlib.Path, *, threads: int = 2) -> list[str]:
  """Reads a song store in a process of its own, with a progress bar.

  Damage in the pages of an LMDB file can end the process that reads it; here
  it is a process that may end.

  Args:
    path: folder of the LMDB environment.
    threads: that compute checksums.

  Returns:
    What is wrong, a sentence each.
  """
  # Not fork: the threads of JAX do not survive it.
  context = multiprocessing.get_context("spawn")
  receiver, sender = context.Pipe(duplex=False)
  child = context.Process(target=_read_store, args=(path, threads, sender))
  child.start()
  sender.close()
  problems, songs = [], 0
  with tqdm.tqdm(unit="B", unit_scale=True, desc="songs", disable=None) as bar:
    while receiver.poll(_STALLED_S):
      try:
        count, size, found = receiver.recv()
      except EOFError:  # The process has ended.
        break
      songs += count
      problems += found
      bar.update(size)
    else:
      child.kill()
  child.join()
  if child.exitcode:
    problems.append(
      f"reading {path / 'data.mdb'} ended a process with "
      f"{_ending(child.exitcode)} after {songs} songs: its pages are damaged. "
      "Copy it again, or delete its folder and make it again."
    )
  return problems


def _ending(exit_code: int) -> str:
  if exit_code == -signal.SIGKILL:
    return f"SIGKILL (after {_STALLED_S} s without progress, or from outside)"
  if exit_code < 0:
    return signal.Signals(-exit_code).name
  return f"exit code {exit_code}"
