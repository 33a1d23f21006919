"""Eight CPU devices and strict JAX, set before anything touches a device."""

import contextlib
import os
import pathlib
import tempfile

import filelock
import jax
import ml_collections
import pytest

from configs import common
from pcl_jax.models import winograd
from pcl_jax.training import setup
from preprocessing import sample_data
from tests.support import quick_backbone
from tests.support.tiny import tiny_run

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

GOLDEN = pathlib.Path(__file__).parent / "golden"
SHARED = pathlib.Path(__file__).parents[2] / "shared"


def pytest_configure(config: pytest.Config) -> None:
  """Keeps what is compiled for the session: many tests train alike.

  The folder is one for all workers and for the commands that tests start; a
  bound on its size is what makes JAX lock it.
  """
  if not hasattr(config, "workerinput"):
    folder = tempfile.TemporaryDirectory(prefix="pcl_jax-compiled-")
    config.add_cleanup(folder.cleanup)
    os.environ.update(
      JAX_COMPILATION_CACHE_DIR=folder.name,
      JAX_COMPILATION_CACHE_MAX_SIZE=str(2**32),
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0.3",
      JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
    )
  for key in (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
  ):
    value = os.environ[key.upper()]
    kind = type(getattr(jax.config, key))
    jax.config.update(key, value if key.endswith("dir") else kind(value))


@contextlib.contextmanager
def _compiling_quickly():
  before = jax.config.values["jax_disable_most_optimizations"]
  jax.config.update("jax_disable_most_optimizations", True)
  try:
    yield
  finally:
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def quick_compilation():
  """Compiles without optimising, for tests that take few steps."""
  with _compiling_quickly():
    yield


@pytest.fixture(scope="module")
def quickly(quick_compilation):
  """Trains by steps that compile quickly, and compiles those alike once."""
  with pytest.MonkeyPatch.context() as patch:
    quick_backbone.register(patch)
    patch.setattr(setup, "build", tiny_run.build_once)
    yield


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """A tiny data set: 36 training songs."""
  return tiny_run.make_data_set(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture
def config(data_dir) -> ml_collections.ConfigDict:
  """Config of three epochs of four steps that compile quickly."""
  return tiny_run.quick_config(data_dir)


@pytest.fixture(scope="module")
def unbroken(data_dir, quickly, tmp_path_factory) -> pathlib.Path:
  """Workdir of an uninterrupted run by `config`; tests leave it as it is."""
  workdir = tmp_path_factory.getbasetemp() / "unbroken"
  if not workdir.exists():
    tiny_run.train_on_one(tiny_run.quick_config(data_dir), workdir)
  return workdir


@pytest.fixture
def as_on_one_device(monkeypatch: pytest.MonkeyPatch):
  """Computes gradients as where a CPU is one device, not eight forced ones."""
  monkeypatch.setattr(winograd, "shares_threads", lambda: False)


@pytest.fixture(scope="session")
def smoke_sample(
  tmp_path_factory: pytest.TempPathFactory,
) -> pathlib.Path:
  """Data set that the smoke form of a config makes where it is absent.

  The workers share it; the first that needs it makes it.
  """
  config = ml_collections.ConfigDict()
  config.data, config.model_params = {}, {"audio": {}}
  common.make_small(config)
  shared = tmp_path_factory.getbasetemp()
  if "PYTEST_XDIST_WORKER" in os.environ:
    shared = shared.parent
  with filelock.FileLock(shared / "sample.lock"), _compiling_quickly():
    sample_data.make_where_absent(
      shared / "sample",
      songs=config.data.sample_songs,
      seconds=config.data.sample_seconds,
    )
  return shared / "sample"


@pytest.fixture
def golden_dir() -> pathlib.Path:
  """Folder of the numbers measured on the published implementation."""
  return GOLDEN


@pytest.fixture
def shared_dir() -> pathlib.Path:
  """Folder of real lists and recordings; skips the test where it is absent."""
  if not SHARED.is_dir():
    pytest.skip(f"needs the folder of real recordings and lists, {SHARED.name}")
  return SHARED
