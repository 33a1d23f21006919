"""Fixtures of tests that make lists."""

import numpy as np
import pytest

from tests.support.tiny import tiny_table

ARTISTS = ["Ann", "Bob", "Cid & Dee", ""]
GENRES = ["Rock", "Jazz", "Hip Hop"]


@pytest.fixture(scope="module", autouse=True)
def _quickly_compiled(quick_compilation):
  """The tests of a folder compile many small programs, and run them once."""


@pytest.fixture(scope="session")
def labelled(tmp_path_factory):
  """A table whose songs have artists, albums, genres and lengths.

  Song i is of artist i % 4 (the last is not known), of the album i // 10 (those
  from 50 on of none), of genre i % 3 and 60 + i seconds long.
  """
  songs = range(tiny_table.SONGS)
  names = [ARTISTS[i % 4] for i in songs]
  facts = {
    "artists": [[one] if one else [] for one in names],
    "album": [f"Album {i // 10}" if i < 50 else "" for i in songs],
    "album_id": [f"album {i // 10} / x" if i < 50 else "" for i in songs],
    "genres": [[GENRES[i % 3]] for i in songs],
    "seconds": [60.0 + i for i in songs],
    "name": [f"{one} - {i}" if one else str(i) for i, one in enumerate(names)],
  }
  path = tmp_path_factory.mktemp("labelled") / "music.parquet"
  return tiny_table.write(path, root="/music", silent=[59], facts=facts)


@pytest.fixture(scope="session")
def unlabelled(tmp_path_factory):
  """The same songs, of which nothing is known."""
  path = tmp_path_factory.mktemp("unlabelled") / "music.parquet"
  table = tiny_table.write(path, silent=[59])
  assert np.isfinite(table.facts.seconds).all()
  return table
