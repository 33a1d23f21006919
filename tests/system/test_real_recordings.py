"""From six real recordings to encoders that know their pieces apart."""

import json

from flax import nnx
import jax
import numpy as np
import pytest

from pcl_jax.checkpoint import restore
from pcl_jax.data import dataset
from pcl_jax.embedding import song_encoder
from pcl_jax.evaluation.retrieval import ranking
from pcl_jax.evaluation.retrieval import relevance
from pcl_jax.models import audio_encoder
from pcl_jax.training import loop
from preprocessing.library import library_build
from tests import conftest
from tests.support.audio_files import real_library
from tests.support.tiny import tiny_run

pytestmark = pytest.mark.usefixtures("quick_compilation")

PIECE_S = 8.0


@pytest.fixture(scope="module")
def library(tmp_path_factory):
  """Data set of the recordings cut into pieces, a folder for each recording."""
  if not conftest.SHARED.is_dir():
    pytest.skip("needs the folder of real recordings")
  folder = tmp_path_factory.mktemp("recordings")
  pieces = real_library.cut_recordings(
    conftest.SHARED / "audio", folder / "music", PIECE_S
  )
  library_build.build_library(
    folder / "music",
    folder / "data",
    test_share=0.2,
    validation_share=0.3,
    min_s=0.0,
    threads=2,
  )
  assert len(dataset.DataSet(folder / "data").store) == pieces
  return folder / "data"


def _mean_average_precision(encoder, data: dataset.DataSet) -> float:
  """How much nearer pieces of one recording are than those of others."""
  songs = np.arange(len(data.store), dtype=np.int32)
  embeddings = song_encoder.embed_songs(
    encoder, data.store, songs, batch_patches=16
  )
  rules = {"artist": relevance.Relevance.of(data.catalogue.artists)}
  found = ranking.measure(embeddings, songs, songs, rules).columns
  return float(np.nanmean(found["artist"]["average_precision"]))


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["SS", "A-IM Artist"])
def test_training_brings_pieces_of_one_recording_together(
  library, tmp_path, strategy
):
  # Batches of one size, whose programs are compiled once for both strategies.
  keys = {
    "epochs": 40 if strategy == "A-IM Artist" else 10,
    "early_stop_patience": 40,
    "log_every_steps": 1,
    "data__batch_size": 4,
    "model_params__audio__width": 8,
    "opt_params__lr": 1e-3,
  }
  if strategy == "A-IM Artist":
    keys["contrast_combos"] = ()
    keys["audio_contrast_params__pair_generation_method"] = "Artist"
  config = tiny_run.small_config(library, **keys)
  loop.train_and_evaluate(config, tmp_path, devices=jax.devices()[:1])
  rows = [
    json.loads(line)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
  ]
  losses = [row["total"] for row in rows if row["kind"] == "train"]
  assert np.mean(losses[-10:]) < np.mean(losses[:10])
  trained, meta = restore.load_encoder(tmp_path, "latest")
  assert meta["strategy"] == strategy
  untrained = audio_encoder.AudioEncoder(
    **meta["architecture"]["audio"], rngs=nnx.Rngs(config.seed)
  )
  data = dataset.DataSet(library)
  assert _mean_average_precision(trained, data) > _mean_average_precision(
    untrained, data
  )
