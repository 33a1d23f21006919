"""Tests of benchmarks.real_music.read_outs: other vectors of the same runs."""

from flax import nnx
import numpy as np
import pytest

from benchmarks.real_music import __main__ as real_music
from benchmarks.real_music import kept_results
from benchmarks.real_music import read_out_table
from benchmarks.real_music import read_outs
from benchmarks.real_music import real_runs
from benchmarks.real_music import real_scores
from benchmarks.real_music import real_table
from benchmarks.strategies import strategy_runs
from pcl_jax.audio import song_patches
from pcl_jax.checkpoint import restore
from pcl_jax.common import storage
from pcl_jax.embedding import song_encoder
from pcl_jax.models import audio_encoder
from pcl_jax.models import compiled_encoder
from tests.support import quick_backbone
from tests.support.tiny import tiny_data

SIZES = real_runs.Sizes(steps=20, batch_size=8, width=4)
LONG, SHORT = read_outs.WINDOWS
SEEDS = (0, 1)


@pytest.fixture
def encoder(monkeypatch) -> audio_encoder.AudioEncoder:
  quick_backbone.register(monkeypatch)
  return audio_encoder.AudioEncoder(
    quick_backbone.NAME, width=2, rngs=nnx.Rngs(0)
  )


def test_read_outs_are_those_of_single_patches(encoder, tmp_path):
  catalogue = tiny_data.tiny_catalogue(40)
  store = tiny_data.tiny_store(
    tmp_path / "songs.lmdb", catalogue, frames=(100, 13 * song_patches.FRAMES)
  )
  songs = np.array([3, 4, 11, 20, 29], np.int32)
  found = read_outs.vectors_of(encoder, store, songs)
  assert list(found) == [
    read_outs.PROJECTION, read_outs.DEVIATION, LONG, SHORT
  ]  # fmt: skip
  means = song_encoder.embed_songs(encoder, store, songs)
  np.testing.assert_allclose(
    found[read_outs.DEVIATION][:, : means.shape[1]], means, rtol=1e-5
  )
  for i, song in enumerate(songs):
    count = max(int(store.frames[song]) // song_patches.FRAMES, 1)
    patches = np.zeros((count, 256, 48), np.float16)
    starts = song_patches.FRAMES * np.arange(count, dtype=np.int32)
    store.read_patches(np.full(count, song), starts, patches)
    features = compiled_encoder.make_embedder(encoder)(patches)
    projected = compiled_encoder.make_embedder(encoder, "projection")(patches)
    deviation = found[read_outs.DEVIATION][i, means.shape[1] :]
    np.testing.assert_allclose(deviation, features.std(axis=0), atol=1e-5)
    np.testing.assert_allclose(
      found[read_outs.PROJECTION][i], projected.mean(axis=0), atol=1e-5
    )
    for name, length in read_outs.WINDOWS.items():
      begin = max(count - length, 0) // 2
      np.testing.assert_allclose(
        found[name][i], features[begin : begin + length].mean(axis=0), atol=1e-5
      )


def _write_runs(folds, out):
  """Writes results of two seeds whose vectors are songs' albums and noise."""
  for seed in SEEDS:
    for number, data in enumerate(folds):
      rng = np.random.default_rng(seed)
      rows = np.eye(20)[data.catalogue.albums] + rng.normal(size=(80, 20))
      config = real_runs.config_of("ss", seed, data.directory, SIZES, out)
      result = {
        "steps": SIZES.steps,
        "settings": strategy_runs.settings_of("ss", config, data.fingerprint()),
        "scores": real_scores.measure(data, rows.astype(np.float32)),
        "training_hours": 1.5,
        "device": "a device",
      }
      folder = out / f"ss-{seed}" / str(number)
      folder.mkdir(parents=True)
      storage.write_json(folder / strategy_runs.RESULT, result)


def test_the_table_pairs_read_outs_with_the_mean_of_the_same_trainings(
  encoder, folds, tmp_path, monkeypatch, capsys
):
  _write_runs(folds, tmp_path)
  loaded = []
  monkeypatch.setattr(
    restore, "load_encoder", lambda *where: (loaded.append(where) or encoder, 0)
  )
  monkeypatch.setattr(
    read_outs,
    "vectors_of",
    lambda _, store, songs: {
      "albums": np.eye(20, dtype=np.float32)[folds[0].catalogue.albums[songs]],
      "noise": np.random.default_rng(9).normal(size=(len(songs), 9)),
    },
  )
  place, kept = folds[0].directory.parent, tmp_path / "kept"
  command = [
    f"--data={place}", f"--out={tmp_path}", f"--kept={kept}", "--seeds=0,1,2",
    "--steps=20", "--batch_size=8", "--width=4", "--only=untrained,ss",
  ]  # fmt: skip
  stages = "--stages=read_outs,keep,tables"
  real_music.main([*command, stages])
  # A third seed and untrained networks have no training.
  assert len(loaded) == 4 and {which for _, which in loaded} == {"latest"}
  text = capsys.readouterr().out
  table = text[text.index("| ss at width 4: vector of a song | seeds |") :]
  _, _, base, first, second = (
    one.strip("| ").split(" | ") for one in table.splitlines()[:5]
  )
  assert [base[:2], first[:2], second[:2]] == [
    [read_out_table.MEAN, "2"], ["albums", "2"], ["noise", "2"]
  ]  # fmt: skip
  assert first[2] == "1.000 [1.000, 1.000]" and first[3].startswith("**+0.")
  assert second[3].startswith(("-0.", "**-0."))
  real_music.main([*command, stages])
  assert len(loaded) == 4
  assert capsys.readouterr().out.endswith(table)


def test_a_run_that_is_made_again_has_its_read_outs_made_again(
  encoder, folds, tmp_path, monkeypatch
):
  _write_runs(folds, tmp_path)
  monkeypatch.setattr(restore, "load_encoder", lambda *_: (encoder, 0))
  folder = tmp_path / "ss-0" / "0"
  config = real_runs.config_of("ss", 0, folds[0].directory, SIZES, tmp_path)
  job = "ss", config, folder
  read_outs.make([job])
  before = storage.read_json(folder / "read_outs.json")
  again = storage.read_json(folder / strategy_runs.RESULT)
  again["settings"]["steps"] = 30
  storage.write_json(folder / strategy_runs.RESULT, again)
  runs = kept_results.finished(tmp_path, 1)
  kept = tmp_path / "kept"
  (line,) = read_outs.keep(kept, tmp_path, folds, runs)
  assert "0/read_outs.json is of an earlier training" in line
  assert not kept.exists()
  read_outs.make([job])
  after = storage.read_json(folder / "read_outs.json")
  assert after["settings"]["steps"] == 30
  assert after["scores"] == before["scores"]


def test_rows_without_read_outs_have_no_table(folds, tmp_path):
  _write_runs(folds, tmp_path)
  runs = kept_results.finished(tmp_path, 2)
  runs += kept_results.of_statistics(folds, tmp_path)
  kept_results.keep(tmp_path / "kept", folds, runs)
  assert read_outs.keep(tmp_path / "kept", tmp_path, folds, runs) == []
  assert "vector of a song" not in real_table.of_folders(tmp_path / "kept")
