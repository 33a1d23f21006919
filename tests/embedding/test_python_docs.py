"""Runs every snippet of docs/python.md."""

import json
import pathlib
import re
import shutil

import pytest

from tests.support import quick_backbone
from tests.support import quick_run
from tests.support.tiny import tiny_data
from tests.support.tiny import tiny_library

DOC = pathlib.Path(__file__).parents[2] / "docs" / "python.md"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
  """The current folder, with a run, audio and a data set."""
  quick_backbone.register(monkeypatch)
  quick_run.save(tmp_path / "runs" / "demo")
  for number in range(5):
    hz = 200.0 * 1.5**number
    path = tmp_path / "music" / f"{number}.mp3"
    tiny_library.write_song(path, hz, seconds=9.0, rate_hz=44_100)
  shutil.copy(path, tmp_path / "song.mp3")
  tiny_library.write_song(
    tmp_path / "song.flac", hz, seconds=9.0, rate_hz=44_100
  )
  data = tmp_path / "data" / "sample"
  data.mkdir(parents=True)
  tiny_data.tiny_store(data / "songs.lmdb", tiny_data.tiny_catalogue())
  monkeypatch.chdir(tmp_path)
  return tmp_path


def test_the_snippets_run_one_after_another(folder, capsys):
  snippets = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
  assert len(snippets) == DOC.read_text().count("```") // 2
  names: dict = {}
  for snippet in snippets:
    exec(compile(snippet, str(DOC), "exec"), names)
  assert names["report"].songs == 5
  assert names["table"].ids[names["found"].rows[0]] == "4.mp3"
  assert len(names["more"].rows) == 2
  assert "missing.mp3: there is no such file" in capsys.readouterr().out
  listed = folder / "music.parquet.failures.json"
  assert json.loads(listed.read_text()) == []
