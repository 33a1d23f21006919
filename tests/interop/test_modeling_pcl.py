"""Tests that the exported PyTorch module embeds as this project does."""

import importlib.util
import json
import pathlib
import shutil
import types

import numpy as np
import pytest
import safetensors.numpy
import soundfile

from pcl_jax.audio import channel_mix
from pcl_jax.embedding import song_encoder
from pcl_jax.interop import torch_export

torch = pytest.importorskip("torch", reason="needs PyTorch")
pytestmark = pytest.mark.usefixtures("quick_compilation")

BATCH = {"batch_patches": 2}
RATE_HZ = 16_000


@pytest.fixture(scope="module")
def made(encoder, tmp_path_factory):
  """Our encoder, and the folder that is made of it."""
  folder = tmp_path_factory.mktemp("module") / "folder"
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(song_encoder, "BATCH_PATCHES", 2)
    torch_export.write(folder, encoder)
  return encoder, folder


def imported(folder: pathlib.Path) -> types.ModuleType:
  """Returns the module of a folder, as it lies there."""
  path = folder / torch_export.MODULE
  spec = importlib.util.spec_from_file_location("exported_module", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def loaded(folder: pathlib.Path, **how):
  return imported(folder).PclEncoder.from_pretrained(folder, **how)


def music(seconds: float, rate_hz: int, channels: int = 1) -> np.ndarray:
  """Makes tones, noise and silence; each channel is another."""
  time_s = np.arange(round(seconds * rate_hz)) / rate_hz
  drawn = np.random.default_rng(0)
  found = []
  for number in range(channels):
    audio = (0.1 + number) * np.sin(2 * np.pi * 330 * (number + 1) * time_s)
    audio += drawn.normal(0, 0.05, len(time_s)) * (time_s > 1)
    found.append(audio * (time_s < 11))
  audio = np.stack(found, axis=1).astype(np.float32)
  return audio[:, 0] if channels == 1 else audio


def assert_close(found, expected) -> None:
  off = np.abs(np.asarray(found) - expected).max()
  assert off <= 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
  "seconds, rate_hz, channels",
  [
    (13.0, RATE_HZ, 1),
    (13.0, 44_100, 2),
    (9.0, 48_000, 6),
    (8.0, 11_025.0, 1),
    (1.3, 22_050, 2),
    (4.079, RATE_HZ, 1),  # A sample less than a patch has frames for.
    (4.081, RATE_HZ, 1),
    (1 / RATE_HZ, RATE_HZ, 1),
  ],
)
def test_it_gives_the_same_vectors_from_the_waveform_on(
  made, seconds, rate_hz, channels
):
  ours, folder = made
  theirs, audio = loaded(folder), music(seconds, int(rate_hz), channels)
  if not audio.any():
    audio[:] = 0.5
  vectors, _ = ours.embed(
    audio, sample_rate_hz=rate_hz, per_patch=True, **BATCH
  )
  found = theirs.embed(audio, rate_hz, per_patch=True, **BATCH)
  assert found.dtype == torch.float32
  assert_close(found, vectors)
  expected = ours.embed(audio, sample_rate_hz=rate_hz, **BATCH)
  assert_close(theirs.embed(torch.from_numpy(audio), rate_hz), expected)


def test_the_other_layer_and_other_precisions_are_ours_too(made):
  ours, folder = made
  theirs, audio = loaded(folder), music(9.0, RATE_HZ)
  expected = ours.embed(
    audio, sample_rate_hz=RATE_HZ, layer="projection", **BATCH
  )
  found = theirs.embed(audio.astype(np.float64), RATE_HZ, layer="projection")
  assert_close(found, expected)
  found = theirs.double().embed(audio, RATE_HZ, layer="projection")
  assert_close(found, expected)


@pytest.mark.parametrize("channels", channel_mix.CHOICES)
def test_it_takes_of_several_channels_what_the_encoder_learned_from(
  made, tmp_path, channels
):
  ours, folder = made
  folder = shutil.copytree(folder, tmp_path / "other")
  _set(folder, ["feature", "channels"], channels)
  theirs, audio = loaded(folder), music(9.0, RATE_HZ, 2)
  expected = ours.embed(
    audio, sample_rate_hz=RATE_HZ, channels=channels, **BATCH
  )
  assert_close(theirs.embed(audio, RATE_HZ), expected)


def test_real_recordings_have_the_same_vectors(made, shared_dir):
  ours, folder = made
  theirs = loaded(folder)
  for path in sorted((shared_dir / "audio").glob("*.ogg"))[:3]:
    audio, rate_hz = soundfile.read(path, dtype="float32", frames=900_000)
    expected = ours.embed(audio, sample_rate_hz=rate_hz, **BATCH)
    assert_close(theirs.embed(audio, rate_hz), expected)


