"""Tests of the adapter for mteb, or for its protocol."""

import importlib
import sys

import numpy as np
import pytest

import pcl_jax
from tests.interop import stand_ins

ADAPTER = "pcl_jax.interop.mteb_encoder"


@pytest.fixture
def adapter(monkeypatch):
  """The adapter's module; the package, or a stand-in."""
  stand_ins.provide(monkeypatch, "mteb", stand_ins.MTEB)
  monkeypatch.delitem(sys.modules, ADAPTER, raising=False)
  yield importlib.import_module(ADAPTER)
  sys.modules.pop(ADAPTER, None)


def row(seconds: float, rate_hz: int, channels: int = 1) -> dict:
  drawn = np.random.default_rng(0).normal(
    0, 0.1, (channels, round(seconds * rate_hz))
  )
  array = drawn[0] if channels == 1 else drawn
  return {"array": array, "sampling_rate": rate_hz}


def test_each_recording_becomes_the_vector_of_the_paper(
  adapter, quick_encoder, quick_run
):
  model = adapter.MtebEncoder(quick_run)
  rows = [row(9.0, 16_000), row(1.0, 22_050), row(5.0, 44_100, channels=2)]
  found = model.encode(
    [{"audio": rows[:2]}, {"audio": rows[2:]}],
    task_metadata=None,
    hf_split="test",
    hf_subset="default",
    batch_size=2,
  )
  assert (
    found.shape == (3, quick_encoder.features) and found.dtype == np.float32
  )
  for vector, one in zip(found, rows, strict=True):
    samples = one["array"].astype(np.float32).T
    expected = quick_encoder.embed(
      samples, sample_rate_hz=one["sampling_rate"], batch_patches=8
    )
    np.testing.assert_allclose(vector, expected, rtol=1e-5)


def test_windows_and_layer_are_arguments(adapter, quick_encoder, quick_run):
  model = adapter.MtebEncoder(quick_run, tail="weight", layer="projection")
  (found,) = model.encode([{"audio": [row(10.0, 16_000)]}])
  assert found.shape == (quick_encoder.projection,)
  assert model.mteb_model_meta.embed_dim == quick_encoder.projection
  vectors, weights = model.windows.embed(
    quick_encoder, row(10.0, 16_000)["array"].astype(np.float32), 16_000
  )
  expected = np.average(vectors, axis=0, weights=weights)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert weights[-1] == pytest.approx(113 / 256)


def test_its_absence_is_one_line_that_names_the_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, "mteb.models", None)
  monkeypatch.delitem(sys.modules, ADAPTER, raising=False)
  with pytest.raises(pcl_jax.InputError, match=r"pip install .pcl_jax\[mteb\]"):
    importlib.import_module(ADAPTER)


@pytest.mark.long
@pytest.mark.filterwarnings("default")  # Those of the package's own.
def test_mteb_evaluates_it_on_a_task_of_audio(quick_run, tmp_path, monkeypatch):
  mteb = pytest.importorskip("mteb")
  mock_tasks = pytest.importorskip("mteb.mocks.mock_tasks")
  adapter = importlib.import_module(ADAPTER)
  model = adapter.MtebEncoder(quick_run)
  assert isinstance(model, mteb.models.EncoderProtocol)
  # The recordings stay arrays: as files they would need torchcodec.
  plain = importlib.import_module("datasets").DatasetDict
  monkeypatch.setattr(plain, "cast_column", lambda self, *_: self)
  task = mock_tasks.MockAudioClassification()
  cache = mteb.ResultCache(cache_path=tmp_path)
  result = mteb.evaluate(model, task, cache=cache)
  (found,) = result.task_results
  assert 0.0 <= found.get_score() <= 1.0
