"""Tests of the programs for GPUs and TPUs, which no device is needed for.

They are lowered for both, and where jax's wheels for CUDA are installed the
training step is compiled for an H100.
"""

import collections
import importlib.metadata
import itertools
import re
import subprocess
import sys

from flax import nnx
import jax
import jax.numpy as jnp
import pytest

from benchmarks.ahead_of_time import device_programs
from pcl_jax.common import jax_setup
from pcl_jax.models import layers
from pcl_jax.training import train_step
from tests.support import quick_backbone

PLATFORMS = ("cuda", "tpu")
# Strategies and networks that are lowered by `make test`.
SHORT = (("hybrid", "sc_cnn"), ("ss", "resnet"))
NARROW = {"resnet": 4, "sc_cnn": 4}
# Convolutions of a network, and with those of their gradients; the first of
# ResNet-18 needs none for its images. The forms for CPUs have products in place
# of some.
CONVOLUTIONS = {"resnet": (20, 59), "sc_cnn": (7, 21)}


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
    pytest.param(*both, marks=[] if both in SHORT else pytest.mark.long)
    for both in itertools.product(device_programs.STRATEGIES, CONVOLUTIONS)
  ],
)
def test_steps_have_no_loop_no_branch_and_no_form_for_cpus(strategy, backbone):
  train, evaluate = _steps(strategy, backbone)
  forward, both = CONVOLUTIONS[backbone]
  _assert_no_waits(train, both)
  if strategy == "hybrid":
    _assert_no_waits(evaluate, forward)


def _quick_step(strategy, monkeypatch, **how):
  """A training step around a network that is lowered at once."""
  quick_backbone.register(monkeypatch)
  name = quick_backbone.NAME
  return device_programs.steps(
    strategy, name, _mesh(), rows=16, width=4, **how
  )[0]


@pytest.mark.parametrize("strategy", ["cm", "aim"])
def test_a_step_around_any_network_has_no_loop_and_no_branch(
  strategy, monkeypatch
):
  """The strategies that the short selection does not have above."""
  _assert_no_waits(_quick_step(strategy, monkeypatch), 0)


@pytest.mark.parametrize(
  "precision, of_all", [(None, False), ("highest", True)]
)
def test_products_are_as_precise_as_the_recipe_says(
  precision, of_all, monkeypatch
):
  """Those of the loss always are."""
  step = _quick_step("ss", monkeypatch, precision=precision)
  for text in _texts(step):
    products = re.findall(r"stablehlo\.dot_general.*", text)
    precise = ["[HIGHEST, HIGHEST]" in product for product in products]
    assert any(precise)
    assert all(precise) == of_all


def test_convolutions_are_as_precise_as_is_asked_both_ways():
  convolution = layers.Conv(2, 2, (3, 3), padding=1, rngs=nnx.Rngs(0))
  graphdef, weights = nnx.split(convolution)

  def total(weights, x):
    return nnx.merge(graphdef, weights)(x).sum()

  gradients = jax_setup.in_precision(jax.grad(total, (0, 1)), "highest")
  shape = jax.ShapeDtypeStruct((1, 4, 4, 2), jnp.float32)
  program = device_programs.DeviceProgram(jax.jit(gradients), (weights, shape))
  for text in _texts(program):
    found = re.findall(r"stablehlo\.convolution.*", text)
    assert len(found) == 2
    assert all("precision HIGHEST" in one for one in found)


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


EXCHANGES = {"all-gather": (20, 4.4), "all-reduce": (21, 27.1)}
# Of the step of strategy Hybrid, 768 patches, for each of so many H100s: GB
# through memory, launches, and of each kind of exchange number and MB.
H100 = {
  ("resnet", "bfloat16", 1): (18.1, 443, {}),
  ("resnet", "float32", 1): (32.8, 456, {}),
  ("sc_cnn", "bfloat16", 1): (36.9, 289, {}),
  ("sc_cnn", "float32", 1): (69.8, 283, {}),
  ("resnet", "bfloat16", 8): (4.3, 605, EXCHANGES),
}


def _compiled(*flags):
  """Compiles a step for H100s; returns what the tool prints, or skips."""
  plugins = importlib.metadata.entry_points(group="jax_plugins")
  if not any("cuda" in plugin.name for plugin in plugins):
    pytest.skip("needs jax's wheels for CUDA: pip install jax[cuda13]")
  command = sys.executable, "-m", "benchmarks.ahead_of_time", *flags
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.mark.long
@pytest.mark.parametrize(("encoder", "dtype", "devices"), H100)
def test_a_step_for_h100s_is_what_the_docs_say(encoder, dtype, devices):
  """Where jax's wheels for CUDA are; a minute of a core each.

  A collective-permute among the exchanges would be rows of the batch that move.
  """
  printed = _compiled(
    f"--encoder={encoder}", f"--dtype={dtype}", f"--devices={devices}"
  )
  found = re.search(
    r"([\d.]+) GB through memory, .* held, (\d+) launches .* "
    r"(\d+) loops of unknown length, (\d+) conditionals",
    printed,
  )
  moved, launches, loops, conditionals = map(float, found.groups())
  assert (loops, conditionals) == (0, 0)
  expected_moved, most_launches, exchanges = H100[encoder, dtype, devices]
  assert moved == pytest.approx(expected_moved, rel=0.05)
  assert launches <= 1.05 * most_launches
  found = re.findall(r"^  (\d+) ([a-z-]+), ([\d.]+) MB$", printed, re.MULTILINE)
  assert {kind for _, kind, _ in found} == set(exchanges)
  for count, kind, megabytes in found:
    most, most_megabytes = exchanges[kind]
    assert int(count) <= most and float(megabytes) <= 1.05 * most_megabytes
