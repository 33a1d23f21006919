"""Tests of pcl_jax.data.pairs."""

import collections

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
from scipy import stats

from pcl_jax.data import catalogues
from pcl_jax.data import pairs
from pcl_jax.data import plans
from pcl_jax.data import ragged
from tests.support.tiny import tiny_data

SONGS = 14
ALL = np.ones(SONGS, bool)

_lists = st.lists(
  st.lists(st.integers(0, SONGS - 1), unique=True, max_size=9), max_size=7
)
_available = st.lists(st.booleans(), min_size=SONGS, max_size=SONGS)
_seeds = st.integers(0, 2**32 - 1)


def _draw(lists, available, *, once: bool, seed: int) -> np.ndarray:
  return pairs.draw_pairs(
    ragged.Ragged.from_lists(lists),
    np.array(available),
    once=once,
    rng=np.random.default_rng(seed),
  )


@settings(max_examples=40, deadline=None)
@given(_lists, _available, st.booleans(), _seeds)
def test_a_pair_is_two_available_songs_of_one_list(
  lists, available, once, seed
):
  drawn = _draw(lists, available, once=once, seed=seed)
  assert drawn.dtype == np.int32
  assert drawn.shape == (len(drawn), 2)
  sets = [set(one) for one in lists]
  for one, other in drawn.tolist():
    assert one != other
    assert available[one] and available[other]
    assert any({one, other} <= songs for songs in sets)


@settings(max_examples=40, deadline=None)
@given(_lists, _available, _seeds)
def test_once_no_song_comes_twice_and_no_list_keeps_two_unused_songs(
  lists, available, seed
):
  """No further pair could be made: lists are walked until one song is left."""
  drawn = _draw(lists, available, once=True, seed=seed).ravel().tolist()
  assert len(set(drawn)) == len(drawn)
  unused = {song for song in range(SONGS) if available[song]} - set(drawn)
  for songs in lists:
    assert len(unused & set(songs)) <= 1


@settings(max_examples=40, deadline=None)
@given(_lists, _available, _seeds)
def test_else_every_list_gives_all_its_available_songs_but_an_odd_one(
  lists, available, seed
):
  drawn = _draw(lists, available, once=False, seed=seed)
  counts = [sum(available[song] for song in songs) for songs in lists]
  assert len(drawn) == sum(count // 2 for count in counts)
  uses = collections.Counter(drawn.ravel().tolist())
  lists_of = collections.Counter(song for songs in lists for song in songs)
  assert all(uses[song] <= lists_of[song] for song in uses)


def test_an_artists_song_is_drawn_again_for_its_other_artist_only():
  lists = [[0, 1], [0, 2], [0, 3]]
  again = _draw(lists, ALL, once=False, seed=0)
  assert sorted(map(sorted, again.tolist())) == [[0, 1], [0, 2], [0, 3]]
  assert len(_draw(lists, ALL, once=True, seed=0)) == 1
  assert pairs.ONCE_AN_EPOCH == {
    "Playlist": True,
    "Artist": False,
    "Genre": True,
    "Album": True,
  }


def test_a_song_left_over_in_one_list_is_used_in_a_later_one():
  lists = [[0, 1, 2], [2, 1, 0, 3]]
  for seed in range(20):  # Either 2 + 2 or 4 songs, so all of them.
    drawn = _draw(lists, ALL, once=True, seed=seed)
    assert sorted(drawn.ravel().tolist()) == [0, 1, 2, 3]


def test_lists_take_turns_in_being_first():
  firsts = collections.Counter()
  for seed in range(300):
    drawn = _draw([[0, 1], [0, 2], [0, 3]], ALL, once=True, seed=seed)
    firsts[max(drawn[0])] += 1
  assert stats.chisquare([firsts[1], firsts[2], firsts[3]]).pvalue > 1e-3


@pytest.mark.parametrize("once", [True, False])
def test_songs_of_a_list_meet_each_other_equally_often(once):
  met = np.zeros((5, 5), int)
  for seed in range(300):
    for one, other in _draw([[*range(5)]], ALL, once=once, seed=seed):
      met[one, other] += 1
  # Either song may stand first, so the two triangles count alike.
  seen = met[~np.eye(5, dtype=bool)]
  assert seen.sum() == 600
  assert stats.chisquare(seen).pvalue > 1e-3


def test_pairs_of_one_list_are_spread_over_the_epoch():
  lists = [list(range(4)), list(range(4, 14))]
  places = [
    np.flatnonzero(_draw(lists, ALL, once=True, seed=s).max(axis=1) < 4)
    for s in range(200)
  ]
  counts = np.bincount(np.concatenate(places), minlength=7)
  assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(
  "lists", [[], [[]], [[3]], [[0, 1], []]], ids=["none", "empty", "one", "off"]
)
def test_lists_without_two_available_songs_give_no_pairs(lists):
  available = np.arange(SONGS) > 1
  for once in (True, False):
    assert _draw(lists, available, once=once, seed=0).shape == (0, 2)


@pytest.mark.parametrize("method", catalogues.PAIR_METHODS)
def test_a_draw_is_a_function_of_the_generator_and_changes_no_argument(method):
  catalogue = tiny_data.tiny_catalogue()
  lists = catalogue.pair_lists(method)
  available = catalogue.split == catalogues.TRAIN
  before = available.copy(), lists.values.copy()

  def draw(epoch):
    return pairs.draw_pairs(
      lists,
      available,
      once=pairs.ONCE_AN_EPOCH[method],
      rng=plans.generator(3, epoch, 0),
    )

  first, again, other = draw(0), draw(0), draw(1)
  np.testing.assert_array_equal(first, again)
  assert len(first) > 10
  assert set(map(frozenset, first.tolist())) != set(
    map(frozenset, other.tolist())
  )
  np.testing.assert_array_equal(available, before[0])
  np.testing.assert_array_equal(lists.values, before[1])
