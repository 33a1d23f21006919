"""Tests of bundles: encoders as folders, and what is refused of them."""

import json
import pathlib
import shutil
import struct

import jax
import numpy as np
import pytest
import safetensors.numpy
import yaml

import pcl_jax
from pcl_jax import embed
from pcl_jax import export
from pcl_jax.audio import melspectrogram
from pcl_jax.checkpoint import __main__ as checkpoint_command
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.embedding import half_precision
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.bundles import bundle_files
from pcl_jax.embedding.bundles import golden_audio
from pcl_jax.training import loop
from tests.support import quick_backbone
from tests.support import quick_run
from tests.support.tiny import tiny_library

BATCH = {"batch_patches": 2}
WEIGHT = "backbone.fc.kernel"
pytestmark = pytest.mark.usefixtures("quick_compilation")

FILES = sorted(bundle_files.FILES)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
  """Folder of a run; the quick backbone stays registered."""
  with pytest.MonkeyPatch.context() as patch:
    quick_backbone.register(patch)
    yield quick_run.save(tmp_path_factory.mktemp("secret") / "run", step=7)


@pytest.fixture(scope="module")
def encoder(run) -> song_encoder.SongEncoder:
  """The run's encoder, of a run with a config."""
  made = pcl_jax.load(run)
  data = str(run.parent / "my_songs")
  config = {"seed": 3, "data": {"dir": data, "order": "shuffled"}}
  config["train"] = {"compilation_cache": f"{run}/cache"}
  made.meta["config"] = config
  made.meta["data"] = {"fingerprint": "f" * 64, "songs": 12}
  return made


@pytest.fixture(scope="module")
def whole(encoder, tmp_path_factory) -> pathlib.Path:
  """A bundle; tests leave it as it is."""
  folder = tmp_path_factory.mktemp("bundle") / "my-encoder"
  encoder.save(folder)
  return folder


@pytest.fixture
def bundle(whole, tmp_path) -> pathlib.Path:
  """A copy of it, to be spoiled."""
  return shutil.copytree(whole, tmp_path / "my-encoder")


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


def test_a_bundle_gives_the_bits_of_its_run(run, whole):
  ours, theirs = pcl_jax.load(whole), pcl_jax.load(run)
  samples = np.random.default_rng(0).normal(0, 0.1, 100_000)
  for layer in song_encoder.LAYERS:
    how = BATCH | {"layer": layer, "sample_rate_hz": 22_050}
    found = ours.embed(samples, **how)
    np.testing.assert_array_equal(found, theirs.embed(samples, **how))
  differing = {
    key for key in ours.about if ours.about[key] != theirs.about[key]
  }
  assert differing <= {"workdir", "architecture"}
  assert ours.about["workdir"] == str(whole)


def test_a_bundle_of_a_bundle_is_the_same_bundle(whole, tmp_path):
  pcl_jax.load(whole).save(tmp_path / whole.name)
  for name in FILES:
    again = (tmp_path / whole.name / name).read_bytes()
    assert again == (whole / name).read_bytes(), name


def test_half_a_bundle_gives_the_same_vectors_but_for_a_ten_thousandth(
  run, encoder, tmp_path
):
  out = tmp_path / "half"
  export.main([f"--workdir={run}", f"--out={out}", "--half"])
  stored = safetensors.numpy.load_file(out / bundle_files.WEIGHTS)
  for name, one in stored.items():
    assert one.dtype == (np.float16 if one.ndim > 1 else np.float32), name
  loaded = pcl_jax.load(out, **BATCH)
  kernel = bundle_files.arrays_of(loaded.network)[WEIGHT]
  assert kernel.dtype == np.float32
  np.testing.assert_array_equal(kernel, stored[WEIGHT].astype(np.float32))
  samples = np.random.default_rng(0).normal(0, 0.1, 100_000)
  for layer in song_encoder.LAYERS:
    how = BATCH | {"layer": layer, "sample_rate_hz": 16_000}
    found, whole = loaded.embed(samples, **how), encoder.embed(samples, **how)
    cosine = found @ whole / np.linalg.norm(found) / np.linalg.norm(whole)
    assert cosine > 0.9999
  # A copy is of half the size, too.
  loaded.save(tmp_path / "again" / "half")
  for name in (bundle_files.WEIGHTS, bundle_files.GOLDEN):
    again = (tmp_path / "again" / "half" / name).read_bytes()
    assert again == (out / name).read_bytes(), name


def test_weights_too_large_for_half_a_bundle_are_refused(encoder):
  arrays = jax.device_get(bundle_files.arrays_of(encoder.network))
  large = bundle_files.with_arrays(
    encoder.network, arrays | {WEIGHT: arrays[WEIGHT] + 1e5}
  )
  made = song_encoder.SongEncoder(large, encoder.about, encoder.meta)
  with pytest.raises(errors.InputError, match="rounded to float16, has numb"):
    half_precision.rounded(made)


