"""Tests of what is measured of a step, and of compiled programs."""

import types

from flax import nnx
import jax
from jax.experimental.compilation_cache import compilation_cache
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import train_step as torch_step
from pcl_jax.data import strategies
from pcl_jax.models import audio_encoder
from pcl_jax.models import convolution
from pcl_jax.training import profiling
from pcl_jax.training import train_step


class _Product(nnx.Module):
  """A matrix product, of which the operations are known."""

  def __init__(self):
    self.kernel = nnx.Param(jnp.zeros((256 * 48, 8)))

  def __call__(self, batch, training, key=None):
    rows = batch["audio"].reshape(len(batch["audio"]), -1)
    return {"audio": rows @ self.kernel[...]}


def test_operations_of_a_step_are_those_of_its_products_however_it_is_cut():
  optimizer = optax.sgd(0.1)
  graphdef, state = train_step.new_state(_Product(), optimizer)
  strategy = strategies.parse([["audio", "audio_self"]], "")
  mesh = train_step.make_mesh(jax.devices()[:2])
  batch = profiling.shapes_of_batch(64, {"cf": np.zeros((5, 3), np.float32)})
  assert batch["cf"].shape == (64, 3)
  del batch["cf"]
  counted = [
    profiling.step_operations(
      graphdef,
      train_step.Recipe(strategy, 1, 0.1, None, **form),
      mesh,
      state,
      batch,
    )
    for form in ({}, {"microbatches": 4}, {"tiled_above": 8, "tile": 16})
  ]
  assert len(set(counted)) == 1
  products = 2 * 64 * 256 * 48 * 8
  cosines = 2 * 64 * 64 * 8
  # The cosines of partners are products again, of a row with a row.
  assert 3 * (products + cosines) <= counted[0] < 3 * (products + 2 * cosines)


def _audio_encoder(name, width, training=True, remat=False):
  """Returns a network's function of a batch, of shapes only."""
  network = nnx.eval_shape(
    lambda: audio_encoder.AudioEncoder(
      name, width=width, remat=remat, rngs=nnx.Rngs(0)
    )
  )
  graphdef, state = nnx.split(network)

  def run(state, patches):
    return nnx.merge(graphdef, state, copy=True)(patches, training)[1]

  return run, state


