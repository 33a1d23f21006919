"""Tests of encoders as ONNX files, run by onnxruntime."""

import json
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import pcl_jax
from pcl_jax import export
from pcl_jax.audio import melspectrogram
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.bundles import golden_audio
from pcl_jax.interop import onnx_files
from pcl_jax.interop import onnx_graph
from pcl_jax.interop import onnx_runtime
from pcl_jax.interop import torch_names
from pcl_jax.models import compiled_encoder
from pcl_jax.models import layers
from tests.support.published import golden_weights

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("quick_compilation")

PATCH = 65_536  # Samples.


@pytest.fixture(scope="module")
def session(encoder, tmp_path_factory) -> onnxruntime.InferenceSession:
  """Its file, opened as anyone would."""
  out = tmp_path_factory.mktemp("onnx") / "encoder.onnx"
  onnx_files.write(out, encoder)
  return onnxruntime.InferenceSession(out)


def _assert_alike(found: np.ndarray, expected: np.ndarray) -> None:
  """Compares vectors to 1e-4 of the largest number."""
  assert found.dtype == np.float32
  limit = 1e-4 * np.abs(expected).max()
  np.testing.assert_allclose(found, expected, rtol=0, atol=limit)


# Whole patches begin with ceil(samples / 256) + 1 frames = 256.
@pytest.mark.parametrize(
  "samples, patches",
  [
    (1, 1),
    (300, 1),
    (PATCH - 512, 1),
    (2 * PATCH - 512, 1),
    (2 * PATCH - 511, 2),
    (17 * PATCH, 17),  # The last one alone in its chunk.
  ],
)
def test_a_file_gives_the_vectors_of_embed(encoder, session, samples, patches):
  audio = np.resize(golden_audio.generate(), samples)
  audio[0] = 0.1  # Not silent.
  features, projection = session.run(None, {"samples": audio})
  expected = encoder.embed(
    audio, sample_rate_hz=16_000, per_patch=True, batch_patches=4
  ).vectors
  assert len(features) == patches
  _assert_alike(features, expected)
  projected = encoder.network.projection(jnp.asarray(expected), False)
  _assert_alike(projection, np.asarray(projected))


def test_a_file_says_what_it_takes_and_what_it_is(encoder, session, tmp_path):
  (taken,), given = session.get_inputs(), session.get_outputs()
  assert (taken.name, taken.type, taken.shape) == (
    "samples", "tensor(float)", ["n"],
  )  # fmt: skip
  assert [(one.name, one.shape) for one in given] == [
    ("features", ["patches", 64]),
    ("projection", ["patches", 128]),
  ]
  said = session.get_modelmeta().custom_metadata_map
  assert json.loads(said.pop("feature")) == encoder.meta["feature"]
  assert said.pop("made_with").startswith("pcl_jax ")
  assert said == {
    "format": "pcl_jax.encoder",
    "format_version": "1",
    "sample_rate_hz": "16000",
    "patch_seconds": "4.096",
    "channels": "mean",
    "weights_sha256": encoder.about["weights_sha256"],
    "strategy": "SS",
    "step": "3",
    "license": "other",
  }
  model = onnx_graph.of_samples(encoder.network)
  assert [(one.domain, one.version) for one in model.opset_import] == [("", 17)]
  onnx_files.write(tmp_path / "a.onnx", encoder)
  onnx_files.write(tmp_path / "b.onnx", encoder)
  first, second = (tmp_path / f"{one}.onnx" for one in "ab")
  assert first.read_bytes() == second.read_bytes()


def test_onnxruntime_computes_the_network_as_jax_does(encoder):
  patches = np.random.default_rng(0).uniform(-2, 1, (4, 256, 48))
  patches = patches.astype(np.float16)
  ours = compiled_encoder.make_embedder(encoder.network)(patches)
  theirs = onnx_runtime.make_embedder(encoder.network)(patches)
  _assert_alike(theirs, np.asarray(ours))


_ALONE = """
import sys
import numpy as np
import onnxruntime
import soundfile
import soxr
model, song, out = sys.argv[1:]
audio, rate_hz = soundfile.read(song, dtype="float32", always_2d=True)
samples = soxr.resample(audio.mean(axis=1), rate_hz, 16_000)
session = onnxruntime.InferenceSession(model)
features, _ = session.run(None, {"samples": samples})
np.save(out, features.mean(axis=0))
assert not {"jax", "pcl_jax", "onnx", "scipy"} & sys.modules.keys()
"""


@pytest.mark.long
@pytest.mark.parametrize("name", ["resnet", "sc_cnn"])
def test_a_recording_has_our_vector_where_onnxruntime_is_alone(
  name, shared_dir, tmp_path
):
  network = torch_names.load_encoder(golden_weights.draw_state_dict(name))
  encoder = song_encoder.SongEncoder(
    network,
    {"weights_sha256": "", "strategy": "SS", "step": 0},
    {"feature": melspectrogram.SETTINGS.as_dict()},
  )
  model, out = tmp_path / "a.onnx", tmp_path / "vector.npy"
  onnx_files.write(model, encoder)
  for song in sorted((shared_dir / "audio").glob("*.ogg")):
    command = [sys.executable, "-c", _ALONE, model, song, out]
    subprocess.run(command, cwd=tmp_path, check=True)
    _assert_alike(np.load(out), encoder.embed(song, batch_patches=16))


def _refused(out: pathlib.Path, message: str, *flags: str) -> None:
  there = out.exists() and out.read_bytes()
  with pytest.raises(pcl_jax.InputError, match=message) as caught:
    export.main([*flags, f"--out={out}", "--format=onnx"])
  assert "\n" not in str(caught.value)
  assert there == (out.exists() and out.read_bytes())


def test_the_command_writes_a_file_and_refuses_others(
  narrow_run, tmp_path, capsys, monkeypatch
):
  out, flag = tmp_path / "new" / "a.onnx", f"--workdir={narrow_run}"
  export.main([flag, f"--out={out}", "--format=onnx", "--license=mit"])
  assert f"written to {out}" in capsys.readouterr().out
  said = {one.key: one.value for one in onnx.load(out).metadata_props}
  assert (said["license"], said["step"]) == ("mit", "3")
  _refused(out, "a.onnx exists: .*--force", flag)
  _refused(tmp_path / "a.zip", "does not end in .onnx", flag)
  _refused(tmp_path / "b.onnx", "is no identifier", flag, "--license=a b")
  monkeypatch.setitem(sys.modules, "onnx", None)
  _refused(tmp_path / "b.onnx", r'pip install "pcl_jax\[onnx\]"', flag)


@pytest.fixture
def odd_encoder() -> song_encoder.SongEncoder:
  """A narrow encoder that tests change."""
  arrays = golden_weights.draw_narrow_state_dict("sc_cnn")
  meta = {"feature": melspectrogram.SETTINGS.as_dict()}
  return song_encoder.SongEncoder(torch_names.load_encoder(arrays), {}, meta)


def test_weights_that_are_not_finite_are_refused(odd_encoder, tmp_path):
  odd_encoder.network.projection.output.bias[...] = jnp.full(128, jnp.nan)
  with pytest.raises(pcl_jax.InputError, match="not finite, in projection"):
    onnx_files.write(tmp_path / "a.onnx", odd_encoder)
  assert not list(tmp_path.iterdir())


def test_an_unknown_backbone_is_refused(odd_encoder):
  odd_encoder.network.backbone = layers.BatchNorm(1)
  with pytest.raises(pcl_jax.InputError, match="BatchNorm has no ONNX form"):
    onnx_graph.of_patches(odd_encoder.network)