def test_a_bundle_names_no_path_of_the_machine(whole, run):
  assert sorted(path.name for path in whole.iterdir()) == FILES
  assert len({path.stat().st_mode for path in whole.iterdir()}) == 1
  for path in whole.iterdir():
    content = path.read_bytes()
    for word in (run.parent.name, "my_songs", str(pathlib.Path.home())):
      assert word.encode() not in content, (path, word)
  config = json.loads((whole / bundle_files.CONFIG).read_text())
  assert config["origin"]["config"]["seed"] == 3
  assert config["origin"]["config"]["data"] == {"dir": "", "order": "shuffled"}
  assert config["layers"] == {"features": 16, "projection": 4}
  assert config["sample_rate_hz"] == 16_000
  assert config["architecture"]["fc_hidden_dim"] == 128


@pytest.mark.long
def test_every_width_and_size_comes_back(tmp_path, monkeypatch):
  quick_backbone.register(monkeypatch)
  audio = quick_run.AUDIO | {"width": 3, "fc_hidden_dim": 5, "fc_dropout": 0.5}
  encoder = pcl_jax.load(quick_run.save(tmp_path / "run", audio=audio))
  encoder.save(tmp_path / "out")
  found = pcl_jax.load(tmp_path / "out", verify=False)
  assert (found.features, found.projection) == (24, 4)
  assert found.about["weights_sha256"] == encoder.about["weights_sha256"]
  assert found.network.projection.dropout == 0.5


def test_the_command_line_exports_and_embeds(run, tmp_path, capsys):
  out = tmp_path / "out"
  export.main([f"--workdir={run}", f"--out={out}", "--license=cc-by-nc-4.0"])
  said = capsys.readouterr().out
  assert "no results" in said
  assert "no licence" not in said
  song = tiny_library.write_song(tmp_path / "song.wav", seconds=9.0)
  tables = []
  for place in (run, out):
    table = tmp_path / f"{place.name}.parquet"
    embed.main(
      [f"--workdir={place}", f"--audio={song}", f"--out={table}"]
      + ["--batch_patches=2"]
    )
    tables.append(pcl_jax.read_table(table))
  np.testing.assert_array_equal(tables[0].vectors, tables[1].vectors)


# Model cards.


def _header(folder: pathlib.Path) -> dict:
  text = (folder / bundle_files.CARD).read_text()
  return yaml.safe_load(text.split("---\n")[1])


def _results(digest: str) -> dict:
  metric = {"value": 0.5, "interval_95": [0.4, 0.6], "items": 12}
  undefined = {"value": None, "interval_95": [None, None], "items": 0}
  return {
    "trained": "trained (SS)",
    "songs": 60,
    "fingerprint": "d" * 64,
    "certificate": {"checkpoint": {"encoder_sha256": digest}},
    "precision_at_5": {
      "trained (SS)": {
        "artist": {
          "precision_at_5": 0.25,
          "interval_95": [0.2, 0.3],
          "queries": 9,
        }
      }
    },
    "tasks": {
      "hubs": {"trained (SS)": {"metrics": {"skew": metric, "no": undefined}}},
      "playlist_continuation": {"trained (SS)": {"not_given": "no playlists"}},
    },
  }


def test_the_card_has_the_results_of_the_same_weights(encoder, tmp_path):
  made = song_encoder.SongEncoder(
    encoder.network, encoder.about | {"workdir": str(tmp_path)}, encoder.meta
  )
  path = tmp_path / "results.json"
  digest = encoder.about["weights_sha256"]
  results = _results(digest)
  learned = {"same_data": True, "fingerprint": "e" * 64}
  results["certificate"]["trained_on"] = learned
  path.write_text(json.dumps(results))
  assert made.save(tmp_path / "a", license="mit") == ""
  text = (tmp_path / "a" / bundle_files.CARD).read_text()
  assert f"In a data set of 60 songs (`{'e' * 12}`)" in text
  assert "| hubs | skew | 0.500 | 0.400 to 0.600 | 12 |" in text
  assert "| same artist | precision_at_5 | 0.250 | 0.200 to 0.300 | 9 |" in text
  header = _header(tmp_path / "a")
  assert header["license"] == "mit"
  (model,) = header["model-index"]
  values = [one["metrics"][0]["value"] for one in model["results"]]
  assert (model["name"], values) == ("a", [0.25, 0.5])
  # They stay with the weights, and others' are not taken for theirs.
  assert pcl_jax.load(tmp_path / "a").save(tmp_path / "b", license="mit") == ""
  assert text.replace("name: a", "") == (
    tmp_path / "b" / bundle_files.CARD
  ).read_text().replace('"name": "b"', '"name": "a"').replace("# b\n", "# a\n")
  path.write_text(json.dumps(_results("0" * 64)))
  assert "of other weights" in made.save(tmp_path / "c")
  assert "model-index" not in _header(tmp_path / "c")


def test_a_card_says_where_no_licence_was_decided(whole):
  header = _header(whole)
  assert (header["license"], header["license_name"]) == ("other", "not-decided")
  assert header["library_name"] == "pcl_jax"
  assert "music" in header["tags"]


# What is refused.


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
