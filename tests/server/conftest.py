"""Fixtures of tests of the server."""

import pathlib

import pytest

from tests.support.servers import served


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
  """A folder with a table and its audio; tests leave it as it is."""
  made = tmp_path_factory.mktemp("served")
  served.write(made)
  return made


@pytest.fixture(scope="module")
def library(folder):
  """The library of the folder, as it is served."""
  return served.serve(folder / "music.parquet", folder / "music")


@pytest.fixture(scope="module")
def client(library):
  """Asks the server of the library."""
  with served.asked(library) as found:
    yield found
