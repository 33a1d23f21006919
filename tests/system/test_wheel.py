"""Tests of the package as pip installs it, with no checkout next to it."""

import os
import pathlib
import subprocess
import sys
import sysconfig
import zipfile

import numpy as np
import pytest

import pcl_jax
from tests.support import quick_run

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROOT = pathlib.Path(__file__).parents[2]
# Programs are compiled without optimising, in these processes and here.
QUICK = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
_EMBED = """
import sys
import numpy as np
import pcl_jax
assert "site-packages" in pcl_jax.__file__, pcl_jax.__file__
assert "jax" not in sys.modules
samples = np.random.default_rng(0).normal(0, 0.1, 200_000)
encoder = pcl_jax.load(sys.argv[1])
how = {"sample_rate_hz": 22_050, "batch_patches": 2}
np.save(sys.argv[2], encoder.embed(samples, **how))
heavy = {"ml_collections", "sklearn", "gensim", "tensorflow_datasets"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""


def _run(command, cwd, **variables) -> subprocess.CompletedProcess:
  clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  return subprocess.run(
    list(map(os.fspath, command)),
    cwd=cwd,
    env=clean | QUICK | variables,
    capture_output=True,
    text=True,
    check=False,
  )


def _good(command, cwd, **variables) -> str:
  done = _run(command, cwd, **variables)
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> pathlib.Path:
  """The wheel of this checkout."""
  folder = tmp_path_factory.mktemp("wheel")
  pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps"]
  _good([*pip, "--no-build-isolation", "-w", folder, ROOT], folder)
  (found,) = folder.glob("pcl_jax-*.whl")
  return found


def _environment(folder: pathlib.Path) -> pathlib.Path:
  # Its own pip would take seconds to install; ours can fill it as well.
  venv = [sys.executable, "-m", "venv", "--without-pip"]
  _good([*venv, folder / "env"], folder)
  return folder / "env" / "bin"


def _pip(programs: pathlib.Path) -> list:
  pip = [sys.executable, "-m", "pip", "--python", programs / "python"]
  return [*pip, "install", "-q"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory, wheel) -> pathlib.Path:
  """Programs of an environment with the wheel and what this one has."""
  folder = tmp_path_factory.mktemp("installed")
  programs = _environment(folder)
  _good([*_pip(programs), "--no-index", "--no-deps", wheel], folder)
  (packages,) = (folder / "env").glob("lib/*/site-packages")
  ours = sysconfig.get_path("purelib")
  (packages / "dependencies.pth").write_text(f"{ours}\n")
  return programs


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> pathlib.Path:
  """A run with an encoder that needs nothing of the tests."""
  path = tmp_path_factory.mktemp("run")
  audio = {"backbone_type": "sc_cnn", "width": 1, "fc_output_dim": 4}
  quick_run.save(path, audio=audio)
  return path


def _expected(workdir: pathlib.Path) -> np.ndarray:
  samples = np.random.default_rng(0).normal(0, 0.1, 200_000)
  encoder = pcl_jax.load(workdir)
  return encoder.embed(samples, sample_rate_hz=22_050, batch_patches=2)


@pytest.mark.parametrize(
  "name", ["interop/modeling_pcl.py", "pretrained/model.safetensors"]
)
def test_what_is_not_imported_comes_with_the_wheel(wheel, name):
  with zipfile.ZipFile(wheel) as archive:
    found = archive.read(f"pcl_jax/{name}")
  assert found == (ROOT / "pcl_jax" / name).read_bytes()


@pytest.mark.long
def test_an_installed_wheel_embeds_an_array(installed, workdir, tmp_path):
  out = tmp_path / "vector.npy"
  _good([installed / "python", "-c", _EMBED, workdir, out], tmp_path)
  np.testing.assert_allclose(np.load(out), _expected(workdir), rtol=1e-5)


def test_configs_come_with_the_wheel_and_are_named_by_it(installed, tmp_path):
  command = [installed / "pcl-jax", "train", "--workdir=w"]
  command.append("--config=pcl:hybrid_resnet:artist+a_p")
  done = _run([*command, "--config.data.dir=absent"], tmp_path)
  assert done.returncode == 2
  assert "the data directory absent" in done.stderr
  assert "pcl-jax prepare own_library" in done.stderr
  assert "python -m" not in done.stderr


@pytest.mark.long
def test_data_sets_are_prepared_by_an_installed_wheel(installed, tmp_path):
  told = _good(
    [installed / "pcl-jax", "prepare", "own_library", "-h"], tmp_path
  )
  assert "--audio" in told


@pytest.mark.long
def test_a_base_install_embeds_an_array(wheel, workdir, tmp_path):
  """With the dependencies as pip finds them, so the index must be reached."""
  programs = _environment(tmp_path)
  _good([*_pip(programs), "--only-binary=:all:", wheel], tmp_path)
  out = tmp_path / "vector.npy"
  _good([programs / "python", "-c", _EMBED, workdir, out], tmp_path)
  np.testing.assert_allclose(np.load(out), _expected(workdir), rtol=1e-5)
  done = _run([programs / "pcl-jax", "train", "--config=pcl:sample"], tmp_path)
  assert done.returncode == 2
  assert 'pip install "pcl_jax[all]"' in done.stderr
