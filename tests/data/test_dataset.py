"""Tests of pcl_jax.data.dataset."""

import dataclasses
import functools
import shutil

import numpy as np
import pytest

from pcl_jax.audio import song_patches
from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import ragged
from pcl_jax.data import read_order
from pcl_jax.data import song_store
from pcl_jax.data import strategies
from tests.support.tiny import tiny_data

SS = strategies.parse([["audio", "audio_self"]], "")
CM = strategies.parse([["audio", "cf"], ["audio", "genre_w2v"]], "")
AIM = {m: strategies.parse([], m) for m in catalogues.PAIR_METHODS}
HYBRID = strategies.parse([["audio", "cf"]], "Genre")
EVERY = [SS, CM, *AIM.values(), HYBRID]
every_strategy = pytest.mark.parametrize("strategy", EVERY, ids=str)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """A prepared data set's folder, which no test changes."""
  directory = tmp_path_factory.mktemp("dataset")
  catalogue = tiny_data.tiny_catalogue()
  tiny_data.tiny_store(directory / song_store.FILE_NAME, catalogue, (200, 900))
  catalogue.save(directory)
  rng = np.random.default_rng(0)
  np.save(
    directory / dataset.PLAYLIST_VECTORS, rng.random((60, 301), np.float32)
  )
  codes = len(catalogue.genre_codes)
  np.save(
    directory / dataset.GENRE_VECTORS, rng.random((codes + 1, 128), np.float32)
  )
  return directory


@pytest.fixture(scope="module")
def data(prepared):
  return dataset.DataSet(prepared)


@pytest.fixture
def copied(prepared, tmp_path):
  """A copy that a test may change."""
  return shutil.copytree(prepared, tmp_path / "copied")


def _save(directory, **changes) -> dataset.DataSet:
  """Changes fields of a data set's catalogue, opens it."""
  catalogue = catalogues.load(directory)
  dataclasses.replace(catalogue, **changes).save(directory)
  return dataset.DataSet(directory)


def _training_plan(data, strategy, batch_size=4, seed=0, epoch=0):
  return data.training_plan(
    strategy, batch_size, double_window=625, seed=seed, epoch=epoch
  )


def _validation_plan(data, strategy, batch_size=4, multiple=1):
  return data.validation_plan(strategy, batch_size, multiple, double_window=625)


def _message(call, *args, **kwargs) -> str:
  with pytest.raises(errors.InputError) as error:
    call(*args, **kwargs)
  return str(error.value)


def test_store_and_catalogue_are_opened_together(data):
  np.testing.assert_array_equal(data.store.song_ids, data.catalogue.song_ids)


@every_strategy
def test_training_reads_training_songs_and_validation_the_others(
  data, strategy
):
  train = _training_plan(data, strategy, batch_size=3)
  validation = _validation_plan(data, strategy, batch_size=3)
  rows = 3 if strategy is CM else 6
  assert train.songs.shape[1] == validation.songs.shape[1] == rows
  assert (data.catalogue.split[train.songs] == catalogues.TRAIN).all()
  assert (data.catalogue.split[validation.songs] == catalogues.VALIDATION).all()
  for plan in (train, validation):
    last = np.maximum(data.store.frames[plan.songs] - song_patches.FRAMES, 0)
    assert (plan.starts <= last).all()


@every_strategy
def test_a_training_plan_is_a_function_of_seed_and_epoch(data, strategy):
  def digest(seed, epoch):
    plan = _training_plan(data, strategy, seed=seed, epoch=epoch)
    return plan.songs.tobytes() + plan.starts.tobytes()

  assert digest(1, 2) == digest(1, 2)
  assert len({digest(0, 0), digest(0, 1), digest(1, 0), digest(1, 1)}) == 4


@pytest.mark.parametrize("method", catalogues.PAIR_METHODS)
def test_validation_pairs_are_those_of_the_catalogue_in_order(data, method):
  plan = _validation_plan(data, AIM[method], batch_size=2)
  fixed = data.catalogue.validation_pairs[method]
  kept = len(fixed) // 2 * 2
  np.testing.assert_array_equal(plan.songs[:, :2].ravel(), fixed[:kept, 0])
  np.testing.assert_array_equal(plan.songs[:, 2:].ravel(), fixed[:kept, 1])


