"""Tests of bundles from a model hub, which is one on the loopback here."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import pcl_jax
from pcl_jax.embedding import song_queries
from pcl_jax.embedding.bundles import bundle_files
from pcl_jax.embedding.bundles import hub_downloads
from tests.support import quick_backbone
from tests.support import quick_run
from tests.support.servers import fake_hub
from tests.support.tiny import tiny_library

huggingface_hub = pytest.importorskip("huggingface_hub")

_DOWNLOAD = """
import sys
from pcl_jax.common import errors
from pcl_jax.embedding.bundles import hub_downloads
for address in sys.argv[2:]:
  try:
    print(*hub_downloads.download(address, tuple(sys.argv[1].split(","))))
  except errors.InputError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> pathlib.Path:
  """A bundle with a file that is none of its own."""
  with pytest.MonkeyPatch.context() as patch:
    quick_backbone.register(patch)
    root = tmp_path_factory.mktemp("hub")
    pcl_jax.load(quick_run.save(root / "run")).save(root / "my-encoder")
    (root / "my-encoder" / "large.bin").write_text("not asked for")
    yield root / "my-encoder"


def _download(folder, hub, *addresses, **variables) -> list[str]:
  clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
  kept = {"HF_HOME": str(folder), "HF_ENDPOINT": hub} | variables
  done = subprocess.run(
    [sys.executable, "-c", _DOWNLOAD, ",".join(bundle_files.FILES), *addresses],
    env=clean | kept,
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.splitlines()


def test_what_was_uploaded_is_downloaded_byte_for_byte(bundle, tmp_path):
  commit = fake_hub.COMMIT
  with fake_hub.serve(bundle) as hub:
    addresses = [
      "hf://user/name",
      "hf://user/other",
      f"hf://user/name@{commit}",
    ]
    first, absent, second = _download(tmp_path, hub, *addresses)
  folder, place = first.split()
  assert second == first
  assert place == f"hf://user/name@{commit}"
  files = {p.name: p.read_bytes() for p in pathlib.Path(folder).iterdir()}
  assert files == {n: (bundle / n).read_bytes() for n in bundle_files.FILES}
  assert absent.startswith("hf://user/other cannot be downloaded (")
  # Without the hub it is found where it is kept.
  (again,) = _download(tmp_path, hub, addresses[0], HF_HUB_OFFLINE="1")
  assert again == first
  (none,) = _download(tmp_path / "new", hub, addresses[0], HF_HUB_OFFLINE="1")
  assert none.startswith("hf://user/name cannot be downloaded (")


def test_an_address_takes_the_place_of_a_folder(bundle, tmp_path, monkeypatch):
  kept = tmp_path / fake_hub.COMMIT
  kept.symlink_to(bundle)
  asked = []

  def snapshot_download(name, **how):
    asked.append((name, how["revision"]))
    return str(kept)

  monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
  encoder = pcl_jax.load("hf://user/name@v1")
  place = f"hf://user/name@{fake_hub.COMMIT}"
  assert encoder.about["workdir"] == place
  song = tiny_library.write_song(tmp_path / "song.wav", seconds=9.0)
  encoder.embed_files(song, tmp_path / "music.parquet")
  table = pcl_jax.read_table(tmp_path / "music.parquet")
  # Another audio file is embedded with the encoder that the table names.
  copy = tmp_path / "copy.wav"
  copy.write_bytes(song.read_bytes())
  ((query,), _) = song_queries.look_up(table, [str(copy)], 1)
  np.testing.assert_array_equal(query.vector, table.vectors[0])
  assert asked == [("user/name", "v1"), ("user/name", fake_hub.COMMIT)]


def test_a_library_that_is_missing_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  with pytest.raises(pcl_jax.InputError, match=r'pip install "pcl_jax\[hub\]"'):
    pcl_jax.load("hf://user/name")


@pytest.mark.parametrize(
  "address", ["hf://", "hf://name", "hf://a/b/c", "hf://a/b@"]
)
def test_what_is_no_address_is_refused(address):
  with pytest.raises(pcl_jax.InputError, match="is no address of a hub"):
    pcl_jax.load(address)


def test_commands_that_need_a_folder_say_so():
  with pytest.raises(pcl_jax.InputError, match="needs a folder: download it"):
    hub_downloads.check_folder(pathlib.Path("hf://user/name"))
