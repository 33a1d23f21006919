"""Spectrogram files to features, in several processes or threads.

A worker takes a task (some unpacked files, or one tar), reads and converts it
in one pass and hands over batches. One consumer gets them all and writes. A
worker process imports this module, which needs numpy and nothing heavy.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import functools
import multiprocessing
import pathlib
import queue
import signal
import threading
from typing import Any

import numpy as np

from pcl_jax.common import errors
from preprocessing.melon import melon_source
from preprocessing.melon import melon_spectrogram
from preprocessing.melon import tar_reader

FILES_OF_FOLDER = ""  # The source of unpacked files; a tar's is its name.
FILES_PER_TASK = 128
_BATCH_BYTES = 1 << 22  # Features of some twenty songs of 30 s.
_PROGRESS_BYTES = 1 << 26  # Skipped at most without a batch.


@dataclasses.dataclass(frozen=True)
class Job:
  """The settings that all tasks share.

  Attributes:
    melon_dir: holds arena_mel/ or tars or both.
    song_ids: the ids of the metadata, ascending, int64 [songs].
    min_frames: a song with fewer frames is left out.
  """

  melon_dir: pathlib.Path
  song_ids: np.ndarray
  min_frames: int


@dataclasses.dataclass(frozen=True)
class Task:
  """Songs of one source, for one worker.

  Attributes:
    source: the name of the tar, or FILES_OF_FOLDER.
    wanted: positions in `Job.song_ids`, ascending: the unpacked files to read,
      or the songs to take from the tar.
    unusable: id -> place in the tar of members known to be unusable.
    stamps: id -> size and time of change of unpacked files.
  """

  source: str
  wanted: np.ndarray
  unusable: dict[int, int] = dataclasses.field(default_factory=dict)
  stamps: dict[int, tuple[int, int]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Batch:
  """What a worker hands over.

  Attributes:
    source: the source of the task.
    songs: pairs of id and feature, float16 [frames, 48].
    unusable: entries of skipped.json; `place` in them is the body's first byte
      in the tar, `stamp` that of an unpacked file.
    num_bytes: the bytes of the source that were read or skipped.
    finished: the counts of a tar; only in its last batch.
  """

  source: str
  songs: list[tuple[int, np.ndarray]] = dataclasses.field(default_factory=list)
  unusable: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  num_bytes: int = 0
  finished: dict[str, Any] | None = None

  def add(
    self,
    song_id: int,
    file: str,
    get: Callable[[], np.ndarray],
    **where: Any,
  ) -> bool:
    """Adds a song; where it is unusable, adds its entry and returns False."""
    try:
      self.songs.append((song_id, get()))
      return True
    except melon_spectrogram.UnusableFile as error:
      entry = {"id": song_id, "file": melon_spectrogram.one_line(file)}
      entry |= {"reason": error.reason, "detail": error.detail}
      self.unusable.append(entry | where)
      return False

  def is_full(self) -> bool:
    """Whether it should be handed over."""
    size = sum(feature.nbytes for _, feature in self.songs)
    return size >= _BATCH_BYTES or self.num_bytes >= _PROGRESS_BYTES


def _convert_files(task: Task, job: Job) -> Iterator[Batch]:
  batch = Batch(task.source)
  for song_id in job.song_ids[task.wanted].tolist():
    name = melon_source.song_file(song_id)
    stamp = task.stamps[song_id]
    read = functools.partial(
      melon_spectrogram.read_feature, job.melon_dir / name, job.min_frames
    )
    batch.add(song_id, name, read, place=0, stamp=stamp)
    batch.num_bytes += stamp[0]
    if batch.is_full():
      yield batch
      batch = Batch(task.source)
  yield batch


def _body(data: Any, min_frames: int) -> np.ndarray:
  if isinstance(data, melon_spectrogram.UnusableFile):
    raise data
  return melon_spectrogram.decode(data, min_frames)


def _convert_tar(task: Task, job: Job) -> Iterator[Batch]:
  is_wanted = np.zeros(len(job.song_ids), bool)
  is_wanted[task.wanted] = True
  unknown, counted = 0, 0

  def wants(member: tar_reader.Member) -> bool:
    nonlocal unknown
    i = int(np.searchsorted(job.song_ids, member.song_id))
    if i == len(job.song_ids) or job.song_ids[i] != member.song_id:
      unknown += 1
      return False
    return is_wanted[i] and task.unusable.get(member.song_id) != member.begin

  tar = tar_reader.Tar(job.melon_dir / task.source)
  batch = Batch(task.source)
  for member, data in tar.read(wants):
    if member is not None:
      is_usable = batch.add(
        member.song_id,
        f"{task.source}:{member.name}",
        functools.partial(_body, data, job.min_frames),
        place=member.begin,
      )
      if is_usable:  # A second one in the tar is not needed.
        is_wanted[np.searchsorted(job.song_ids, member.song_id)] = False
    batch.num_bytes += tar.place - counted
    counted = tar.place
    if batch.is_full():
      yield batch
      batch = Batch(task.source)
  batch.num_bytes += tar.place - counted
  batch.finished = {
    "damage": tar.damage,
    "gaps": tar.gaps,
    "gap_bytes": tar.gap_bytes,
    "songs": tar.songs,
    "unknown": unknown,
    "ignored": dict(tar.ignored),
    "examples": tar.examples,
  }
  yield batch


def convert(task: Task, job: Job) -> Iterator[Batch]:
  """Yields what a task holds; the last batch may be empty of songs."""
  if task.source == FILES_OF_FOLDER:
    return _convert_files(task, job)
  return _convert_tar(task, job)


def _serve(connection: Any, job: Job) -> None:
  """Does the tasks that come, in a process of its own, until no more do."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # The consumer ends it.
  try:
    while True:
      for batch in convert(connection.recv(), job):
        connection.send(batch)
      connection.send(None)
  except (EOFError, BrokenPipeError, ConnectionResetError):
    return  # The consumer is gone.