def test_validation_is_the_same_whenever_it_is_planned(data):
  first, second = _validation_plan(data, SS), _validation_plan(data, SS)
  np.testing.assert_array_equal(first.songs, second.songs)
  np.testing.assert_array_equal(first.starts, second.starts)


def test_validation_batches_shrink_to_what_there_is_and_to_the_devices(data):
  plan = _validation_plan(data, CM, batch_size=768, multiple=8)
  assert plan.songs.shape == (1, 8)  # Of 12 validation songs.
  message = _message(_validation_plan, data, CM, multiple=16)
  assert "12 validation songs" in message and "16" in message
  assert "--validation_share" in message


def test_a_validation_of_one_pair_whose_loss_is_always_0_is_refused(copied):
  data = _save(
    copied, validation_pairs={"Artist": np.array([[0, 1]], np.int32)}
  )
  message = _message(_validation_plan, data, AIM["Artist"])
  assert "1 validation pairs" in message and "fewer than the 2" in message


def test_a_data_set_without_validation_pairs_says_so(copied):
  data = _save(copied, validation_pairs={})
  message = _message(_validation_plan, data, AIM["Artist"])
  assert "0 validation pairs" in message and "A-IM Artist" in message


def test_album_pairs_without_albums_are_refused_with_the_remedy(copied):
  none = np.full(60, -1, np.int32)
  message = _message(_save(copied, albums=none).tables, AIM["Album"], 3)
  assert "A-IM Album needs albums" in message and "tag the audio" in message


def test_pairs_of_one_list_alone_are_refused_for_nothing_is_contrasted(copied):
  one = ragged.Ragged.from_lists([[0]] * 60)
  message = _message(_save(copied, artists=one).check_pairs, AIM["Artist"])
  assert "needs two artists or more" in message and "has 1" in message
  assert "such as SS" in message
  albums = np.arange(60, dtype=np.int32)  # Each of one song.
  message = _message(_save(copied, albums=albums).check_pairs, AIM["Album"])
  assert "needs two albums or more" in message and "has 0" in message
  data = dataset.DataSet(copied)
  for strategy in (SS, CM, AIM["Playlist"], HYBRID):
    data.check_pairs(strategy)


@pytest.mark.parametrize("strategy", [SS, CM, AIM["Playlist"]], ids=str)
def test_a_batch_larger_than_an_epoch_is_refused(data, strategy):
  message = _message(_training_plan, data, strategy, batch_size=500)
  assert "config.data.batch_size is 500" in message
  assert "36 training songs" in message and "smaller" in message


def test_tables_hold_what_the_strategy_needs_and_no_more(data):
  tables = {s.name: set(data.tables(s, 3)) for s in EVERY}
  assert tables == {
    "SS": set(),
    "CM A,G,P": {"cf", "genre_w2v"},
    "A-IM Playlist": {"songs"},
    "A-IM Artist": {"songs"},
    "A-IM Genre": {"genre_w2v", "songs"},
    "A-IM Album": {"songs"},
    "Hybrid Genre + A,P": {"cf", "genre_w2v", "songs"},
  }
  found = data.tables(HYBRID, 2)
  assert found["cf"].shape == (60, 301)
  np.testing.assert_array_equal(found["genre_w2v"], data.catalogue.tags(2))
  assert data.vectors("genre_w2v", CM.name).shape == (13, 128)


@pytest.mark.parametrize("blocks", [None, read_order.Blocks(4, 2)])
def test_an_epoch_after_the_first_may_fill_no_batch(prepared, blocks):
  """Pairs are more or fewer from one epoch to the next."""
  data = dataset.DataSet(prepared, blocks=blocks)
  plan = functools.partial(_training_plan, data, AIM["Playlist"], 1000)
  assert len(plan(epoch=1)) == 0
  assert "batch_size is 1000 pairs" in _message(plan, epoch=0)


def test_the_numbers_of_songs_tell_a_song_of_two_pairs_of_a_batch(data):
  numbers = data.tables(AIM["Artist"], 3)["songs"]
  assert len(set(numbers.tolist())) == len(data.catalogue)
  plan = _training_plan(data, AIM["Artist"], batch_size=8)
  assert any(len(set(numbers[step].tolist())) < 16 for step in plan.songs)