def _patches(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize("name", audio_encoder.BACKBONES)
def test_the_products_of_an_encoder_are_those_that_pytorch_counts(name):
  pytest.importorskip("torch")
  run, state = _audio_encoder(name, None)
  forward = profiling.count_products(run, state, _patches(8, 256, 48))
  # Of a step, in which nobody asks ResNet-18 for the gradient of its patches.
  theirs = torch_step.count_operations(name, 8, None)
  assert 3 * forward == pytest.approx(theirs, rel=0.03)


def test_where_padding_is_little_xla_counts_the_same_products():
  """XLA leaves padding out, and adds what are no products: here 3 % of both.

  It counts the zeros that fill channels up as well.
  """
  run, state = _audio_encoder("resnet", 64, remat=True)
  patches = _patches(1, 2048, 1536)
  ours = profiling.count_products(run, state, patches)
  lowered = (
    jax.jit(run).trace(state, patches).lower(lowering_platforms=("tpu",))
  )
  theirs = lowered.cost_analysis()["flops"]
  assert ours == pytest.approx(theirs, rel=0.035)


def test_zeros_that_suit_a_platform_do_not_count():
  """As those that fill up the channels of ResNet's first convolution."""

  def run(x, kernel):
    return convolution.conv_general_dilated(
      x, kernel, (2, 2), padding=[(3, 3)] * 2
    )

  found = profiling.count_products(
    run, _patches(4, 64, 48, 1), _patches(7, 7, 1, 64)
  )
  assert found == 2 * 4 * 32 * 24 * 49 * 64


def test_products_in_a_loop_count_as_often_as_it_turns():
  def run(x):
    return jax.lax.scan(lambda x, _: (x @ x, None), x, length=5)[0]

  assert profiling.count_products(run, _patches(4, 4)) == 5 * 2 * 4**3


@pytest.mark.parametrize(
  "kind, teraflops",
  [
    ("NVIDIA H200", 989),
    ("NVIDIA A100-SXM4-80GB", 312),
    ("TPU v5p", 459),
    ("TPU v5 lite", 197),
    ("cpu", None),
  ],
)
def test_the_peak_of_a_device_is_known_by_its_name(kind, teraflops):
  expected = None if teraflops is None else teraflops * 1e12
  assert profiling.peak_of(kind) == expected


def test_figures_hold_what_is_known_of_the_devices():
  device = types.SimpleNamespace(
    device_kind="NVIDIA H100 80GB HBM3",
    process_index=0,
    memory_stats=lambda: {
      "peak_bytes_in_use": 5_000_000_000,
      "bytes_in_use": 1_500_000_000,
    },
  )
  assert profiling.figures(989e12, 0.5, [device, device]) == {
    "tflops_per_s": 494.5,
    "mfu": 0.25,
    "device_memory_gb": 5.0,
    "device_memory_now_gb": 1.5,
  }
  assert profiling.figures(None, 0.5, jax.devices()) == {}  # A CPU's.


def test_programs_are_kept_where_nobody_has_said_otherwise(
  tmp_path, monkeypatch
):
  before = jax.config.jax_compilation_cache_dir
  try:
    profiling.enable_compilation_cache(tmp_path)
    assert jax.config.jax_compilation_cache_dir == before
    jax.config.update("jax_compilation_cache_dir", None)
    profiling.enable_compilation_cache(tmp_path)
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)
  finally:
    jax.config.update("jax_compilation_cache_dir", before)


def test_an_unwritable_cache_of_compiled_programs_is_done_without(
  tmp_path, capsys
):
  (tmp_path / "file").write_text("mine")
  old = jax.config.jax_compilation_cache_dir
  jax.config.update("jax_compilation_cache_dir", None)
  try:
    profiling.enable_compilation_cache(tmp_path / "file" / "cache")
    assert jax.config.jax_compilation_cache_dir is None
  finally:
    jax.config.update("jax_compilation_cache_dir", old)
  assert "warning: compiled programs cannot be kept" in capsys.readouterr().err


@pytest.mark.parametrize("left", [0, 20, None])
def test_a_damaged_file_of_the_compilation_cache_is_warned_of_and_made_anew(
  left, tmp_path
):
  """Cut to so many bytes, or with a flipped one in its middle."""

  def compile_anew():
    return jax.jit(lambda x: jnp.sin(x) * 3 + 1)(np.float32(0.0))

  old = jax.config.jax_compilation_cache_dir
  seconds = jax.config.jax_persistent_cache_min_compile_time_secs
  jax.config.update("jax_compilation_cache_dir", str(tmp_path))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
  compilation_cache.reset_cache()
  try:
    assert compile_anew() == 1
    files = [one for one in tmp_path.iterdir() if one.name.endswith("-cache")]
    assert files
    for path in files:
      data = bytearray(path.read_bytes())
      data[len(data) // 2] ^= 255
      path.write_bytes(data if left is None else data[:left])
    with pytest.warns(UserWarning, match="Error reading persistent compil"):
      assert compile_anew() == 1
  finally:
    jax.config.update("jax_compilation_cache_dir", old)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)
    compilation_cache.reset_cache()


def test_a_start_too_short_for_a_trace_says_so(tmp_path, capsys):
  trace = profiling.Trace(tmp_path / "profile")
  for _ in range(8):
    trace.record_step(None)
  trace.close()
  assert "step 10 of a start" in (said := capsys.readouterr().out)
  assert "this one had 8" in said and not (tmp_path / "profile").exists()
