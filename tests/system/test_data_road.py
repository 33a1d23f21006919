"""The whole road: from tars as they are delivered to a first training step."""

import tarfile

import numpy as np
import pytest

from configs import sample
from pcl_jax.data import catalogues
from pcl_jax.data import song_store
from pcl_jax.data import verify
from preprocessing import data_split
from preprocessing import genre_vectors
from preprocessing import melon_lmdb
from preprocessing import playlist_vectors
from tests.support import quick_backbone
from tests.support.tiny import tiny_run


def _pack(melon_dir, packed) -> None:
  """Packs arena_mel by folder into tars, as Melon is delivered."""
  packed.mkdir()
  (packed / "kakao_meta").symlink_to(melon_dir / "kakao_meta")
  folders = sorted((melon_dir / "arena_mel").iterdir())
  for number, folder in enumerate(folders):
    with tarfile.open(packed / f"arena_mel_{number % 3}.tar", "a") as tar:
      tar.add(folder, arcname=f"arena_mel/{folder.name}")


@pytest.mark.long  # The sample is made by the same commands.
def test_tars_become_a_data_set_that_trains(
  smoke_sample, tmp_path, capsys, quickly
):
  packed, data = tmp_path / "packed", tmp_path / "data"
  _pack(smoke_sample / "melon", packed)
  melon, out = f"--melon_dir={packed}", f"--data={data}"
  melon_lmdb.main([melon, f"--out={data}", "--max_skipped_share=0.3"])
  shares = ["--test_share=0.2", "--validation_share=0.1"]
  data_split.main([melon, out, *shares])
  playlist_vectors.main([out, "--dims=16", "--epochs=2"])
  genre_vectors.main([out])
  assert "next: python" in capsys.readouterr().out
  assert verify.verify(data) == []
  unpacked = song_store.SongStore(smoke_sample / "songs.lmdb")
  store = song_store.SongStore(data / "songs.lmdb")
  np.testing.assert_array_equal(store.song_ids, unpacked.song_ids)
  for song in range(len(store)):
    np.testing.assert_array_equal(
      store.read_song(song), unpacked.read_song(song)
    )
  np.testing.assert_array_equal(
    catalogues.load(data).split, catalogues.load(smoke_sample).split
  )
  config = sample.get_config("smoke")
  config.data.dir = str(data)
  config.model_params.audio.backbone_type = quick_backbone.NAME
  config.epochs = 1
  config.data.batch_size = 24
  tiny_run.train_on_one(config, tmp_path / "run")
  rows = tiny_run.rows_of(tmp_path / "run")
  assert np.isfinite([row["total"] for row in rows]).all()
  assert rows[-1]["kind"] == "validation"
