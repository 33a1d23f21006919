"""Tests of benchmarks.real_music.real_runs: results are of this data."""

import os

from flax import nnx
import numpy as np
import pytest

from benchmarks.real_music import real_runs
from benchmarks.strategies import strategy_runs
from pcl_jax.common import errors
from pcl_jax.common import jax_setup
from pcl_jax.common import storage
from pcl_jax.embedding import song_encoder

SIZES = real_runs.Sizes(steps=20, batch_size=8, width=4)


@pytest.fixture
def run(folds, tmp_path, monkeypatch):
  """Name, config and folder of a run on the first fold, which is finished."""
  rows = np.random.default_rng(0).normal(size=(80, 4))
  monkeypatch.setattr(jax_setup, "start", lambda: None)
  monkeypatch.setattr(
    strategy_runs, "encoder_of", lambda *_: (nnx.Module(), {"steps": 20})
  )
  monkeypatch.setattr(
    song_encoder, "embed_songs", lambda _, __, songs, **___: rows[songs]
  )
  place = folds[0].directory
  config = real_runs.config_of("ss", 0, place, SIZES, tmp_path)
  job = "ss", config, tmp_path / "ss-0" / "0"
  real_runs.run_one(*job, os.sched_getaffinity(0))
  return job


def test_a_result_is_of_the_data_that_it_was_trained_on(folds, run, capsys):
  name, config, folder = run
  assert strategy_runs.unfinished([run]) == []
  assert not capsys.readouterr().err
  other = config.copy_and_resolve_references()
  other.data.dir = str(folds[1].directory)
  with pytest.raises(errors.InputError, match="data.fingerprint was"):
    strategy_runs.unfinished([(name, other, folder)])
  left = name, other, folder.with_name("1")
  assert strategy_runs.unfinished([run, left]) == [left]


def test_rendered_scores_are_not_embedded(run):
  vectors = np.load(run[2] / real_runs.VECTORS)
  assert vectors[:64].any(axis=1).all() and not vectors[64:].any()


def test_results_without_a_fingerprint_are_taken_and_that_is_said(run, capsys):
  name, config, folder = run
  path = folder / strategy_runs.RESULT
  result = storage.read_json(path)
  del result["settings"][strategy_runs.FINGERPRINT]
  storage.write_json(path, result)
  assert strategy_runs.unfinished([run, run]) == []
  said = capsys.readouterr().err
  assert said.count("\n") == 1 and "2 finished runs" in said
  assert "could not be checked" in said
  other = config.copy_and_resolve_references()
  other.steps = 30
  with pytest.raises(errors.InputError, match="steps was 20 and is 30"):
    strategy_runs.unfinished([(name, other, folder)])
