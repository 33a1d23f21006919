"""Tests of benchmarks.host_loop."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import host_loop
from pcl_jax.training import train_step


def test_a_clock_is_as_busy_as_its_steps_fill_the_time(monkeypatch):
  now = 0.0

  def sleep(seconds):
    nonlocal now
    now += seconds

  monkeypatch.setattr("time.perf_counter", lambda: now)
  monkeypatch.setattr("time.sleep", sleep)
  clock = host_loop.Clock(0.010)
  state, before = {"step": np.int32(0)}, None
  for _ in range(60):
    now += 0.002  # Of the host, which is one step ahead of the device.
    state, terms = clock.train(state, {}, None)
    if before is not None:
      assert jax.device_get(before)["total"] == 1
    before = terms
  assert terms.keys() == {*host_loop._TERMS, train_step.SKIPPED}
  figures = clock.figures(patches=8)
  assert figures["busy"] == pytest.approx(1)
  assert figures["patches/s"] == pytest.approx(800)


@pytest.mark.long  # Trains for seconds.
def test_the_real_loop_runs_beside_a_clock():
  """In a process of its own, where types are not checked."""
  flags = "--step_ms=5 --threads=1 --rows=8 --steps=30 --songs=100 --rounds=1"
  done = subprocess.run(
    [sys.executable, "-m", "benchmarks.host_loop", *flags.split()],
    capture_output=True,
    check=True,
    text=True,
  )
  assert "step 5 ms, 1 threads: busy" in done.stdout
