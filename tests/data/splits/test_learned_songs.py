"""Tests of pcl_jax.data.splits.learned_songs."""

import dataclasses

import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data.splits import learned_songs
from tests.support.tiny import tiny_data


@pytest.fixture
def data(tmp_path):
  """A data set of sixty songs."""
  folder = tmp_path / "data"
  folder.mkdir()
  made = tiny_data.tiny_catalogue()
  made.save(folder)
  tiny_data.tiny_store(folder / "songs.lmdb", made, (20, 30))
  return dataset.DataSet(folder)


def _split(data, split) -> dataset.DataSet:
  """Returns the data set as it is after it was split again."""
  other = dataset.DataSet(data.directory)
  other.catalogue = dataclasses.replace(data.catalogue, split=split)
  return other


def test_what_a_run_learned_from_is_no_test_song_of_a_later_split(
  data, tmp_path
):
  learned_songs.record(tmp_path, data)
  before = data.catalogue.split
  learned = learned_songs.read(tmp_path)
  np.testing.assert_array_equal(learned.split_of(data), before)
  later = _split(data, 2 - before)  # Training and test songs change places.
  expected = np.where(before == catalogues.TEST, catalogues.TRAIN, before)
  np.testing.assert_array_equal(learned.split_of(later), expected)
  unused = np.full_like(before, catalogues.NO_SPLIT)
  np.testing.assert_array_equal(learned.split_of(_split(data, unused)), unused)


def test_a_run_that_goes_on_after_another_split_has_learned_from_both(
  data, tmp_path
):
  learned_songs.record(tmp_path, data)
  size = (tmp_path / learned_songs.FILE_NAME).stat().st_size
  learned_songs.record(tmp_path, data)  # As every start of a run does.
  assert (tmp_path / learned_songs.FILE_NAME).stat().st_size == size
  before = data.catalogue.split
  later = _split(data, 2 - before)
  learned_songs.record(tmp_path, later)
  learned = learned_songs.read(tmp_path)
  assert learned.directories == (str(data.directory),)
  everything = _split(data, np.full_like(before, catalogues.TEST))
  expected = np.where(before == catalogues.VALIDATION, before, catalogues.TRAIN)
  np.testing.assert_array_equal(learned.split_of(everything), expected)


def test_what_the_weights_learned_from_joins_what_the_run_learns_from(
  data, tmp_path
):
  run, source = tmp_path / "run", tmp_path / "source"
  for folder in (run, source):
    folder.mkdir()
  before = data.catalogue.split
  other = _split(data, 2 - before)
  other.directory = tmp_path / "elsewhere"
  learned_songs.record(source, other)
  earlier = learned_songs.read(source)
  learned_songs.record(run, data, earlier)
  learned = learned_songs.read(run)
  assert learned.directories == (str(other.directory), str(data.directory))
  everything = _split(data, np.full_like(before, catalogues.TEST))
  expected = np.where(before == catalogues.VALIDATION, before, catalogues.TRAIN)
  np.testing.assert_array_equal(learned.split_of(everything), expected)
  size = (run / learned_songs.FILE_NAME).stat().st_size
  learned_songs.record(run, data, earlier)
  assert (run / learned_songs.FILE_NAME).stat().st_size == size


def test_equal_ids_mean_equal_songs_only_where_the_songs_agree(data, tmp_path):
  learned_songs.record(tmp_path, data)
  learned = learned_songs.read(tmp_path)
  everything = _split(data, np.full_like(data.catalogue.split, catalogues.TEST))
  moved = learned.split_of(everything)
  everything.directory = tmp_path / "elsewhere"
  np.testing.assert_array_equal(learned.split_of(everything), moved)
  # Another library, in which one song is the same.
  everything.store.checksums = everything.store.checksums + 1
  song = data.catalogue.rows_of(catalogues.TRAIN)[3]
  everything.store.checksums[song] -= 1
  assert np.flatnonzero(learned.split_of(everything) != 2).tolist() == [song]
  # In its own folder an id is the same song, though it was decoded anew.
  everything.directory = data.directory
  np.testing.assert_array_equal(learned.split_of(everything), moved)


def test_a_damaged_file_is_refused_with_a_remedy(data, tmp_path):
  assert learned_songs.read(tmp_path) is None
  path = tmp_path / learned_songs.FILE_NAME
  for content in (b"", b"no zip", b"PK\3\4" + bytes(100)):
    path.write_bytes(content)
    with pytest.raises(errors.InputError, match=r"learned_songs\.npz cannot"):
      learned_songs.read(tmp_path)
  np.savez(path, songs=np.zeros(3), directories=np.array(["a"]))
  with pytest.raises(errors.InputError, match="launch.py"):
    learned_songs.read(tmp_path)