@contextlib.contextmanager
def _worker_process(job: Job) -> Iterator[Callable[[Task], Iterator[Batch]]]:
  # Not forked: threads of the consumer may hold locks.
  context = multiprocessing.get_context("spawn")
  ours, theirs = context.Pipe()
  process = context.Process(target=_serve, args=(theirs, job), daemon=True)
  process.start()
  theirs.close()

  def run(task: Task) -> Iterator[Batch]:
    try:
      ours.send(task)
      while (batch := ours.recv()) is not None:
        yield batch
    except (EOFError, OSError) as error:
      process.join()
      raise errors.RunError(
        f"a worker process ended (exit code {process.exitcode}) while it read "
        f"{task.source or melon_source.FOLDER}; a negative code is a signal, "
        "-9 is often the system's when memory runs out. The songs written so "
        "far are kept and the same command line goes on; --workers=1 needs "
        "least memory."
      ) from error

  try:
    yield run
  finally:
    process.terminate()
    process.join()
    ours.close()


@contextlib.contextmanager
def _worker_thread(job: Job) -> Iterator[Callable[[Task], Iterator[Batch]]]:
  yield functools.partial(convert, job=job)


@contextlib.contextmanager
def run_tasks(
  tasks: Sequence[Task], job: Job, workers: int, *, processes: bool
) -> Iterator[Iterator[Batch]]:
  """Yields the batches of all tasks, in the order in which they come.

  Args:
    tasks: started in their order; the batches of running ones mix.
    job: the settings that they share.
    workers: the number of tasks that run at a time.
    processes: whether each is a process; else a thread.

  Raises:
    RunError: a worker process ended too early.
  """
  workers = min(workers, len(tasks))
  todo, results = queue.SimpleQueue(), queue.Queue(2 * workers)
  for task in tasks:
    todo.put(task)
  stop = threading.Event()

  def work(run: Callable[[Task], Iterator[Batch]]) -> None:
    try:
      while not stop.is_set() and not todo.empty():
        # Only the consumer adds, so that an empty queue stays empty.
        with contextlib.suppress(queue.Empty):
          for batch in run(todo.get_nowait()):
            results.put(batch)
            if stop.is_set():
              return
    except BaseException as error:
      results.put(error)
    finally:
      results.put(None)

  def batches() -> Iterator[Batch]:
    nonlocal workers
    while workers:
      result = results.get()
      if isinstance(result, BaseException):
        raise result
      if result is None:
        workers -= 1
      else:
        yield result

  worker = _worker_process if processes else _worker_thread
  with contextlib.ExitStack() as stack:
    runs = [stack.enter_context(worker(job)) for _ in range(workers)]
    threads = [threading.Thread(target=work, args=(run,)) for run in runs]
    for thread in threads:
      thread.start()
    try:
      yield batches()
    finally:
      stop.set()
      while any(thread.is_alive() for thread in threads):
        with contextlib.suppress(queue.Empty):  # Lets a waiting one go on.
          results.get(timeout=0.05)
