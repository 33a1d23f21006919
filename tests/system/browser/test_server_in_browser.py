"""The page of a served library, used in Chromium as a person would."""

import contextlib
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from tests.support.browser import browsers
from tests.support.servers import served
from tests.support.tiny import tiny_library
from tests.support.tiny import tiny_table

pytestmark = pytest.mark.long

SCRIPT = (
  pathlib.Path(__file__).parents[2] / "support" / "browser" / "read_library.mjs"
).resolve()


@contextlib.contextmanager
def _listening(folder: pathlib.Path):
  """Yields the address of a server, which is then asked to end."""
  words = [f"--embeddings={folder / 'music.parquet'}", "--port=0"]
  words.append(f"--audio={folder / 'music'}")
  with subprocess.Popen(
    [sys.executable, "-m", "pcl_jax.serve", *words],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    said = process.stdout.readline()
    try:
      yield re.search(r"http://\S+", said)[0]
    finally:
      process.send_signal(signal.SIGINT)
      _, errors = process.communicate(timeout=60)
  assert process.returncode == 0 and not errors


def test_the_page_finds_plays_and_lists_songs(tmp_path):
  (tmp_path / "package.json").write_text("{}")
  browsers.install(tmp_path, "playwright-core", "axe-core")
  chromium = browsers.chromium()
  table = served.write(tmp_path)
  for path in map(pathlib.Path, table.paths):
    path.unlink()
    sound = tiny_library.write_song(tmp_path / "sound.wav", seconds=1)
    sound.rename(path)
  with _listening(tmp_path) as url:
    read = browsers.run(SCRIPT, tmp_path, url, chromium)
  assert read["said"] == [] and read["violations"] == []
  assert read["origins"] == [url.rstrip("/")]
  assert read["dots"] == tiny_table.SONGS
  assert read["clicked"] == "Bob <i> - Song 5"
  cosines = list(map(float, read["cosines"]))
  assert cosines == sorted(cosines, reverse=True) and len(cosines) == 10
  assert read["marked"] == [5, 10]
  assert read["played"] == pytest.approx(1, abs=0.1)
  assert "Song 17" in read["typed"]
  assert len(read["path"]) == len(set(read["path"])) == read["kept"] == 12
  assert read["saved"].startswith("#EXTM3U\n")
  assert read["saved"].count("#EXTINF") == 12
  assert read["injected"] == 0
  assert "give more" in read["refused"]
  assert read["newest"] == 4
  assert read["plays"] == 0
  assert read["overhang"] <= 0
  assert "POST /api/similar" in read["addresses"]
