"""Eight CPU devices and strict JAX, set before anything touches a device."""

import pathlib
import tempfile

import jax
import ml_collections
import pytest

from configs import common
from pcl_jax.models import cpu_conv
from pcl_jax.training import setup
from preprocessing import sample_data
from tests.support import quick_backbone
from tests.support import tiny_run

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

GOLDEN = pathlib.Path(__file__).parent / "golden"
SHARED = pathlib.Path(__file__).parents[2] / "shared"


def pytest_configure(config: pytest.Config) -> None:
  """Keeps what is compiled for the session: many tests train alike."""
  folder = tempfile.TemporaryDirectory(prefix="pcl_jax-compiled-")
  config.add_cleanup(folder.cleanup)
  jax.config.update("jax_compilation_cache_dir", folder.name)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="module")
def quick_compilation():
  """Compiles without optimising, for tests that take few steps."""
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def build_once():
  """Builds runs whose compiled steps are alike only once in a module."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(setup, "build", tiny_run.build_once)
    yield
  tiny_run.forget_built()


@pytest.fixture(scope="module")
def quickly(build_once):
  """As `build_once`, with the backbone registered that compiles at once."""
  with pytest.MonkeyPatch.context() as patch:
    quick_backbone.register(patch)
    yield


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """A tiny data set: 36 training songs."""
  return tiny_run.make_data_set(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="module")
def unbroken(config, build_once, quick_compilation, tmp_path_factory):
  """Workdir of a run by the module's own `config` that nothing interrupted."""
  workdir = tmp_path_factory.mktemp("unbroken")
  tiny_run.train_on_one(config, workdir)
  return workdir


@pytest.fixture
def as_on_one_device(monkeypatch: pytest.MonkeyPatch):
  """Computes gradients as where a CPU is one device, not eight forced ones."""
  monkeypatch.setattr(cpu_conv, "shares_threads", lambda: False)


@pytest.fixture(scope="session")
def smoke_sample(
  tmp_path_factory: pytest.TempPathFactory,
) -> pathlib.Path:
  """Data set that the smoke form of a config makes where it is absent."""
  config = ml_collections.ConfigDict()
  config.data, config.model_params = {}, {"audio": {}}
  common.make_small(config)
  path = tmp_path_factory.mktemp("sample") / "smoke"
  sample_data.make_where_absent(
    path,
    songs=config.data.sample_songs,
    seconds=config.data.sample_seconds,
  )
  return path


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
