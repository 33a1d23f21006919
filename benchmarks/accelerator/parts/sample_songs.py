"""The sample that `hybrid` trains on, synthesised beside the other parts."""

import os
import pathlib
import shutil
import subprocess
import sys

from benchmarks.accelerator import part_context
from benchmarks.accelerator import programs
from pcl_jax.data import dataset

_CORES = 8  # Of at least twice as many: the rest serve what is measured.


def folder_of(context: part_context.Context) -> pathlib.Path:
  """Returns where the sample lies, or will."""
  return context.scratch / "sample"


def is_made(context: part_context.Context) -> bool:
  """Tells whether the sample is whole: these vectors are made last."""
  return (folder_of(context) / dataset.GENRE_VECTORS).exists()


def _number_file(context: part_context.Context) -> pathlib.Path:
  return context.scratch / "sample.pid"


def is_being_made(context: part_context.Context) -> bool:
  """Tells whether the process that `measure` began is at it."""
  path = _number_file(context)
  if is_made(context) or not path.exists():
    return False
  try:
    os.kill(int(path.read_text()), 0)
  except ProcessLookupError:
    return False
  return True


def words(context: part_context.Context) -> list:
  """Returns the words of the command that makes it."""
  songs, seconds = (96, 6) if context.tiny else (2400, 20)
  return programs.make_sample(folder_of(context), songs, seconds)


def measure(context: part_context.Context) -> None:
  """Begins to make it, in a session of its own, which outlives this part."""
  if is_made(context):
    context.record("sample", state="is there already")
    return
  command = [sys.executable, *map(str, words(context))]
  cores = sorted(os.sched_getaffinity(0))
  if len(cores) >= 2 * _CORES and (taskset := shutil.which("taskset")):
    some = ",".join(map(str, cores[-_CORES:]))
    command = [taskset, "-c", some, *command]
  with open(context.out / "sample_songs.log", "a") as log:
    process = subprocess.Popen(
      command,
      cwd=part_context.ROOT,
      env=os.environ | programs.ON_CPU,
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )
  _number_file(context).write_text(str(process.pid))
  context.record("sample", state="begun in the background")