def test_it_can_be_trained_on_but_embeds_only_in_evaluation_mode(made):
  encoder = loaded(made[1])
  patches = encoder.front_end.patches(music(9.0, RATE_HZ), RATE_HZ, 2)
  features, projection = encoder.train()(torch.cat(list(patches)))
  (features.sum() + projection.sum()).backward()
  assert all(one.grad is not None for one in encoder.parameters())
  with pytest.raises(ValueError, match="call eval"):
    encoder.embed(music(1.0, RATE_HZ), RATE_HZ)


@pytest.mark.parametrize(
  "audio, rate_hz, message",
  [
    (np.zeros(9, np.int16), RATE_HZ, "int16.*32768"),
    (np.zeros((2, 9), np.float32), RATE_HZ, r"\(2, 9\).*audio.T"),
    (np.zeros(0, np.float32), RATE_HZ, r"\(0,\)"),
    (np.full(9, np.nan), RATE_HZ, "not finite"),
    (np.full(9, 2e6), RATE_HZ, "beyond 1e"),
    (np.zeros(9), 44.1, "sample_rate is 44.1: .* at least 1000"),
    (np.zeros(9), float("nan"), "sample_rate is nan"),
  ],
)
def test_wrong_audio_is_refused(made, audio, rate_hz, message):
  with pytest.raises(ValueError, match=message):
    loaded(made[1], verify=False).embed(audio, rate_hz)


def test_silence_is_warned_of_and_layers_are_checked(made):
  encoder = loaded(made[1])
  with pytest.warns(UserWarning, match="its vector means nothing"):
    encoder.embed(np.zeros(9_000), RATE_HZ)
  with pytest.raises(ValueError, match="layer is 'mean': give one of features"):
    encoder.embed(music(1.0, RATE_HZ), RATE_HZ, layer="mean")


def _set(folder: pathlib.Path, keys: list[str], value) -> None:
  path = folder / "config.json"
  config = inner = json.loads(path.read_text())
  for key in keys[:-1]:
    inner = inner[key]
  inner[keys[-1]] = value
  path.write_text(json.dumps(config))


def _change_a_weight(folder: pathlib.Path) -> None:
  path = folder / "model.safetensors"
  arrays = safetensors.numpy.load_file(path)
  arrays["fc_audio.fc.3.bias"][0] += 1
  safetensors.numpy.save_file(arrays, path)
  _set(folder, ["model.safetensors"], {})


def _cut(folder: pathlib.Path) -> None:
  path = folder / "model.safetensors"
  path.write_bytes(path.read_bytes()[:-100])


def _misname(folder: pathlib.Path) -> None:
  path = folder / "model.safetensors"
  arrays = safetensors.numpy.load_file(path)
  arrays["other"] = arrays.pop("fc_audio.fc.3.bias")
  safetensors.numpy.save_file(arrays, path)
  _set(folder, ["model.safetensors"], {})


def _to_code(folder: pathlib.Path) -> None:
  (folder / "model.safetensors").unlink()
  torch.save({"weights": _Code(folder / "trace")}, folder / "model.pt")


class _Code:
  """Would write a file where it is unpickled."""

  def __init__(self, path: pathlib.Path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


DAMAGES = {
  "half a file": (_cut, "not the file that was exported"),
  "changed weight": (_change_a_weight, "other projection of its golden audio"),
  "other names": (_misname, "does not hold this encoder's weights .*other"),
  "code": (_to_code, "does not hold this encoder's weights"),
  "future": (lambda f: _set(f, ["format_version"], 2), "format_version is 2"),
  "bundle": (
    lambda f: _set(f, ["format"], "pcl_jax.encoder"),
    "format is ",
  ),
  "rate": (lambda f: _set(f, ["sample_rate_hz"], 44_100), "_hz is 44100"),
  "mel": (lambda f: _set(f, ["feature", "mel_scale"], "htk"), "mel_scale is"),
  "bands": (lambda f: _set(f, ["feature", "mel_bands"], 40), "golden audio"),
  "no hop": (lambda f: _set(f, ["feature"], {}), "config.json: KeyError"),
  "no json": (lambda f: (f / "config.json").write_text("{"), "config.json"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_folder_that_is_not_what_was_exported_is_refused(
  made, tmp_path, name
):
  folder = shutil.copytree(made[1], tmp_path / "folder")
  spoil, message = DAMAGES[name]
  spoil(folder)
  with pytest.raises(ValueError, match=message) as caught:
    loaded(folder)
  assert "\n" not in str(caught.value)
  assert not (folder / "trace").exists()


def test_a_state_dict_of_pytorch_takes_the_place_of_safetensors(made, tmp_path):
  encoder = loaded(made[1])
  folder = shutil.copytree(made[1], tmp_path / "folder")
  (folder / "model.safetensors").unlink()
  torch.save(encoder.state_dict(), folder / "model.pt")
  again, audio = loaded(folder), music(5.0, RATE_HZ)
  assert (again.embed(audio, RATE_HZ) == encoder.embed(audio, RATE_HZ)).all()
  (folder / "model.pt").unlink()
  with pytest.raises(FileNotFoundError, match="model.safetensors"):
    loaded(folder)
