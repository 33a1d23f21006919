"""Encoders for tests that give them other forms."""

import functools

from flax import nnx
import pytest

from pcl_jax.audio import melspectrogram
from pcl_jax.embedding import encoder_loading
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.interop import torch_names
from pcl_jax.models import audio_encoder
from tests.support import quick_backbone
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


@pytest.fixture(scope="module")
def quick_encoder(quick_compilation) -> song_encoder.SongEncoder:
  """An encoder that compiles at once."""
  built = {"backbone_type": quick_backbone.NAME, "width": 2}
  with pytest.MonkeyPatch.context() as patch:
    quick_backbone.register(patch)
    network = audio_encoder.AudioEncoder(**built, rngs=nnx.Rngs(0))
  meta = {"feature": melspectrogram.SETTINGS.as_dict()}
  return song_encoder.SongEncoder(network, {"weights_sha256": "0" * 64}, meta)


@pytest.fixture
def quick_run(quick_encoder, monkeypatch) -> str:
  """A folder from which adapters load it."""
  monkeypatch.setattr(encoder_loading, "load", lambda _: quick_encoder)
  return "run"
