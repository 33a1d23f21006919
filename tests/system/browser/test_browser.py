"""The page of examples/browser, used in Chromium."""

from collections.abc import Iterator
import functools
import http.server
import pathlib
import shutil
import threading

import numpy as np
import pytest
import soundfile

from pcl_jax.audio import melspectrogram
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.bundles import golden_audio
from pcl_jax.interop import onnx_graph
from pcl_jax.interop import torch_names
from pcl_jax.models import compiled_encoder
from tests.support.browser import browsers
from tests.support.published import golden_weights

pytest.importorskip("onnx")
pytestmark = [
  pytest.mark.long,
  pytest.mark.usefixtures("quick_compilation"),
]

ROOT = pathlib.Path(__file__).parents[3]
SCRIPT = ROOT / "tests" / "support" / "browser" / "embed_in_browser.mjs"


class _Quiet(http.server.SimpleHTTPRequestHandler):
  """Serves the page, and says nothing."""

  def log_message(self, *_):
    """Says nothing."""


@pytest.fixture(scope="module")
def chromium() -> str:
  """The browser."""
  return browsers.chromium()


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[tuple[pathlib.Path, str]]:
  """A copy of the page's folder with its packages, and its address."""
  folder = tmp_path_factory.mktemp("browser") / "page"
  kept = shutil.ignore_patterns("node_modules")
  shutil.copytree(ROOT / "examples" / "browser", folder, ignore=kept)
  browsers.install(folder)
  serve = functools.partial(_Quiet, directory=folder)
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()
    thread.join()


@pytest.fixture(scope="module")
def encoder() -> song_encoder.SongEncoder:
  """A narrow short-chunk CNN."""
  arrays = golden_weights.draw_narrow_state_dict("sc_cnn")
  meta = {"feature": melspectrogram.SETTINGS.as_dict()}
  return song_encoder.SongEncoder(torch_names.load_encoder(arrays), {}, meta)


@pytest.fixture(scope="module")
def encoder_file(encoder, tmp_path_factory) -> pathlib.Path:
  """The encoder's file."""
  out = tmp_path_factory.mktemp("browser") / "encoder.onnx"
  out.write_bytes(onnx_graph.of_samples(encoder.network).SerializeToString())
  return out


def _embed(page, chromium: str, *files: pathlib.Path) -> dict:
  """Embeds a song in the browser; returns what the page says and offers."""
  folder, address = page
  return browsers.run(SCRIPT, folder, address, chromium, *files)


def _assert_same(encoder, table: dict, song: pathlib.Path) -> None:
  """Compares the page's vectors with ours, to 1e-3 of the largest number."""
  for layer in compiled_encoder.LAYERS:
    expected = encoder.embed(song, layer=layer, batch_patches=4)
    limit = 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(table[layer], expected, rtol=0, atol=limit)


@pytest.mark.parametrize(
  "name, rate_hz",
  [("16k.wav", 16_000), ("44k.flac", 44_100), ("48k.ogg", 48_000)],
)
def test_the_page_gives_our_vectors(
  page, chromium, encoder, encoder_file, tmp_path, name, rate_hz
):
  song, samples = tmp_path / name, np.resize(golden_audio.generate(), 400_000)
  noise = np.random.default_rng(0).normal(0, 0.05, (len(samples), 2))
  soundfile.write(song, samples[:, None] + noise, rate_hz)
  found = _embed(page, chromium, encoder_file, song)
  assert found["said"] == "Done."
  assert found["table"]["song"] == name
  assert found["table"]["patches"] == int(400_000 / rate_hz / 4.096)
  _assert_same(encoder, found["table"], song)


@pytest.mark.parametrize("name", ["robin.ogg", "ragtime.ogg"])
def test_the_page_gives_our_vectors_of_a_recording(
  page, chromium, encoder, encoder_file, shared_dir, name
):
  song = shared_dir / "audio" / name
  _assert_same(
    encoder, _embed(page, chromium, encoder_file, song)["table"], song
  )


def test_the_page_says_which_file_it_cannot_use(
  page, chromium, encoder_file, tmp_path
):
  bad = tmp_path / "bad.txt"
  bad.write_text("neither music nor an encoder")
  found = _embed(page, chromium, encoder_file, bad)
  assert found["said"].startswith("bad.txt cannot be used (")
  assert found["table"] is None
  found = _embed(page, chromium, bad, encoder_file)
  assert found["said"].startswith("bad.txt cannot be used (")
