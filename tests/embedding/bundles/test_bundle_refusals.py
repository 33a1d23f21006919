"""Tests of what is refused: bundles that are not as they were exported."""

import json
import pathlib
import struct

import numpy as np
import pytest
import safetensors.numpy

import pcl_jax
from pcl_jax.audio import melspectrogram
from pcl_jax.checkpoint import __main__ as checkpoint_command
from pcl_jax.common import storage
from pcl_jax.embedding.bundles import bundle_files
from pcl_jax.embedding.bundles import golden_audio
from pcl_jax.training import loop

BATCH = {"batch_patches": 2}
WEIGHT = "backbone.fc.kernel"
pytestmark = pytest.mark.usefixtures("quick_compilation")


def _rewrite(folder: pathlib.Path, change, *, signed: bool = True) -> None:
  """Changes the arrays of a bundle, and the digest if it is `signed`."""
  path = folder / bundle_files.WEIGHTS
  arrays = safetensors.numpy.load_file(path)
  safetensors.numpy.save_file(change(arrays) or arrays, path)
  if signed:
    _set(folder, [bundle_files.WEIGHTS, "sha256"], storage.sha256(path))


def _set(folder: pathlib.Path, keys: list[str], value) -> None:
  path = folder / bundle_files.CONFIG
  config = inner = json.loads(path.read_text())
  for key in keys[:-1]:
    inner = inner[key]
  inner[keys[-1]] = value
  path.write_text(json.dumps(config))


def _cut(path: pathlib.Path) -> None:
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _add_one(arrays):
  arrays[WEIGHT][3, 2] += 1


def _nan(arrays):
  arrays["projection.output.bias"][1] = np.nan


def _foreign(arrays):
  return {"fc.weight": arrays[WEIGHT], WEIGHT: arrays[WEIGHT][:5]}


def _other_type(arrays):
  arrays[WEIGHT] = arrays[WEIGHT].astype(np.float64)


def _hostile(folder: pathlib.Path) -> None:
  """Writes safetensors whose header asks for far more than the file has."""
  header = {WEIGHT: {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}}
  text = json.dumps(header).encode()
  path = folder / bundle_files.WEIGHTS
  path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
  _set(folder, [bundle_files.WEIGHTS, "sha256"], storage.sha256(path))


def _loud(folder: pathlib.Path) -> None:
  """Puts other golden audio, with its digest, in the place of ours."""
  path = folder / bundle_files.GOLDEN
  golden = golden_audio.read(path)
  golden_audio.write(path, golden._replace(samples=golden.samples[::-1].copy()))
  _set(folder, [bundle_files.GOLDEN, "sha256"], storage.sha256(path))


_MEL = melspectrogram.SETTINGS.as_dict() | {"mel_bands": 96}


_FAULTS = {
  "a weight": (
    lambda f: _rewrite(f, _add_one, signed=False),
    r"model.safetensors is not the file .* begins with \w{12}, .* says \w{12}",
  ),
  "a weight and its digest": (
    lambda f: _rewrite(f, _add_one),
    r"number \d+ of its features .* is [-\d.]+ here \(cpu\), .* says [-\d.]+",
  ),
  "other audio": (_loud, r"number \d+ of its features"),
  "nan": (lambda f: _rewrite(f, _nan), "not finite, in projection.output.bias"),
  "foreign arrays": (
    lambda f: _rewrite(f, _foreign),
    r"backbone.fc.bias: on file None.*fc.kernel: on file 'float32\[5, 16\]', "
    r"here 'float32\[48, 16\]'.*; fc.weight: on file .* here None",
  ),
  "another type": (
    lambda f: _rewrite(f, _other_type),
    "float64.*here 'float32",
  ),
  "hostile": (_hostile, "cannot be read as safetensors"),
  "mel": (lambda f: _set(f, ["feature"], _MEL), "mel_bands: there 96, here 48"),
  "sample rate": (
    lambda f: _set(f, ["sample_rate_hz"], 44_100),
    "sample_rate_hz is 44100",
  ),
  "a later format": (
    lambda f: _set(f, ["format_version"], 2),
    "has format version 2, .* reads up to 1: update pcl_jax",
  ),
  "no format": (lambda f: _set(f, ["format"], "x"), "has no format 'pcl_jax"),
  "no step": (lambda f: _set(f, ["origin", "step"], "x"), "its step is 'x'"),
  "odd results": (
    lambda f: _set(f, ["origin", "evaluation"], 3),
    "cannot be read as that of",
  ),
  "no origin": (lambda f: _set(f, ["origin"], 3), "cannot be read as that of"),
  "wide": (
    lambda f: _set(f, ["architecture", "width"], 10**9),
    "does not hold the network of config.json",
  ),
  "negative": (
    lambda f: _set(f, ["architecture", "width"], -1),
    '"width": -1.* are needed, with sizes from 1',
  ),
  "backbone": (
    lambda f: _set(f, ["architecture", "backbone_type"], "vit"),
    "'vit', which is not an audio encoder",
  ),
  "config cut": (lambda f: _cut(f / "config.json"), "config.json cannot be"),
  "golden cut": (lambda f: _cut(f / "golden.npz"), "golden.npz is not the"),
  "weights cut": (lambda f: _cut(f / "model.safetensors"), "is not the file"),
  "no weights": (
    lambda f: (f / "model.safetensors").unlink(),
    "model.safetensors is missing",
  ),
  "no config": (lambda f: (f / "config.json").unlink(), "config.json cannot"),
}


