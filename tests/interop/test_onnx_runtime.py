"""Tests of `embed --runtime=onnx`."""

import pathlib
import sys

import numpy as np
import pytest

import pcl_jax
from pcl_jax import embed
from tests.support.tiny import tiny_library

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("quick_compilation")


def _write_song(folder: pathlib.Path, number: int) -> None:
  name = folder / "music" / f"{number}.wav"
  tiny_library.write_song(name, 300.0 + 90 * number, seconds=1.0 + 8 * number)


@pytest.fixture
def folder(tmp_path, narrow_run) -> pathlib.Path:
  """A folder with a song."""
  _write_song(tmp_path, 0)
  return tmp_path


def _embed(folder: pathlib.Path, name: str, *flags: str) -> None:
  embed.main(
    ["--workdir=run", f"--audio={folder / 'music'}", f"--out={folder / name}"]
    + ["--batch_patches=4", *flags]
  )


def test_a_table_is_that_of_jax_and_says_its_runtime(folder):
  _write_song(folder, 1)
  tables = []
  for runtime in ("jax", "onnx"):
    _embed(folder, runtime, f"--runtime={runtime}")
    tables.append(pcl_jax.read_table(folder / runtime))
  jax_made, onnx_made = tables
  assert onnx_made.ids == jax_made.ids == ["0.wav", "1.wav"]
  limit = 1e-5 * np.abs(jax_made.vectors).max()
  np.testing.assert_allclose(
    onnx_made.vectors, jax_made.vectors, rtol=0, atol=limit
  )
  assert onnx_made.about["runtime"].startswith("onnxruntime ")
  assert "runtime" not in jax_made.about
  for runtime, other in (("jax", "onnx"), ("onnx", "jax")):
    with pytest.raises(pcl_jax.InputError, match="made otherwise .runtime: "):
      _embed(folder, runtime, f"--runtime={other}")


def test_an_update_gives_the_bits_of_a_table_made_at_once(folder):
  _embed(folder, "updated", "--runtime=onnx")
  _write_song(folder, 1)
  _embed(folder, "updated", "--runtime=onnx")
  _embed(folder, "whole", "--runtime=onnx")
  updated, whole = (
    pcl_jax.read_table(folder / name).vectors for name in ("updated", "whole")
  )
  np.testing.assert_array_equal(updated, whole)


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(folder, monkeypatch, missing):
  monkeypatch.setitem(sys.modules, missing, None)
  with pytest.raises(pcl_jax.InputError, match=r"pcl_jax\[onnx\]") as caught:
    _embed(folder, "table", "--runtime=onnx")
  assert f"package {missing}," in str(caught.value)
  assert not (folder / "table").exists()
