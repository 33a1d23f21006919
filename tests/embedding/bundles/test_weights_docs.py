"""Runs every snippet and command of docs/weights.md."""

import importlib.util
import pathlib
import re
import shlex
import shutil

import numpy as np
import pytest

import pcl_jax
from tests.interop import stand_ins
from tests.support import quick_run
from tests.support.tiny import tiny_library

pytestmark = pytest.mark.usefixtures("quick_compilation")

HAS_TORCH = importlib.util.find_spec("torch") is not None
DOC = pathlib.Path(__file__).parents[3] / "docs" / "weights.md"
_RUN = re.compile(
  r"^```python\n(?P<code>.*?)^```|^    \.venv/bin/python -m (?P<command>.*?)$",
  re.DOTALL | re.MULTILINE,
)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
  """The current folder, with a run and audio, and a hub with the bundle."""
  # A network that PyTorch's names are known of.
  audio = {"backbone_type": "sc_cnn", "width": 1, "fc_output_dim": 4}
  quick_run.save(tmp_path / "runs" / "demo", audio=audio)
  song = tiny_library.write_song(tmp_path / "music" / "1.mp3", seconds=9.0)
  shutil.copy(song, tmp_path / "song.mp3")
  hub = pytest.importorskip("huggingface_hub")
  pytest.importorskip("onnx")
  pytest.importorskip("onnxruntime")
  pytest.importorskip("flatbuffers")
  kept = tmp_path / ("0" * 40)

  def snapshot_download(name, **_):
    assert name == "user/name"
    return shutil.copytree(tmp_path / "my-encoder", kept, dirs_exist_ok=True)

  monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
  stand_ins.provide(monkeypatch, "mteb", stand_ins.MTEB)
  stand_ins.provide(monkeypatch, "perch_hoplite", stand_ins.HOPLITE)
  monkeypatch.chdir(tmp_path)
  return tmp_path


def _assert_near(found: np.ndarray, expected: np.ndarray) -> None:
  """Compares vectors of one MP3 that was decoded by two libraries."""
  limit = 1e-3 * np.abs(expected).max()
  np.testing.assert_allclose(found, expected, rtol=0, atol=limit)


@pytest.mark.long
def test_snippets_and_commands_run_one_after_another(folder):
  text = DOC.read_text()
  found = list(_RUN.finditer(text))
  assert len(found) == text.count("```python") + text.count("    .venv/")
  names: dict = {}
  for one in found:
    if "modeling_pcl" in (one["code"] or "") and not HAS_TORCH:
      continue
    if one["code"]:
      exec(compile(one["code"], str(DOC), "exec"), names)
    else:
      module, *words = shlex.split(one["command"])
      importlib.import_module(module).main(words)
  assert pcl_jax.read_table("music.parquet").ids == ["1.mp3"]
  files = {path.name for path in (folder / "my-encoder").iterdir()}
  assert all(f"| `{name}` |" in text for name in files)
  told = [
    pcl_jax.load(name, verify=False).about["weights_sha256"]
    for name in ("runs/demo", "my-encoder", "imported")
  ]
  assert len(set(told)) == 1
  for name in ("song_vector", "onnx_vector"):
    _assert_near(names[name], names["vector"])