@pytest.mark.parametrize("fault", _FAULTS)
def test_what_is_not_as_it_was_exported_is_refused(bundle, fault):
  spoil, message = _FAULTS[fault]
  spoil(bundle)
  before = {p: p.read_bytes() for p in bundle.parent.rglob("*") if p.is_file()}
  with pytest.raises(pcl_jax.InputError, match=message) as caught:
    pcl_jax.load(bundle, **BATCH)
  assert "\n" not in str(caught.value)
  after = {p: p.read_bytes() for p in bundle.parent.rglob("*") if p.is_file()}
  assert after == before


def test_a_bundle_without_an_entry_on_results_has_none(bundle):
  path = bundle / bundle_files.CONFIG
  config = json.loads(path.read_text())
  del config["origin"]["evaluation"]
  path.write_text(json.dumps(config))
  assert pcl_jax.load(bundle, verify=False).meta["evaluation"] is None


@pytest.mark.parametrize("name", ["model.safetensors", "golden.npz"])
def test_half_a_file_is_refused_without_digests_too(bundle, name):
  _cut(bundle / name)
  with pytest.raises(pcl_jax.InputError, match=f"{name} cannot be read as"):
    pcl_jax.load(bundle, verify=False)


def test_changed_weights_are_loaded_where_nothing_is_to_be_verified(bundle):
  _rewrite(bundle, _add_one, signed=False)
  before = pcl_jax.load(bundle, verify=False).network.backbone.fc.kernel[3, 2]
  _rewrite(bundle, _add_one)
  after = pcl_jax.load(bundle, verify=False).network.backbone.fc.kernel[3, 2]
  assert float(after) == pytest.approx(float(before) + 1)


def test_weights_that_are_not_finite_are_not_exported(encoder, tmp_path):
  kernel = encoder.network.backbone.fc.kernel
  kept = kernel[...]
  kernel[...] = kept.at[0, 0].set(np.inf)
  try:
    with pytest.raises(pcl_jax.InputError, match="not finite, in backbone.fc"):
      encoder.save(tmp_path / "out")
  finally:
    kernel[...] = kept
  assert not list(tmp_path.iterdir())


def test_only_a_bundle_is_replaced_and_only_when_asked(encoder, bundle):
  other = bundle.parent / "other"
  other.mkdir()
  with pytest.raises(pcl_jax.InputError, match="other exists and is not a bun"):
    encoder.save(other, force=True)
  with pytest.raises(pcl_jax.InputError, match="my-encoder exists: .*--force"):
    encoder.save(bundle)
  (bundle / "notes.txt").write_text("kept")
  _cut(bundle / bundle_files.WEIGHTS)
  encoder.save(bundle, force=True)
  assert pcl_jax.load(bundle).about["step"] == 7
  assert (bundle / "notes.txt").read_text() == "kept"
  names = sorted(path.name for path in bundle.parent.iterdir())
  assert names == ["my-encoder", "other"]


@pytest.mark.parametrize("format", [None, "pcl_jax.torch"])
def test_a_model_of_another_kind_is_not_replaced(encoder, bundle, format):
  (bundle / bundle_files.GOLDEN).unlink()
  _set(bundle, ["format"], format)
  before = {path.name: path.read_bytes() for path in bundle.iterdir()}
  for force in (False, True):
    with pytest.raises(pcl_jax.InputError, match="exists and is not a bundle"):
      encoder.save(bundle, force=force)
  assert {p.name: p.read_bytes() for p in bundle.iterdir()} == before


@pytest.mark.parametrize("name", bundle_files.FILES)
def test_a_bundle_that_lacks_a_file_or_its_end_is_replaced(bundle, name):
  _cut(bundle / name)
  bundle_files.check_free(bundle, force=True)
  (bundle / name).unlink()
  bundle_files.check_free(bundle, force=True)


@pytest.mark.parametrize("license", ["", "MIT", "../x", "my own terms"])
def test_a_licence_that_hubs_do_not_read_is_refused(encoder, tmp_path, license):
  with pytest.raises(pcl_jax.InputError, match="licence .* is no identifier"):
    encoder.save(tmp_path / "out", license=license)
  assert not list(tmp_path.iterdir())


def test_what_needs_a_run_says_that_a_bundle_is_none(bundle, config):
  before = sorted(bundle.rglob("*"))
  for call in (
    lambda: checkpoint_command.main(["list", str(bundle)]),
    lambda: checkpoint_command.main(["verify", str(bundle)]),
    lambda: loop.train_and_evaluate(config, bundle),
  ):
    with pytest.raises(pcl_jax.InputError, match="is a bundle, .*of a run"):
      call()
  assert sorted(bundle.rglob("*")) == before
