"""Fixtures of tests that embed songs into tables."""

import json
import pathlib

import pytest

from pcl_jax.data import song_store
from pcl_jax.library import music_files
from tests.support import music_run
from tests.support import quick_backbone
from tests.support import quick_run
from tests.support.tiny import tiny_data
from tests.support.tiny import tiny_library


@pytest.fixture(scope="module", autouse=True)
def _quickly_compiled(quick_compilation):
  """The tests of a folder compile many small programs, and run them once."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """Folder of a run, and of audio; the quick backbone stays registered."""
  root = tmp_path_factory.mktemp("embed")
  for number, (name, (seconds, _)) in enumerate(music_run.SONGS.items()):
    rate_hz = 44_100 if name.endswith("flac") else 16_000
    tiny_library.write_song(
      root / "music" / name, 300.0 * 1.4**number, seconds=seconds,
      rate_hz=rate_hz,
    )  # fmt: skip
  (root / "music" / "cover.jpg").write_bytes(b"no sound")
  with pytest.MonkeyPatch.context() as patch:
    quick_backbone.register(patch)
    quick_run.save(root / "run", step=7)
    yield root


@pytest.fixture
def data(tmp_path) -> pathlib.Path:
  """A prepared data set; its first two songs have audio files."""
  folder = tmp_path / "data"
  folder.mkdir()
  catalogue = tiny_data.tiny_catalogue()
  tiny_data.tiny_store(folder / song_store.FILE_NAME, catalogue, (100, 900))
  ids = catalogue.song_ids[:2].tolist()
  content = {"audio_dir": "/music", "ids": {"a.mp3": ids[0], "b.mp3": ids[1]}}
  (folder / music_files.IDS).write_text(json.dumps(content))
  return folder
