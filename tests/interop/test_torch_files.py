"""Tests of PyTorch's state dicts on disk, and of the commands for them."""

import json
import pathlib
import pickle
import sys

import numpy as np
import pytest
import safetensors.numpy

import pcl_jax
from pcl_jax import export
from pcl_jax import import_weights
from pcl_jax.audio import channel_mix
from pcl_jax.audio import melspectrogram
from pcl_jax.embedding import encoder_loading
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.bundles import bundle_files
from pcl_jax.interop import onnx_files
from pcl_jax.interop import stablehlo_files
from pcl_jax.interop import torch_files
from pcl_jax.interop import torch_names
from tests.support.published import golden_weights

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
  """The state dict of a narrow short-chunk CNN."""
  found = golden_weights.draw_narrow_state_dict("sc_cnn")
  return {k: v for k, v in found.items() if "num_batches" not in k}


def _write(path: pathlib.Path, arrays) -> pathlib.Path:
  safetensors.numpy.save_file(arrays, path)
  return path


def test_there_and_back_every_bit_stays(drawn, tmp_path, capsys):
  file = _write(tmp_path / "a.safetensors", drawn)
  bundle, back = tmp_path / "bundle", tmp_path / "b.safetensors"
  import_weights.main([f"--torch={file}", f"--out={bundle}"])
  assert "sc_cnn of width 8" in capsys.readouterr().out
  flags = [f"--workdir={bundle}", f"--out={back}", "--format=torch"]
  capsys.readouterr()
  export.main([*flags, "--license=mit"])
  assert "has no place for --license" in capsys.readouterr().out
  found = safetensors.numpy.load_file(back)
  assert found.keys() == drawn.keys()
  for name, array in found.items():
    np.testing.assert_array_equal(array, drawn[name])
  card = (bundle / bundle_files.CARD).read_text()
  assert "not on record: the weights were imported" in card
  origin = json.loads((bundle / bundle_files.CONFIG).read_text())["origin"]
  assert (origin["strategy"], origin["data"]["songs"]) == ("unknown", None)
  with pytest.raises(pcl_jax.InputError, match="b.safetensors exists: .*force"):
    export.main(flags)


@pytest.mark.parametrize("name", ["resnet", "sc_cnn"])
def test_a_file_of_either_network_is_one_of_its_state_dict(name, tmp_path):
  arrays = golden_weights.draw_narrow_state_dict(name)
  encoder = torch_names.load_encoder(arrays)
  torch_files.write(tmp_path / "x.safetensors", encoder)
  found = torch_files.read(tmp_path / "x.safetensors")
  expected = torch_names.state_dict(encoder)
  assert found.keys() == expected.keys()
  for key, array in found.items():
    np.testing.assert_array_equal(array, expected[key])
  assert torch_names.architecture_of(found)["backbone_type"] == name


def test_weights_that_are_not_finite_are_not_written(drawn, tmp_path):
  nan = drawn | {"fc_audio.fc.3.bias": np.full(128, np.nan, np.float32)}
  encoder = torch_names.load_encoder(nan)
  with pytest.raises(pcl_jax.InputError, match="not finite, in fc_audio.fc.3"):
    torch_files.write(tmp_path / "a.safetensors", encoder)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("channels", channel_mix.CHOICES)
@pytest.mark.parametrize("form", ["torch", "onnx", "stablehlo"])
def test_the_command_says_which_channels_a_file_is_to_be_given(
  narrow_encoders, tmp_path, monkeypatch, capsys, form, channels
):
  encoder = narrow_encoders["sc_cnn"]
  feature = melspectrogram.SETTINGS.as_dict(channels)
  learned = song_encoder.SongEncoder(
    encoder.network, encoder.about, encoder.meta | {"feature": feature}
  )
  monkeypatch.setattr(encoder_loading, "load", lambda *_, **__: learned)
  for one in (onnx_files, stablehlo_files):
    monkeypatch.setattr(one, "write", lambda *_, **__: None)
  free = export._FORMATS[form]._replace(check_out=lambda *_, **__: None)
  monkeypatch.setitem(export._FORMATS, form, free)
  out = tmp_path / f"a{export._FORMATS[form].suffixes[0]}"
  export.main(["--workdir=run", f"--out={out}", f"--format={form}"])
  told = capsys.readouterr().out.splitlines()
  words = {"left": ["the left one"], "loudest": ["the loudest one"]}
  assert told[0] == f"written to {out}"
  assert len(told) == 1 + len(words.get(channels, []))
  assert all(one in told[1] for one in words.get(channels, []))


