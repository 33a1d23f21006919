"""What tests of benchmarks share."""

import dataclasses

import numpy as np
import pytest

from pcl_jax.common import storage
from pcl_jax.data import dataset
from pcl_jax.data import ragged
from pcl_jax.library import music_files
from preprocessing import data_folds
from tests.support.tiny import tiny_data


@pytest.fixture(scope="package")
def folds(tmp_path_factory) -> list[dataset.DataSet]:
  """Two folds of 80 songs, the last 16 of which are rendered scores."""
  folder = tmp_path_factory.mktemp("real")
  made = dataclasses.replace(
    tiny_data.tiny_catalogue(80),
    artists=ragged.Ragged.from_lists([[i // 8] for i in range(80)]),
    albums=(np.arange(80, dtype=np.int32) // 4),
  )
  data = folder / "data"
  tiny_data.tiny_store(data / "songs.lmdb", made)
  made.save(data)
  places = ["games/a.ogg"] * 64 + ["scores/bach/b.flac"] * 16
  ids = {
    f"{place}{number}": number
    for place, number in zip(places, made.song_ids.tolist(), strict=True)
  }
  storage.write_json(data / music_files.IDS, {"audio_dir": "x", "ids": ids})
  found = data_folds.make(
    data, folder / "folds", folds=2, split_by="artist_album"
  )
  return [dataset.DataSet(one) for one in found]
