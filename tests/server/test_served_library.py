"""Tests of pcl_jax.server.served_library."""

import gc
import os

import numpy as np
import pytest

from pcl_jax import serve
from pcl_jax.common import errors
from pcl_jax.embedding.tables import embedding_table
from tests.support.servers import served
from tests.support.tiny import tiny_table


@pytest.fixture
def path(tmp_path):
  """The file of a table of nine songs."""
  served.write(tmp_path, songs=9)
  return tmp_path / "music.parquet"


def _count(client) -> int:
  return client.get("/api/library").json()["songs"]


def test_a_table_that_is_replaced_is_read_again(path, tmp_path):
  with served.asked(served.serve(path)) as client:
    assert _count(client) == 9
    served.write(tmp_path, songs=12)
    assert _count(client) == 12
    assert client.get("/api/similar?like=11.mp3").status_code == 200
    assert client.get("/api/health").json()["said"] == ""


def test_garbage_collection_passes_over_songs_of_a_replaced_table_too(
  path, tmp_path
):
  try:
    library = serve.served_library(serve._arguments([f"--embeddings={path}"]))
    for songs in (9, 12):
      served.write(tmp_path, songs=songs)
      ids = library.now().ids
      assert len(ids) == songs
      assert not any(one is ids for one in gc.get_objects())
  finally:
    gc.unfreeze()


def _break(path):
  path.write_bytes(b"PAR1 but not really PAR1")


def _other_encoder(path):
  file = embedding_table.TableFile(path)
  rows = embedding_table.read_rows(path)
  about = file.about | {"weights_sha256": "1" * 64}
  like = embedding_table.schema(tiny_table.LENGTH, about, odd_names=True)
  embedding_table.write(path, like, [rows.cast(like)])


def _empty(path):
  tiny_table.write(path, songs=0)


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (_break, "Parquet"),
    (_other_encoder, "another encoder"),
    (_empty, "no songs"),
    (os.unlink, "is not a file"),
  ],
)
def test_a_table_that_cannot_be_served_leaves_the_one_before(
  path, tmp_path, change, words, capsys
):
  with served.asked(served.serve(path)) as client:
    before = client.get("/api/similar?like=8.mp3&exclude_same=album").json()
    change(path)
    for _ in range(2):
      after = client.get("/api/similar?like=8.mp3&exclude_same=album")
      assert after.json() == before
      said = client.get("/api/health").json()["said"]
      assert words in said and "songs of before" in said
    assert capsys.readouterr().err.count("warning") == 1
    path.unlink(missing_ok=True)
    client.get("/api/health")
    served.write(tmp_path, songs=7)
    assert _count(client) == 7
    assert client.get("/api/health").json()["said"] == ""


def test_a_library_does_not_need_the_tables_file_any_more(path):
  one = served.serve(path, path.parent / "music")
  path.unlink()
  library = one.now()
  with served.asked(one) as client:
    for address in (
      "/api/map",
      "/api/similar?like=8.mp3&per_artist=1&genre=jazz",
      "/api/path?from=4.mp3&to=8.mp3&k=4",
      "/api/similar?like=8.mp3&format=m3u8",
      "/api/audio?id=8.mp3",
    ):
      assert client.get(address).status_code == 200
  assert len(library.artists[0]) == 3


def test_an_empty_table_is_not_served(tmp_path):
  tiny_table.write(tmp_path / "none.parquet", songs=0)
  with pytest.raises(errors.InputError, match="no songs to serve"):
    served.serve(tmp_path / "none.parquet")


def test_artists_are_the_directions_of_their_songs(path):
  library = served.serve(path).now()
  names, unit = library.artists
  assert names == ["Ann", "Bob <i>", "Cid & Dee"]
  rows = library.table.rows.unit
  for number in range(3):
    mean = rows[number::4].sum(axis=0)
    np.testing.assert_allclose(
      unit[number], mean / np.linalg.norm(mean), atol=1e-6
    )
