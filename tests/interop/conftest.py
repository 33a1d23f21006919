"""Fixtures of tests that write encoders in other forms."""

import functools

import pytest

from pcl_jax.audio import melspectrogram
from pcl_jax.embedding import embedding_table
from pcl_jax.embedding import encoder_loading
from pcl_jax.embedding import song_encoder
from pcl_jax.interop import torch_names
from tests.support.published import golden_weights


@functools.cache
def _narrow_encoder(name: str) -> song_encoder.SongEncoder:
  """Returns an encoder as if a run at step 3 were loaded."""
  arrays = golden_weights.draw_narrow_state_dict(name)
  network = torch_names.load_encoder(arrays)
  meta = {
    "progress": {"step": 3},
    "strategy": "SS",
    "architecture": {"audio": torch_names.architecture_of(arrays)},
    "feature": melspectrogram.SETTINGS.as_dict(),
  }
  about = embedding_table.provenance(network, meta, "run")
  about["checkpoint"] = "best"
  return song_encoder.SongEncoder(network, about, meta)


@pytest.fixture(scope="session")
def narrow_encoders() -> dict[str, song_encoder.SongEncoder]:
  """A narrow encoder of either kind; tests leave them as they are."""
  return {name: _narrow_encoder(name) for name in ("resnet", "sc_cnn")}


@pytest.fixture(
  scope="module",
  params=[pytest.param("resnet", marks=pytest.mark.long), "sc_cnn"],
)
def encoder(request) -> song_encoder.SongEncoder:
  """A narrow encoder of either kind; tests leave it as it is."""
  return _narrow_encoder(request.param)


@pytest.fixture
def narrow_run(monkeypatch) -> str:
  """A --workdir from which commands load the narrow short-chunk CNN."""
  encoder = _narrow_encoder("sc_cnn")
  monkeypatch.setattr(encoder_loading, "load", lambda *_, **__: encoder)
  return "run"
