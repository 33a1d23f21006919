"""Fixtures of tests of bundles."""

import pathlib
import shutil

import pytest

import pcl_jax
from pcl_jax.embedding import song_encoder
from tests.support import quick_backbone
from tests.support import quick_run


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
