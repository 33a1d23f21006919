"""Tests of the programs for GPUs and TPUs, which no device is needed for.

They are lowered for both, and where jax's wheels for CUDA are installed the
training step is compiled for an H100.
"""

import collections
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from benchmarks.ahead_of_time import device_programs
from pcl_jax.training import train_step

PLATFORMS = ("cuda", "tpu")
# Convolutions of a network, and with those of their gradients; the first of
# ResNet-18 needs none for its images. The forms for CPUs have products in place
# of some.
CONVOLUTIONS = {"resnet": (20, 59), "sc_cnn": (7, 21)}
NARROW = {"resnet": 4, "sc_cnn": 4}


def _mesh(devices=1):
  return train_step.make_mesh(jax.devices()[:devices])


def _texts(program):
  """Lowers for both platforms."""
  traced = program.trace()
  for platform in PLATFORMS:
    yield traced.lower(lowering_platforms=(platform,)).as_text()


def _operations(text):
  """Returns how often each operation is there."""
  counts = collections.Counter(re.findall(r"\bstablehlo\.(\w+)", text))
  assert not re.search(r"[<x]f64>", text)
  assert "callback" not in text
  counts["case"] -= _settled(text)
  return counts


def _settled(text):
  """Counts the choices of a form for the platform: their index is constant."""
  settled = set()
  found = re.findall(r'(%\w+)(?::\d+)? = "stablehlo.case"\((%\w+)\)', text)
  number = 0
  for result, index in found:
    if index.startswith("%c") or index in settled:
      settled.add(result)
      number += 1
  return number


def _assert_no_waits(program, convolutions):
  for text in _texts(program):
    counts = _operations(text)
    for name in ("while", "case", "if", "reduce_window", "select_and_scatter"):
      assert not counts[name], name
    assert counts["convolution"] == convolutions


def _steps(strategy, backbone, **how):
  return device_programs.steps(
    strategy, backbone, _mesh(), rows=16, width=NARROW[backbone], **how
  )


@pytest.mark.parametrize(
  ("strategy", "backbone"),
  [
    pytest.param(
      strategy,
      backbone,
      marks=[]
      if (strategy, backbone) == ("hybrid", "sc_cnn")
      else pytest.mark.long,
    )
    for strategy in device_programs.STRATEGIES
    for backbone in CONVOLUTIONS
  ],
)
def test_steps_have_no_loop_no_branch_and_no_form_for_cpus(strategy, backbone):
  train, evaluate = _steps(strategy, backbone)
  forward, both = CONVOLUTIONS[backbone]
  _assert_no_waits(train, both)
  if strategy == "hybrid":
    _assert_no_waits(evaluate, forward)


@pytest.mark.parametrize(
  "how",
  [
    {"microbatches": 2},
    {"remat": True},
    {"microbatches": 2, "remat": True},
    {"tiled_above": 1, "tile": 8},
  ],
)
@pytest.mark.long
def test_loops_of_a_step_have_a_length_that_is_known(how):
  """Parts of a batch and tiles are loops; each counts its turns."""
  train, _ = _steps("hybrid", "resnet", **how)
  _assert_known_loops(train)


def test_what_else_runs_on_devices_is_lowered_for_them():
  for backbone, (count, _) in CONVOLUTIONS.items():
    embed = device_programs.embedder(backbone, jnp.bfloat16, NARROW[backbone])
    _assert_no_waits(embed, count)
  _assert_known_loops(device_programs.tiled_loss(64, _mesh()))
  for name, program in device_programs.others():
    if name == "playlist vectors":  # Draws until songs are found.
      for text in _texts(program):
        _operations(text)
    else:
      _assert_known_loops(program)


def _assert_known_loops(program):
  """Asserts that all loops count to a constant."""
  for text in _texts(program):
    loops = _operations(text)["while"]
    known = re.findall(
      r"cond \{\s+%c\S* = stablehlo\.constant dense<\d+>[^\n]*\n"
      r"\s+%\S+ = stablehlo\.compare +LT, %iterArg\S*, %c\S*",
      text,
    )
    assert loops == len(known)


# Of the step of strategy Hybrid, 768 patches, on one H100: GB through memory,
# and launches.
H100 = {
  ("resnet", "bfloat16"): (18.0, 442),
  ("resnet", "float32"): (32.7, 455),
  ("sc_cnn", "bfloat16"): (36.9, 289),
  ("sc_cnn", "float32"): (69.8, 283),
}


def _compiled(*flags):
  """Compiles a step for H100s; returns what the tool prints, or skips."""
  command = sys.executable, "-m", "benchmarks.ahead_of_time", *flags
  done = subprocess.run(command, capture_output=True, text=True)
  if "jax cannot compile for CUDA" in done.stderr:
    pytest.skip(done.stderr.strip())
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.mark.long
@pytest.mark.parametrize(("encoder", "dtype"), H100)
def test_a_step_for_an_h100_is_as_small_as_it_was(encoder, dtype):
  """Where jax's wheels for CUDA are; one to two minutes of a core each."""
  printed = _compiled(f"--encoder={encoder}", f"--dtype={dtype}")
  found = re.search(
    r"([\d.]+) GB through memory, .* held, (\d+) launches .* "
    r"(\d+) loops of unknown length, (\d+) conditionals",
    printed,
  )
  moved, launches, loops, conditionals = map(float, found.groups())
  assert (loops, conditionals) == (0, 0)
  expected_moved, expected_launches = H100[encoder, dtype]
  assert moved <= 1.05 * expected_moved
  assert launches <= 1.05 * expected_launches


@pytest.mark.long
def test_eight_h100s_exchange_moments_projections_and_gradients():
  """Once a batch norm each way, and no rows of the batch."""
  printed = _compiled("--encoder=resnet", "--dtype=bfloat16", "--devices=8")
  found = re.findall(r"^  (\d+) ([a-z-]+), ([\d.]+) MB$", printed, re.MULTILINE)
  counts = {kind: int(count) for count, kind, _ in found}
  assert set(counts) == {"all-gather", "all-reduce"}
  assert sum(counts.values()) <= 45  # 20 batch norms, some side by side.
  assert sum(float(moved) for *_, moved in found) <= 30  # The gradients: 24.