@pytest.mark.parametrize(
  ("name", "form"),
  [
    ("a.safetensors", "torch"),
    ("a.pt", "torch"),
    ("a.onnx", "onnx"),
    ("a.stablehlo", "stablehlo"),
  ],
)
def test_no_folder_gets_the_name_of_a_file_of_another_format(
  tmp_path, name, form
):
  out = tmp_path / name
  with pytest.raises(pcl_jax.InputError, match=f"{name} is .*--format={form},"):
    export.main([f"--out={out}"])
  assert not out.exists()


def _refused(file: pathlib.Path, out: pathlib.Path, message: str) -> str:
  with pytest.raises(pcl_jax.InputError, match=message) as caught:
    import_weights.main([f"--torch={file}", f"--out={out}"])
  assert not out.exists()
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_all_that_does_not_fit_is_listed_at_once(drawn, tmp_path):
  wrong = drawn | {"fc_audio.extra": np.zeros(3, np.float32)}
  wrong["fc_audio.fc.0.bias"] = wrong["fc_audio.fc.0.bias"][:5]
  del wrong["fc_audio.fc.3.bias"]
  file = _write(tmp_path / "a.safetensors", wrong)
  told = _refused(file, tmp_path / "out", "fc_audio.extra is unknown")
  assert "fc_audio.fc.0.bias has shape (5,)" in told
  assert "fc_audio.fc.3.bias is missing" in told


def test_bad_files_are_refused(drawn, tmp_path):
  out = tmp_path / "out"
  nan = drawn | {"fc_audio.fc.3.bias": np.full(128, np.nan, np.float32)}
  file = _write(tmp_path / "a.safetensors", nan)
  _refused(file, out, "not finite, in projection.output.bias")
  file.write_bytes(file.read_bytes()[:1000])
  _refused(file, out, "cannot be read as safetensors")
  _refused(tmp_path / "none.safetensors", out, "is not a file")
  other = tmp_path / "a.onnx"
  other.touch()
  _refused(other, out, "ends in none of .safetensors, .pt")
  with pytest.raises(pcl_jax.InputError, match="neither .safetensors nor .pt"):
    torch_files.check_out(tmp_path / "x.zip", force=False)


def test_pytorch_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)
  file = tmp_path / "a.pt"
  file.touch()
  _refused(file, tmp_path / "out", "needs PyTorch, which is not installed")
  with pytest.raises(pcl_jax.InputError, match="needs PyTorch"):
    torch_files.check_out(tmp_path / "b.pt", force=False)


def test_tensors_that_require_gradients_are_read(drawn, tmp_path):
  torch = pytest.importorskip("torch")
  found = {
    name: torch.nn.Parameter(torch.from_numpy(one))
    for name, one in drawn.items()
  }
  torch.save(found, tmp_path / "a.pt")
  for name, array in torch_files.read(tmp_path / "a.pt").items():
    np.testing.assert_array_equal(array, drawn[name])


def test_a_tensor_that_is_no_plain_array_is_refused_by_its_name(tmp_path):
  torch = pytest.importorskip("torch")
  sparse = torch.eye(3).to_sparse()
  torch.save({"conv.weight": sparse}, tmp_path / "a.pt")
  told = _refused(
    tmp_path / "a.pt", tmp_path / "out", "conv.weight is no plain"
  )
  assert "to_dense" in told


class _Code:
  """Would write a file where it is unpickled."""

  def __init__(self, path: pathlib.Path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


def test_a_pt_is_read_without_running_code(drawn, tmp_path):
  torch = pytest.importorskip("torch")
  encoder = torch_names.load_encoder(drawn)
  torch_files.write(tmp_path / "a.pt", encoder)
  found = torch.load(tmp_path / "a.pt", weights_only=True)
  torch.save({"state_dict": found, "epoch": 3}, tmp_path / "b.pt")
  for name in ("a.pt", "b.pt"):
    for key, array in torch_files.read(tmp_path / name).items():
      np.testing.assert_array_equal(array, drawn[key])
  trace = tmp_path / "trace"
  torch.save({"weights": _Code(trace)}, tmp_path / "c.pt")
  (tmp_path / "d.pt").write_bytes(pickle.dumps(_Code(trace)))
  torch.save([1, 2], tmp_path / "e.pt")
  for name in ("c.pt", "d.pt", "e.pt"):
    _refused(
      tmp_path / name, tmp_path / "out", f"{name} (cannot be|is not the)"
    )
  assert not trace.exists()
