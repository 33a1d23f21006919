"""Tests of benchmarks.accelerator: its time, its failures, all of it tiny."""

import argparse
import gzip
import json
import os
import pathlib
import select
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.accelerator import __main__ as accelerator
from benchmarks.accelerator import part_context
from benchmarks.accelerator import part_list
from benchmarks.accelerator import part_process
from benchmarks.accelerator import trace_summary
from pcl_jax.common import errors

_ROOT = pathlib.Path(__file__).parents[3]


@pytest.mark.parametrize("part", part_list.PARTS.values())
def test_a_part_is_over_in_time_and_in_ten_minutes_or_is_left_out(part):
  for left_s in range(0, 1000):
    seconds = part_list.allotted(part, left_s)
    if seconds is None:
      assert left_s < part.least_s + 20
    else:
      assert part.least_s <= seconds < min(600, left_s)


def test_parts_are_chosen_by_name_or_kind_in_their_order():
  assert part_list.chosen(None) == list(part_list.PARTS)
  assert part_list.chosen("loop,steps") == [
    "steps_resnet",
    "steps_sc_cnn",
    "loop",
  ]
  assert part_list.chosen("steps_sc_cnn") == ["steps_sc_cnn"]


@pytest.mark.parametrize("text", ["", "step", "loop,lop"])
def test_what_is_no_part_is_refused(text):
  with pytest.raises(errors.InputError, match="the parts are environment"):
    part_list.chosen(text)


def _flags(folder):
  return argparse.Namespace(out=folder, scratch=folder, tiny=True, tree=None)


def _ends(pid):
  """Waits for a process that was killed, which may be under way still."""
  try:
    handle = os.pidfd_open(pid)
  except ProcessLookupError:
    return True
  try:
    return bool(select.select([handle], [], [], 60)[0])
  finally:
    os.close(handle)


def test_a_part_that_hangs_is_stopped_with_all_that_it_started(
  tmp_path, monkeypatch
):
  """A shell that starts another process and waits stands in for a part."""
  script = tmp_path / "hangs"
  script.write_text(
    f"#!/bin/sh\necho begun\nsleep 600 &\necho $! >{tmp_path}/pid\nwait\n"
  )
  script.chmod(0o755)
  monkeypatch.setattr(part_process.sys, "executable", str(script))
  code, _ = part_process.run("loss", _flags(tmp_path), 0.5)
  assert code is None
  assert (tmp_path / "loss.log").read_text() == "begun\n"
  assert _ends(int((tmp_path / "pid").read_text()))


def test_a_part_that_fails_is_said_and_the_others_go_on(
  tmp_path, monkeypatch, capsys
):
  ran = []

  def run(name, flags, seconds):
    ran.append(name)
    (flags.out / f"{name}.log").write_text("Error: no device\n")
    context = part_context.Context(
      name, flags.out, flags.scratch, True, None, 0
    )
    if name == "search":
      context.record("1 query", seconds=0.25)
      context.record("2 queries", error="out of memory")
    return (3 if name == "loss" else 0), 1.0

  monkeypatch.setattr(part_process, "run", run)
  words = [f"--out={tmp_path}", f"--scratch={tmp_path}", "--minutes=5"]
  code = accelerator.main([*words, "--parts=loss,search,warp,environment"])
  assert code == 1 and ran == ["environment", "loss", "search", "warp"]
  printed = capsys.readouterr().out
  assert "search: 1 query: seconds 0.25" in printed
  assert "Error: no device" in printed
  last = printed.splitlines()[-1]
  assert "loss ended with exit code 3" in last
  assert "search had errors in 2 queries" in last
  rows = (tmp_path / part_context.RESULTS).read_text().splitlines()
  assert [json.loads(row)["name"] for row in rows] == ["1 query", "2 queries"]


def test_what_there_is_no_time_for_is_said(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(part_process, "run", lambda *_: (0, 1.0))
  words = [f"--out={tmp_path}", f"--scratch={tmp_path}", "--minutes=0.6"]
  assert accelerator.main([*words, "--parts=environment,loop"]) == 0
  assert "left out for want of time: loop" in capsys.readouterr().out


def test_a_tree_without_the_project_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match="has no folder pcl_jax"):
    accelerator.main([f"--tree={tmp_path}", f"--out={tmp_path / 'out'}"])
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seed", range(20))
def test_the_busy_time_of_a_trace_is_that_of_the_union_of_its_events(seed):
  rng = np.random.default_rng(seed)
  firsts = rng.integers(0, 40, seed)
  lengths = rng.integers(1, 10, seed)
  covered = np.zeros(64, bool)
  for first, length in zip(firsts, lengths, strict=True):
    covered[first : first + length] = True
  spans = list(zip(firsts.tolist(), (firsts + lengths).tolist(), strict=True))
  busy, gaps = trace_summary.busy_us(spans)
  used = np.flatnonzero(covered)
  inside = used[-1] - used[0] + 1 if len(used) else 0
  assert busy == covered.sum()
  assert sum(gaps) == inside - covered.sum()


def test_a_trace_is_kept_under_a_name_that_any_transfer_takes(tmp_path):
  """Some take letters, digits, dots, lines and hyphens alone."""
  profile = tmp_path / "profile"
  profile.mkdir()
  events = [{"ph": "X", "pid": 1, "tid": 1, "name": "step", "ts": 0, "dur": 5}]
  with gzip.open(profile / "host.trace.json.gz", "wt") as file:
    json.dump({"traceEvents": events}, file)
  context = part_context.Context("loop", tmp_path, tmp_path, True, None, 0)
  trace_summary.record(context, profile, "loop resnet bfloat16, resident")
  kept = tmp_path / "loop_resnet_bfloat16__resident.trace.json.gz"
  assert kept.read_bytes() == (profile / "host.trace.json.gz").read_bytes()


@pytest.mark.long
def test_all_parts_run_tiny_on_a_cpu(tmp_path):
  done = subprocess.run(
    [
      sys.executable,
      "-m",
      "benchmarks.accelerator",
      "--tiny",
      "--minutes=40",  # More than is needed, however slow the machine is.
      f"--out={tmp_path / 'out'}",
      f"--scratch={tmp_path / 'scratch'}",
      f"--tree={_ROOT}",
    ],
    cwd=_ROOT,
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout[-4000:]
  assert "left out for want of time" not in done.stdout
  lines = (tmp_path / "out" / part_context.RESULTS).read_text().splitlines()
  assert {json.loads(line)["part"] for line in lines} == set(part_list.PARTS)
