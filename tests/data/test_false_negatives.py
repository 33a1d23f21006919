"""Tests of pcl_jax.data.false_negatives."""

import dataclasses
import itertools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import false_negatives
from pcl_jax.data import ragged
from pcl_jax.losses import loss_terms
from tests.support.tiny import tiny_data

SONGS = 12


def _of(members):
  """Returns the lists of each song, from the songs of each list."""
  by_list = ragged.Ragged.from_lists([sorted(one) for one in members])
  return false_negatives.SharedLists(by_list.transposed(SONGS))


def _together(members, a, b):
  return any(a in one and b in one for one in members)


@settings(max_examples=40, deadline=None)
@given(
  st.lists(st.sets(st.integers(0, SONGS - 1)), min_size=1, max_size=8),
  st.lists(st.integers(0, SONGS - 1), min_size=10, max_size=10),
)
def test_rows_share_on_the_device_what_their_songs_share_in_the_lists(
  members, songs
):
  songs = np.array(songs)
  entries = _of(members).entries(songs)
  assert entries.shape[1] & (entries.shape[1] - 1) == 0
  shared = loss_terms.shared_lists(jnp.asarray(entries), len(songs))
  flags = np.asarray(shared.tile(shared)) > 0
  for (i, a), (j, b) in itertools.permutations(enumerate(songs.tolist()), 2):
    assert flags[i, j] == _together(members, a, b)


@settings(max_examples=40, deadline=None)
@given(
  st.lists(st.sets(st.integers(0, SONGS - 1)), min_size=1, max_size=8),
  st.lists(st.integers(0, SONGS - 1), min_size=2, max_size=10),
)
def test_the_share_is_that_of_the_pairs_of_different_songs(members, songs):
  different = sorted(set(songs))
  pairs = list(itertools.permutations(different, 2))
  expected = np.mean([_together(members, a, b) for a, b in pairs] or [0.0])
  assert _of(members).share(np.array(songs)) == pytest.approx(expected)


def test_kinds_are_taken_from_the_catalogue_and_add_up():
  made = tiny_data.tiny_catalogue()
  songs = np.arange(len(made))
  shares = {}
  for kinds in (("playlist",), ("artist",), ("playlist", "artist")):
    shares[kinds] = false_negatives.SharedLists.of(made, kinds).share(songs)
  alone = [shares["playlist",], shares["artist",]]
  assert 0 < max(alone) <= shares["playlist", "artist"] <= sum(alone)
  assert false_negatives.SharedLists.of(made, ()) is None


def test_songs_of_an_album_share_it():
  made = tiny_data.tiny_catalogue()
  albums = np.full(len(made), -1, np.int32)
  albums[[3, 5]] = 7
  lists = false_negatives.SharedLists.of(
    dataclasses.replace(made, albums=albums), ("album",)
  )
  assert lists.share(np.array([3, 5])) == 1
  assert lists.share(np.array([3, 4, 5])) == pytest.approx(1 / 3)


@pytest.mark.parametrize("method", catalogues.PAIR_METHODS)
def test_the_lists_of_a_pair_method_are_those_its_pairs_are_drawn_from(method):
  made = tiny_data.tiny_catalogue()
  lists = made.pair_lists(method)
  found = false_negatives.SharedLists.of_pairs(made, method).lists
  assert len(found) == len(made)
  pairs = sorted(zip(found.values, found.list_index(), strict=True))
  assert pairs == sorted(zip(lists.list_index(), lists.values, strict=True))


@pytest.mark.parametrize("kind", ["mood", "album"])
def test_a_kind_that_is_not_there_is_refused(kind):
  made = tiny_data.tiny_catalogue()
  made = dataclasses.replace(made, albums=np.full(len(made), -1, np.int32))
  with pytest.raises(errors.InputError, match=kind):
    false_negatives.SharedLists.of(made, (kind,))