def test_with_several_patches_a_song_an_epoch_is_longer_and_songs_are_told(
  data,
):
  by_length = data.training_plan(
    SS, 4, double_window=625, patches_per_song=0, seed=0, epoch=0
  )
  train = data.catalogue.rows_of(catalogues.TRAIN)
  passes = np.maximum(np.rint(data.store.frames[train] / 256), 1)
  assert len(by_length) == int(passes.sum()) // 4 > len(train) // 4
  # A song of two items of a batch is no negative of itself.
  assert set(data.tables(SS, 3, patches_per_song=0)) == {"songs"}
  assert set(data.tables(SS, 3, patches_per_song=1)) == set()


def test_a_folder_that_is_absent_is_named(tmp_path):
  message = _message(dataset.DataSet, tmp_path / "nothing")
  assert str(tmp_path / "nothing") in message and "config.data.dir" in message


def test_a_folder_without_store_or_split_says_how_to_make_it(copied):
  (copied / catalogues.FILE_NAME).unlink()
  assert "preprocessing.data_split" in _message(dataset.DataSet, copied)
  shutil.rmtree(copied / song_store.FILE_NAME)
  assert "preprocessing.melon_lmdb" in _message(dataset.DataSet, copied)


def test_a_catalogue_of_other_songs_is_refused(copied):
  tiny_data.tiny_catalogue(songs=50).save(copied)
  message = _message(dataset.DataSet, copied)
  assert "50" in message and "(60)" in message and "--force" in message


@pytest.mark.parametrize(
  ("name", "command"),
  [
    (dataset.PLAYLIST_VECTORS, "preprocessing.playlist_vectors"),
    (dataset.GENRE_VECTORS, "preprocessing.genre_vectors"),
  ],
)
def test_vectors_that_are_absent_broken_or_of_other_songs_are_refused(
  copied, name, command
):
  data = dataset.DataSet(copied)

  def read():
    return data.tables(CM, 3), data.vectors("genre_w2v", CM.name)

  np.save(copied / name, np.zeros((7, 3), np.float32))
  message = _message(read)
  assert name in message and "(7, 3)" in message and command in message
  for broken in (b"\x93NUMPY broken", b""):
    (copied / name).write_bytes(broken)
    message = _message(read)
    assert name in message and "cannot be read" in message
  (copied / name).unlink()
  message = _message(read)
  assert "does not exist" in message and command in message
  assert CM.name in message


@pytest.mark.parametrize(
  ("field", "strategy", "what"),
  [
    ("playlists", AIM["Playlist"], "playlists"),
    ("artists", AIM["Artist"], "artists"),
    ("genres", AIM["Genre"], "genres"),
    ("genres", CM, "genres"),
  ],
)
def test_a_strategy_is_refused_where_its_lists_are_empty(
  copied, field, strategy, what
):
  empty = ragged.Ragged.from_lists([[] for _ in range(60)])
  changes = {field: empty}
  if field == "playlists":
    changes["playlist_files"] = np.zeros(60, np.int8)
  data = _save(copied, **changes)
  message = _message(data.tables, strategy, 3)
  assert strategy.name in message and f"needs {what}" in message
  data.tables(SS, 3)  # Which needs none of them.


def test_the_fingerprint_tells_songs_and_split_apart(data, copied):
  assert dataset.DataSet(copied).fingerprint() == data.fingerprint()
  split = data.catalogue.split.copy()
  split[[0, 1]] = (split[[0, 1]] + 1) % 3
  assert _save(copied, split=split).fingerprint() != data.fingerprint()


def test_the_fingerprint_tells_playlists_and_used_vectors_apart(data, copied):
  cross_modal = strategies.parse((("audio", "cf"),), "")
  before = data.fingerprint(cross_modal)
  assert before != data.fingerprint()
  opened = dataset.DataSet(copied)
  assert opened.fingerprint(cross_modal) == before
  vectors = np.load(copied / dataset.PLAYLIST_VECTORS)
  vectors[-1, -1] += 1
  np.save(copied / dataset.PLAYLIST_VECTORS, vectors)
  assert dataset.DataSet(copied).fingerprint(cross_modal) != before
  assert dataset.DataSet(copied).fingerprint() == data.fingerprint()
  old = data.catalogue.playlists
  lists = [old[i].tolist() for i in range(len(old))]
  lists[0] = lists[0][::-1]
  other = _save(copied, playlists=ragged.Ragged.from_lists(lists))
  assert other.fingerprint() != data.fingerprint()
