"""Tests of the encoder that comes with the package."""

import pathlib

import numpy as np
from pyarrow import parquet
import pytest

import pcl_jax
from pcl_jax import embed
from pcl_jax import evaluate
from pcl_jax import export
from pcl_jax import similar
from pcl_jax.common import errors
from pcl_jax.embedding import encoder_loading
from tests.support import quick_backbone
from tests.support import quick_run
from tests.support.tiny import tiny_library

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def box(tmp_path, monkeypatch):
  """A bundle in the place of the encoder that comes with the package."""
  quick_backbone.register(monkeypatch)
  run = quick_run.save(tmp_path / "run", step=7)
  pcl_jax.load(run).save(tmp_path / "box")
  monkeypatch.setattr(encoder_loading, "_PRETRAINED_FOLDER", tmp_path / "box")
  return tmp_path / "box"


def test_the_encoder_in_the_box_gives_its_golden_vectors_and_is_small():
  encoder = pcl_jax.load()  # Refused if the vectors are others.
  assert encoder.features == 384
  folder = pathlib.Path(pcl_jax.__file__).parent / "pretrained"
  assert sum(one.stat().st_size for one in folder.iterdir()) < 12_000_000
  card = (folder / "README.md").read_text(encoding="utf-8")
  for said in ("## Limits", "wesnoth-1.16-music", "music21", "hours"):
    assert said in card


def test_what_comes_with_the_package_is_loaded_where_no_place_is_given(box):
  found, expected = pcl_jax.load(), pcl_jax.load(box)
  assert found.about == expected.about | {"workdir": "pcl_jax/pretrained"}
  samples = np.random.default_rng(0).normal(0, 0.1, 80_000)
  np.testing.assert_array_equal(
    found.embed(samples, sample_rate_hz=16_000),
    expected.embed(samples, sample_rate_hz=16_000),
  )


def test_a_bundle_has_one_encoder_whichever_is_asked_for(box):
  assert pcl_jax.load(box, "latest").about == pcl_jax.load(box).about


@pytest.mark.parametrize("command", [embed, evaluate, export])
def test_the_flag_of_the_checkpoint_says_that_a_bundle_has_one(command, capsys):
  with pytest.raises(SystemExit):
    command.main(["--help"])
  _, _, text = capsys.readouterr().out.rpartition("--checkpoint {")
  assert "a bundle has one encoder" in " ".join(text.split())[:200]


def test_a_licence_that_is_none_is_refused_before_anything_is_loaded(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(encoder_loading, "load", lambda *_: 1 / 0)
  with pytest.raises(errors.InputError, match="CC BY 4.0"):
    export.main([f"--out={tmp_path / 'copy'}", "--license=CC BY 4.0"])


def test_music_is_embedded_searched_and_exported_without_a_workdir(
  box, tmp_path, capsys
):
  music, out = tmp_path / "music", tmp_path / "music.parquet"
  for number in range(3):
    tiny_library.write_song(music / f"{number}.wav", 200.0 + 100 * number)
  embed.main([f"--audio={music}", f"--out={out}"])
  assert parquet.read_metadata(out).num_rows == 3
  # A file that the table lacks is embedded by the table's encoder.
  query = tiny_library.write_song(tmp_path / "query.wav", 300.0)
  capsys.readouterr()
  similar.main([f"--embeddings={out}", f"--query={query}", "-k", "1"])
  assert "1.wav" in capsys.readouterr().out
  export.main([f"--out={tmp_path / 'copy'}"])
  weights = "model.safetensors"
  copied = (tmp_path / "copy" / weights).read_bytes()
  assert copied == (box / weights).read_bytes()


def test_an_installation_without_an_encoder_says_so(tmp_path, monkeypatch):
  monkeypatch.setattr(encoder_loading, "_PRETRAINED_FOLDER", tmp_path)
  with pytest.raises(errors.InputError, match="no encoder comes with this"):
    pcl_jax.load()
