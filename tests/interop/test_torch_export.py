"""Tests of the folder for PyTorch, as far as they need no PyTorch."""

import ast
import json
import pathlib
import shutil

import numpy as np
import pytest
import safetensors.numpy
import yaml

import pcl_jax
from pcl_jax.audio import channel_mix
from pcl_jax.audio import melspectrogram
from pcl_jax.audio import sample_reader
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.bundles import golden_audio
from pcl_jax.interop import torch_export
from pcl_jax.interop import torch_files
from pcl_jax.interop import torch_names
from pcl_jax.models import audio_encoder
from pcl_jax.models import compiled_encoder

pytestmark = pytest.mark.usefixtures("quick_compilation")

MODULE = pathlib.Path(torch_export.__file__).with_name(torch_export.MODULE)
FILES = {
  "README.md",
  "config.json",
  "golden.npz",
  "model.safetensors",
  "modeling_pcl.py",
}


@pytest.fixture(scope="module")
def made(encoder, tmp_path_factory):
  """An encoder, and the folder that is made of it."""
  folder = tmp_path_factory.mktemp("secret") / "my-module"
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(song_encoder, "BATCH_PATCHES", 2)
    torch_export.write(folder, encoder, license="mit")
    yield encoder, folder


def test_the_folder_has_the_module_and_the_weights_as_they_are(made):
  encoder, folder = made
  assert {path.name for path in folder.iterdir()} == FILES
  assert (folder / "modeling_pcl.py").read_bytes() == MODULE.read_bytes()
  found = safetensors.numpy.load_file(folder / "model.safetensors")
  arrays = torch_names.state_dict(encoder.network)
  assert found.keys() == arrays.keys()
  for name, array in found.items():
    np.testing.assert_array_equal(array, arrays[name])
  config = (folder / "config.json").read_text()
  assert "secret" not in config + (folder / "README.md").read_text()


def test_the_card_says_how_pytorch_loads_it(made):
  card = (made[1] / "README.md").read_text()
  header = yaml.safe_load(card.split("---")[1])
  assert header["library_name"] == "pytorch"
  assert header["license"] == "mit"
  assert "pytorch" in header["tags"] and "jax" not in header["tags"]
  assert "PclEncoder.from_pretrained(" in card
  assert "import pcl_jax" not in card


def _constants() -> dict:
  """Returns the module's constants without importing it."""
  found = {}
  for node in ast.parse(MODULE.read_text()).body:
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
      found[node.targets[0].id] = ast.literal_eval(node.value)
  return found


def test_the_module_computes_what_this_project_does(made):
  constants, settings = _constants(), melspectrogram.SETTINGS
  known = constants["KNOWN"]
  config = json.loads((made[1] / "config.json").read_text())
  for key in ("format", "format_version"):
    assert known[key] == (config[key],)
  for key in ("window", "mel_scale", "stored_as"):
    assert known[key] == (getattr(settings, key),)
  assert known["channels"] == channel_mix.CHOICES
  assert known["backbone_type"] == tuple(audio_encoder.BACKBONES)
  assert constants["LAYERS"] == compiled_encoder.LAYERS
  assert constants["POWER_OFFSET"] == melspectrogram.POWER_OFFSET
  assert constants["LOWEST_RATE_HZ"] == sample_reader.LOWEST_RATE_HZ
  assert constants["LARGEST_SAMPLE"] == sample_reader.LARGEST_SAMPLE
  assert constants["_TOLERANCES"] == golden_audio.TOLERANCES


def test_the_module_needs_nothing_of_this_project_and_stays_small():
  names = set()
  for node in ast.walk(ast.parse(MODULE.read_text())):
    if isinstance(node, ast.Import):
      names |= {one.name.split(".")[0] for one in node.names}
    elif isinstance(node, ast.ImportFrom):
      names.add(node.module.split(".")[0])
  assert not names & {"pcl_jax", "jax", "flax", "safetensors", "scipy"}
  assert {"torch", "numpy", "soxr"} <= names


def test_a_folder_is_imported_again_but_is_no_bundle(made):
  encoder, folder = made
  back = torch_files.load(folder).about
  for key in ("weights_sha256", "strategy", "step", "feature"):
    assert back[key] == encoder.about[key]
  with pytest.raises(pcl_jax.InputError, match="for PyTorch, pcl-jax import"):
    pcl_jax.load(folder)


@pytest.fixture
def copied(made, tmp_path) -> pathlib.Path:
  """A copy of the folder, which may be changed."""
  return shutil.copytree(made[1], tmp_path / "my-copy")


@pytest.mark.parametrize("channels", channel_mix.CHOICES)
def test_an_imported_folder_keeps_the_channels_it_has_learned_from(
  copied, channels
):
  config = json.loads((copied / "config.json").read_text())
  config["feature"] = melspectrogram.SETTINGS.as_dict(channels)
  (copied / "config.json").write_text(json.dumps(config))
  assert torch_files.load(copied).channels == channels


def test_weights_that_a_folder_was_not_exported_with_are_imported_alone(copied):
  weights, other = copied / "model.safetensors", {}
  for name, array in safetensors.numpy.load_file(weights).items():
    other[name] = array + array.dtype.type(1)
  safetensors.numpy.save_file(other, weights)
  with pytest.raises(pcl_jax.InputError, match=f"--torch={weights} takes"):
    torch_files.load(copied)
  assert torch_files.load(weights).about["strategy"] == "unknown"


def test_a_bundle_is_no_folder_for_pytorch(copied):
  config = json.loads((copied / "config.json").read_text())
  config["format"] = "pcl_jax.encoder"
  (copied / "config.json").write_text(json.dumps(config))
  with pytest.raises(pcl_jax.InputError, match="is used as it is"):
    torch_files.load(copied)


def test_what_is_there_is_replaced_only_when_that_is_asked_for(made, tmp_path):
  encoder = made[0]
  (tmp_path / "other").mkdir()
  with pytest.raises(pcl_jax.InputError, match="is no exported PyTorch module"):
    torch_export.check_out(tmp_path / "other", force=True)
  out = tmp_path / "version-1.0"
  torch_export.write(out, encoder)
  (out / ".git").mkdir()
  (out / "modeling_pcl.py").write_text("changed")
  with pytest.raises(pcl_jax.InputError, match="1.0 exists: .*--force"):
    torch_export.check_out(out, force=False)
  torch_export.write(out, encoder, force=True)
  assert {path.name for path in out.iterdir()} == FILES | {".git"}
  assert (out / "modeling_pcl.py").read_bytes() == MODULE.read_bytes()


@pytest.mark.parametrize("place", [".", "inner/.."])
def test_the_folder_where_one_is_gets_its_own_name(
  made, copied, monkeypatch, place
):
  (copied / "inner").mkdir()
  monkeypatch.chdir(copied)
  monkeypatch.setattr(song_encoder, "BATCH_PATCHES", 2)
  torch_export.write(pathlib.Path(place), made[0], force=True)
  assert [path.name for path in copied.parent.iterdir()] == ["my-copy"]
  assert "# my-copy\n" in (copied / "README.md").read_text()
