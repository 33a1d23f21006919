"""A run that pages are made of."""

import pathlib
import shutil

import pytest

from tests.support import quick_backbone
from tests.support import reported_run

pytest.importorskip("jinja2")
vl_convert = pytest.importorskip("vl_convert")


@pytest.fixture(scope="package")
def made(tmp_path_factory) -> pathlib.Path:
  """A run with results, which no test changes."""
  with pytest.MonkeyPatch.context() as patch:
    quick_backbone.register(patch)
    patch.setattr(vl_convert, "javascript_bundle", lambda: "// the library")
    yield reported_run.make(tmp_path_factory.mktemp("reported"))


@pytest.fixture
def workdir(made, tmp_path) -> pathlib.Path:
  """A copy of the run."""
  return shutil.copytree(made, tmp_path / "run")
