"""Fixtures of tests that bring a library's data set up to date."""

import pytest

from pcl_jax.audio import decode
from preprocessing.library import library_build
from tests.support.tiny import tiny_library


@pytest.fixture
def decoded(monkeypatch):
  """Names of the files decoded so far."""
  names, read = [], decode.read_feature

  def noting(path, *part):
    names.append(path.name)
    return read(path, *part)

  monkeypatch.setattr(decode, "read_feature", noting)
  return names


@pytest.fixture
def library(tmp_path, decoded):
  """A library of nine songs and its data set."""
  audio = tiny_library.make(tmp_path / "music", artists=3, songs=3)
  library_build.build_library(audio, tmp_path / "data", **tiny_library.SMALL)
  decoded.clear()
  return audio, tmp_path / "data"
