"""Tests of encoders as serialised StableHLO, run by JAX alone."""

import dataclasses
import pathlib
import re
import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest

import pcl_jax
from pcl_jax import export
from pcl_jax.embedding.bundles import golden_audio
from pcl_jax.interop import stablehlo_files
from pcl_jax.interop import torch_names
from tests.support.published import golden_weights

pytest.importorskip("flatbuffers")
pytestmark = pytest.mark.usefixtures("quick_compilation")

DOC = pathlib.Path(__file__).parents[2] / "docs" / "weights.md"
PATCH = 65_536  # Samples.
# Whole patches begin with ceil(samples / 256) + 1 frames = 256.
COUNTS = (1, 300, PATCH - 512, 2 * PATCH - 512, 2 * PATCH - 511, 3 * PATCH)


def _loader() -> str:
  """Returns the lines of docs/weights.md that read a file."""
  found = re.findall(r"^```python\n(.*?)^```", DOC.read_text(), re.S | re.M)
  (lines,) = [one for one in found if "jax.export.deserialize" in one]
  return lines


def _recording(samples: int) -> np.ndarray:
  audio = np.resize(golden_audio.generate(), samples)
  audio[0] = 0.1  # Not silent.
  return audio


def _refused(out: pathlib.Path, message: str, *flags: str) -> None:
  there = out.exists() and out.read_bytes()
  with pytest.raises(pcl_jax.InputError, match=message) as caught:
    export.main([*flags, f"--out={out}", "--format=stablehlo"])
  assert "\n" not in str(caught.value)
  assert there == (out.exists() and out.read_bytes())


def test_the_command_writes_one_program_for_all_platforms(
  narrow_run, narrow_encoders, tmp_path, capsys, monkeypatch
):
  out, flag = tmp_path / "new" / "a.stablehlo", f"--workdir={narrow_run}"
  export.main([flag, f"--out={out}", "--format=stablehlo"])
  assert f"written to {out}" in capsys.readouterr().out
  program = jax.export.deserialize(bytearray(out.read_bytes()))
  assert set(program.platforms) == {"cpu", "cuda", "rocm", "tpu"}
  digest = narrow_encoders["sc_cnn"].about["weights_sha256"]
  assert program.fun_name == f"pcl_jax_encoder_{digest[:12]}"
  assert str(program.in_avals) == "(ShapedArray(float32[patches,65792]),)"
  assert [str(one.shape) for one in program.out_avals] == [
    "(patches, 64)", "(patches, 128)",
  ]  # fmt: skip
  # Nothing that one platform alone knows: another's compiler would refuse it.
  calls = set(re.findall(r"custom_call @(\w+)", program.mlir_module()))
  assert calls == {"shape_assertion"}
  _refused(out, "a.stablehlo exists: .*--force", flag)
  _refused(tmp_path / "a.zip", "does not end in .stablehlo", flag)
  monkeypatch.setitem(sys.modules, "flatbuffers", None)
  _refused(
    tmp_path / "b.stablehlo", r'pip install "pcl_jax\[stablehlo\]"', flag
  )


def test_weights_that_are_not_finite_are_refused(narrow_encoders, tmp_path):
  encoder = narrow_encoders["sc_cnn"]
  arrays = golden_weights.draw_narrow_state_dict("sc_cnn")
  arrays["fc_audio.fc.3.bias"][5] = np.nan
  odd = type(encoder)(
    torch_names.load_encoder(arrays), encoder.about, encoder.meta
  )
  with pytest.raises(pcl_jax.InputError, match="not finite, in projection"):
    stablehlo_files.write(tmp_path / "a.stablehlo", odd)
  assert not list(tmp_path.iterdir())


_ALONE = """
import sys
assert not {"pcl_jax", "flax", "scipy"} & sys.modules.keys()
for number, count in enumerate(map(int, sys.argv[1:])):
  np.save(f"{number}.npy", embed(np.load("audio.npy")[:count], batch=2))
"""


@pytest.mark.long
@pytest.mark.parametrize("name", ["resnet", "sc_cnn"])
def test_jax_and_numpy_alone_give_the_vectors_of_embed(
  name, narrow_encoders, tmp_path
):
  encoder = narrow_encoders[name]
  stablehlo_files.write(tmp_path / "encoder.stablehlo", encoder)
  audio = _recording(max(COUNTS))
  np.save(tmp_path / "audio.npy", audio)
  words = [sys.executable, "-I", "-c", _loader() + _ALONE, *map(str, COUNTS)]
  subprocess.run(words, cwd=tmp_path, check=True)
  for number, count in enumerate(COUNTS):
    expected = encoder.embed(
      audio[:count], sample_rate_hz=16_000, per_patch=True, batch_patches=4
    ).vectors
    found = np.load(tmp_path / f"{number}.npy")
    assert found.shape == expected.shape and found.dtype == np.float32
    limit = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit)


@pytest.mark.long
def test_each_platform_computes_in_its_own_way_and_the_same(narrow_encoders):
  """A program whose platforms change places computes here as it would there."""
  program = stablehlo_files.export(narrow_encoders["sc_cnn"])
  rows = _recording(2 * 65_792).reshape(2, -1)
  found, forms = {}, {}
  for platform in program.platforms:
    names = {"cpu": platform, platform: "cpu"}
    there = dataclasses.replace(
      program,
      platforms=tuple(names.get(one, one) for one in program.platforms),
    )
    compiled = jax.jit(there.call).lower(samples_16khz=rows).compile()
    text = compiled.as_text()
    forms[platform] = [text.count(f" {op}(") for op in ("convolution", "fft")]
    found[platform] = np.asarray(compiled(samples_16khz=rows)["features"])
  # The first convolution is a matrix product on CPUs alone.
  assert forms == {"cpu": [6, 1], "cuda": [7, 1], "rocm": [7, 1], "tpu": [7, 0]}
  limit = 1e-4 * np.abs(found["cpu"]).max()
  for one in found.values():
    np.testing.assert_allclose(one, found["cpu"], rtol=0, atol=limit)
