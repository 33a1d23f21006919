"""Tests of the adapter for perch-hoplite, or for its protocol."""

import importlib
import sys

import numpy as np
import pytest

import pcl_jax
from tests.interop import stand_ins

RATE_HZ = 16_000
ADAPTER = "pcl_jax.interop.hoplite_model"


@pytest.fixture
def adapter(monkeypatch):
  """The adapter's module; the package, or a stand-in."""
  stand_ins.provide(monkeypatch, "perch_hoplite", stand_ins.HOPLITE)
  monkeypatch.delitem(sys.modules, ADAPTER, raising=False)
  yield importlib.import_module(ADAPTER)
  sys.modules.pop(ADAPTER, None)


def audio(seconds: float) -> np.ndarray:
  samples = np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE_HZ))
  return samples.astype(np.float32)


def test_windows_become_frames_with_one_channel(
  adapter, quick_encoder, quick_run
):
  model = adapter.HopliteModel.from_config({"model_path": quick_run})
  assert model.sample_rate == RATE_HZ
  found = model.embed(audio(9.0))
  assert isinstance(found, adapter.zoo_interface.InferenceOutputs)
  expected = quick_encoder.embed(
    audio(9.0), sample_rate_hz=RATE_HZ, per_patch=True, batch_patches=8
  )
  np.testing.assert_array_equal(found.embeddings[:, 0], expected.vectors)
  assert found.embeddings.shape == (2, 1, quick_encoder.features)
  pooled = found.pooled_embeddings("mean", "squeeze")
  np.testing.assert_allclose(pooled, expected.vectors.mean(0), rtol=1e-5)


def test_the_mean_counts_the_last_window_by_its_length(adapter, quick_run):
  config = {
    "model_path": quick_run,
    "tail": "weight",
    "window_s": 4.096,
  }
  model = adapter.HopliteModel.from_config(config | {"sample_rate": RATE_HZ})
  found = model.embed(audio(10.0))
  vectors = found.embeddings[:, 0]
  assert len(vectors) == 3
  expected = (vectors[0] + vectors[1] + 113 / 256 * vectors[2]) / (
    2 + 113 / 256
  )
  np.testing.assert_allclose(
    found.pooled_embeddings("mean", "squeeze"), expected, rtol=1e-5
  )
  highest = found.pooled_embeddings("max", "squeeze")
  np.testing.assert_array_equal(highest, vectors.max(0))


def test_a_batch_is_what_its_recordings_are(adapter, quick_run):
  config = {"model_path": quick_run, "tail": "weight"}
  model = adapter.HopliteModel.from_config(config)
  batch = np.stack([audio(9.0), audio(9.0)[::-1]])
  found = model.batch_embed(batch)
  assert found.batched
  pooled = found.pooled_embeddings("mean", "squeeze")
  for row, mean, samples in zip(found.embeddings, pooled, batch, strict=True):
    alone = model.embed(samples)
    np.testing.assert_allclose(row, alone.embeddings, rtol=1e-5)
    np.testing.assert_allclose(
      mean, alone.pooled_embeddings("mean", "squeeze"), rtol=1e-5
    )


def test_another_sample_rate_is_refused(adapter, quick_run):
  config = {"model_path": quick_run, "sample_rate": 32_000}
  with pytest.raises(pcl_jax.InputError, match="32000.*16000: leave it out"):
    adapter.HopliteModel.from_config(config)


def test_its_absence_is_one_line(monkeypatch):
  monkeypatch.setitem(sys.modules, "perch_hoplite.zoo", None)
  monkeypatch.delitem(sys.modules, ADAPTER, raising=False)
  with pytest.raises(pcl_jax.InputError, match="needs perch-hoplite"):
    importlib.import_module(ADAPTER)
