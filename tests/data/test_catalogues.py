"""Tests of pcl_jax.data.catalogues."""

import dataclasses

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import ragged

LISTS = st.lists(st.lists(st.integers(0, 8), max_size=6), max_size=8)


def _as_lists(ragged: ragged.Ragged) -> list[list[int]]:
  return [ragged[i].tolist() for i in range(len(ragged))]


def _catalogue(**fields) -> catalogues.Catalogue:
  lists = ragged.Ragged.from_lists
  return catalogues.Catalogue(
    **{
      "song_ids": np.array([3, 7, 2**32 - 1], np.uint32),
      "split": np.array([0, 1, 2], np.int8),
      "artists": lists([[0], [1, 0], []]),
      "genres": lists([[2, 1], [], [2]]),
      "albums": np.array([5, -1, 5], np.int32),
      "playlists": lists([[2, 0], [], [1]]),
      "playlist_files": np.array([0, 0, 2], np.int8),
      "genre_codes": np.array(["GN0100", "GN0101"]),
      "validation_pairs": {"Playlist": np.array([[0, 1]], np.int32)},
    }
    | fields
  )


@settings(max_examples=40, deadline=None)
@given(LISTS)
def test_lists_come_back_from_their_ragged_form(lists):
  laid = ragged.Ragged.from_lists(lists)
  assert _as_lists(laid) == lists
  assert laid.lengths.tolist() == [len(one) for one in lists]
  assert laid.list_index().tolist() == [
    i for i, one in enumerate(lists) for _ in one
  ]


@settings(max_examples=40, deadline=None)
@given(LISTS)
def test_transposed_holds_the_lists_in_which_each_value_stands(lists):
  actual = ragged.Ragged.from_lists(lists).transposed(9)
  assert _as_lists(actual) == [
    [i for i, one in enumerate(lists) for value in one if value == wanted]
    for wanted in range(9)
  ]


@settings(max_examples=40, deadline=None)
@given(LISTS)
def test_transposed_twice_is_the_same_lists_in_order(lists):
  twice = ragged.Ragged.from_lists(lists).transposed(9).transposed(len(lists))
  assert _as_lists(twice) == [sorted(one) for one in lists]


@settings(max_examples=40, deadline=None)
@given(LISTS, st.integers(1, 7))
def test_tags_are_the_first_codes_padded_with_0(lists, max_num_tags):
  made = _catalogue(
    song_ids=np.arange(len(lists), dtype=np.uint32),
    split=np.zeros(len(lists), np.int8),
    albums=np.zeros(len(lists), np.int32),
    genres=ragged.Ragged.from_lists(lists),
  )
  expected = [(one + [0] * max_num_tags)[:max_num_tags] for one in lists]
  assert made.tags(max_num_tags).tolist() == expected


def test_pair_lists_are_playlists_and_songs_of_artists_genres_and_albums():
  made = _catalogue()
  assert _as_lists(made.pair_lists("Playlist")) == [[2, 0], [], [1]]
  assert _as_lists(made.pair_lists("Artist")) == [[0, 1], [1]]
  assert _as_lists(made.pair_lists("Genre")) == [[], [0], [0, 2]]
  made = _catalogue(albums=np.array([2, -1, 2], np.int32))
  assert _as_lists(made.pair_lists("Album")) == [[0, 2]]
  with pytest.raises(errors.InputError, match="'Label'; it is one of Playlist"):
    made.pair_lists("Label")


def test_albums_of_large_ids_are_as_many_lists_as_there_are_albums():
  """Melon's ids are those of a service, up to millions."""
  made = _catalogue(albums=np.array([2**31 - 1, -1, 7], np.int32))
  assert _as_lists(made.pair_lists("Album")) == [[2], [0]]


def test_pair_lists_of_a_catalogue_without_artists_are_none():
  empty = ragged.Ragged.from_lists([[], [], []])
  assert len(_catalogue(artists=empty).pair_lists("Artist")) == 0


def test_rows_of_a_split_are_its_songs():
  split = np.array([0, 2, 0, 1, 2], np.int8)
  made = _catalogue(
    song_ids=np.arange(5, dtype=np.uint32),
    split=split,
    albums=np.zeros(5, np.int32),
  )
  assert made.rows_of(catalogues.TRAIN).tolist() == [0, 2]
  assert made.rows_of(catalogues.VALIDATION).tolist() == [3]
  assert made.rows_of(catalogues.TEST).tolist() == [1, 4]


def test_what_is_loaded_is_what_was_saved(tmp_path):
  made = _catalogue()
  made.save(tmp_path)
  loaded = catalogues.load(tmp_path)
  for field in dataclasses.fields(catalogues.Catalogue):
    one, other = getattr(made, field.name), getattr(loaded, field.name)
    if isinstance(one, ragged.Ragged):
      assert _as_lists(one) == _as_lists(other)
    elif isinstance(one, dict):
      assert one.keys() == other.keys()
      for key in one:
        np.testing.assert_array_equal(one[key], other[key])
    else:
      np.testing.assert_array_equal(one, other)
      assert one.dtype == other.dtype
  assert [path.name for path in tmp_path.iterdir()] == [catalogues.FILE_NAME]


def test_a_catalogue_without_genres_or_playlists_can_be_saved(tmp_path):
  empty = ragged.Ragged.from_lists([[], [], []])
  made = _catalogue(
    genres=empty,
    genre_codes=np.array([], np.str_),
    playlists=ragged.Ragged.from_lists([]),
    playlist_files=np.array([], np.int8),
    validation_pairs={},
  )
  made.save(tmp_path)
  loaded = catalogues.load(tmp_path)
  assert len(loaded.genre_codes) == len(loaded.playlists) == 0


def test_an_absent_catalogue_names_the_command_that_makes_it(tmp_path):
  with pytest.raises(errors.InputError, match="preprocessing.data_split"):
    catalogues.load(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_truncated_catalogue_is_refused(tmp_path, share):
  path = _catalogue().save(tmp_path)
  path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
  with pytest.raises(errors.InputError, match="cannot be read"):
    catalogues.load(tmp_path)


def test_a_catalogue_without_one_of_its_arrays_is_refused(tmp_path):
  arrays = _catalogue().as_arrays()
  del arrays["split"], arrays["genres/offsets"]
  np.savez(tmp_path / catalogues.FILE_NAME, **arrays)
  with pytest.raises(errors.InputError, match="lacks split, genres/offsets:"):
    catalogues.load(tmp_path)


def test_another_format_version_is_refused_with_both_versions(
  tmp_path, monkeypatch
):
  with monkeypatch.context() as patch:
    patch.setattr(catalogues, "FORMAT_VERSION", 9)
    _catalogue().save(tmp_path)
  with pytest.raises(errors.InputError, match="version 9, .* reads 1"):
    catalogues.load(tmp_path)
