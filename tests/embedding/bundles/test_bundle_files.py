"""Tests of bundles: encoders as folders, and what is refused of them."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
import yaml

import pcl_jax
from pcl_jax import embed
from pcl_jax import export
from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.embedding import half_precision
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.bundles import bundle_files
from pcl_jax.embedding.bundles import model_card
from pcl_jax.models import compiled_encoder
from tests.support import quick_backbone
from tests.support import quick_run
from tests.support.tiny import tiny_library

BATCH = {"batch_patches": 2}
WEIGHT = "backbone.fc.kernel"
pytestmark = pytest.mark.usefixtures("quick_compilation")

FILES = sorted(bundle_files.FILES)


def test_a_bundle_gives_the_bits_of_its_run(run, whole):
  ours, theirs = pcl_jax.load(whole), pcl_jax.load(run)
  samples = np.random.default_rng(0).normal(0, 0.1, 100_000)
  for layer in compiled_encoder.LAYERS:
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
  for layer in compiled_encoder.LAYERS:
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


def test_the_results_of_a_bundle_do_not_pass_to_other_weights(whole, tmp_path):
  folder = shutil.copytree(whole, tmp_path / "a")
  path = folder / bundle_files.CONFIG
  config = json.loads(path.read_text())
  config["origin"]["evaluation"] = {
    "songs": 60, "fingerprint": "d" * 64, "metrics": [],
  }  # fmt: skip
  path.write_text(json.dumps(config))
  evaluated = pcl_jax.load(folder, verify=False)
  half = half_precision.rounded(evaluated)
  stored = safetensors.numpy.load_file(folder / bundle_files.WEIGHTS)
  stored[WEIGHT][0, 0] += 1
  safetensors.numpy.save_file(stored, folder / bundle_files.WEIGHTS)
  for other in (half, pcl_jax.load(folder, verify=False)):
    assert other.about["weights_sha256"] != evaluated.about["weights_sha256"]
    found, _, reason = other.described()
    assert found["origin"]["evaluation"] is None
    assert "config.json are of other weights" in reason
  found, _, reason = evaluated.described()
  assert (found["origin"]["evaluation"]["songs"], reason) == (60, "")


def test_a_card_says_which_channels_are_taken(whole, encoder):
  card = (whole / bundle_files.CARD).read_text()
  assert "Mono audio at 16000 Hz (of several channels, their mean)" in card
  feature = melspectrogram.SETTINGS.as_dict("left")
  learned = song_encoder.SongEncoder(
    encoder.network, encoder.about, encoder.meta | {"feature": feature}
  )
  card = model_card.make(learned.described()[0], "mit", "a")
  assert "Mono audio at 16000 Hz (of several channels, the left one)" in card


def test_a_card_says_where_no_licence_was_decided(whole):
  header = _header(whole)
  assert (header["license"], header["license_name"]) == ("other", "not-decided")
  assert header["library_name"] == "pcl_jax"
  assert "music" in header["tags"]
