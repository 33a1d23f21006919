"""Tests that a converter of tars may be killed and started again."""

import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from pcl_jax.common import errors
from preprocessing.melon import conversion
from preprocessing.melon import melon_ledger
from tests.support.tiny import tiny_melon

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture
def tars(tmp_path):
  """Three tars of seventy songs, one of them bad, one missing."""
  return tiny_melon.write_three_tars(tmp_path)


def test_a_killed_worker_process_is_one_message(tars):
  song_ids = np.array([*tiny_melon.IDS, 9000])
  ledger = melon_ledger.Ledger(song_ids, {}, tars, [])
  job = conversion.Job(tars, song_ids, 1)
  with pytest.raises(errors.RunError, match=r"exit code -9.*same command"):
    with conversion.run_tasks(
      ledger.tar_tasks(), job, 1, processes=True
    ) as batches:
      [process] = multiprocessing.active_children()
      os.kill(process.pid, signal.SIGKILL)
      list(batches)
  assert not multiprocessing.active_children()


# Tells of each commit before and after; told to, waits for an answer.
_CHILD = """
import pathlib, sys
from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from preprocessing.melon import conversion
from preprocessing.melon import converter
converter._SONGS_PER_COMMIT = 8
conversion._BATCH_BYTES = 1
commit = song_writer.SongWriter._commit
def tell(line):
  print(line, flush=True)
  if sys.argv[3] == "wait":
    sys.stdin.readline()
def telling(self, *arguments):
  tell("begin")
  commit(self, *arguments)
  tell("end")
song_writer.SongWriter._commit = telling
folder = pathlib.Path(sys.argv[1])
converter.build_song_store(
  folder, folder / "broken", max_skipped_share=1.0, workers=2,
  processes=sys.argv[2] == "processes",
)
"""


def _run_and_kill(
  folder: pathlib.Path, kind: str, lines: int, *, wait: bool
) -> bool:
  """Kills a converter after some lines; returns whether it had finished.

  Args:
    folder: the Melon folder.
    kind: of its workers.
    lines: told before and after commits.
    wait: whether it stands still at the last one; else it runs on meanwhile.
  """
  process = subprocess.Popen(
    [sys.executable, "-c", _CHILD, folder, kind, "wait" if wait else "run"],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
    bufsize=1,
  )
  with process:
    for line in process.stdout:
      lines -= line in ("begin\n", "end\n")
      if lines <= 0:
        process.kill()
        break
      if wait:
        process.stdin.write("\n")
  assert process.returncode in (0, -signal.SIGKILL)
  return process.returncode == 0


@pytest.mark.parametrize(
  ("kind", "kills"), [("threads", (1, 4)), ("processes", (1, 5))]
)
def test_killed_and_started_again_it_ends_with_the_same_content(
  tars, kind, kills
):
  expected = tiny_melon.content(tiny_melon.build(tars, "whole"))
  for lines in kills:
    assert not _run_and_kill(tars, kind, lines, wait=True)
    assert not (tars / "broken" / "songs.lmdb").exists()
  assert tiny_melon.content(tiny_melon.build(tars, "broken")) == expected


@pytest.mark.long
@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_killed_at_many_moments_it_ends_with_the_same_content(tars, kind):
  expected = tiny_melon.content(tiny_melon.build(tars, "whole"))
  for lines in [*range(1, 20), 1000]:
    shutil.rmtree(tars / "broken", ignore_errors=True)
    for again in (lines, lines // 2 + 1):
      if _run_and_kill(tars, kind, again, wait=False):
        break
    assert tiny_melon.content(tiny_melon.build(tars, "broken")) == expected
