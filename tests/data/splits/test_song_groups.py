"""Tests of pcl_jax.data.splits.song_groups."""

import dataclasses
import json

import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import ragged
from pcl_jax.data.splits import song_groups
from pcl_jax.data.splits import stratify
from tests.support.tiny import tiny_data

SHARES = {"test_share": 0.2, "validation_share": 0.1}


def _split(genres, groups, **changes):
  how = SHARES | {"seed": 0, "split_by": "artist"} | changes
  return stratify.split_songs(genres, 6, groups=groups, **how)


def _library(songs: int = 600, seed: int = 0):
  """Genres and groups of a library: a group has one main genre."""
  rng = np.random.default_rng(seed)
  groups = np.sort(rng.integers(0, songs // 8, songs))
  _, groups = np.unique(groups, return_inverse=True)
  main = rng.integers(1, 7, groups.max() + 1)
  genres = ragged.Ragged.from_lists([[int(main[g])] for g in groups])
  return genres, groups


def test_songs_are_one_group_where_artists_connect_them():
  lists = [[0], [0, 1], [1], [2], [], [], [3, 4], [4, 2]]
  catalogue = tiny_data.tiny_catalogue()
  rows = lists + [[10 + i] for i in range(60 - len(lists))]
  albums = np.full(60, -1, np.int32)
  albums[[0, 3]] = 7
  made = dataclasses.replace(
    catalogue, artists=ragged.Ragged.from_lists(rows), albums=albums
  )
  found = song_groups.of_songs(made, "artist")
  assert found[0] == found[1] == found[2]
  assert found[3] == found[6] == found[7] != found[0]
  assert len(np.unique(found)) == 60 - 2 - 2
  found = song_groups.of_songs(made, "album")
  assert found[0] == found[3]
  assert len(np.unique(found)) == 59
  # The album of songs 0 and 3 connects the artists' groups.
  found = song_groups.of_songs(made, "artist_album")
  assert len(set(found[[0, 1, 2, 3, 6, 7]].tolist())) == 1
  assert len(np.unique(found)) == 60 - 5
  np.testing.assert_array_equal(
    song_groups.of_songs(made, "song"), np.arange(60)
  )


def test_copies_are_one_group_whatever_they_share(tmp_path):
  catalogue = tiny_data.tiny_catalogue()
  ids = list(map(str, catalogue.song_ids.tolist()))
  path = tmp_path / "copies.json"
  groups = [[ids[3], ids[9], "gone", ids[30]], [ids[4], ids[5]]]
  path.write_text(json.dumps({"groups": groups}))
  pairs = song_groups.read_copies(path, catalogue.song_ids)
  assert pairs.tolist() == [[3, 9], [3, 30], [4, 5]]
  for split_by in song_groups.SPLIT_BY:
    before = song_groups.of_songs(catalogue, split_by)
    found = song_groups.of_songs(catalogue, split_by, pairs)
    assert found[3] == found[9] == found[30] and found[4] == found[5]
    for group in np.unique(before):
      assert len(np.unique(found[before == group])) == 1
  assert len(np.unique(song_groups.of_songs(catalogue, "song", pairs))) == 57
  path.write_text(json.dumps({"groups": [["no", "song"]]}))
  with pytest.raises(errors.InputError, match="names none of the 60 songs"):
    song_groups.read_copies(path, catalogue.song_ids)
  path.write_text("[]")
  with pytest.raises(errors.InputError, match="as groups of ids"):
    song_groups.read_copies(path, catalogue.song_ids)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_group_is_torn_and_shares_and_genres_are_near(seed):
  genres, groups = _library(seed=seed)
  split = _split(genres, groups, seed=seed)
  assert not len(song_groups.torn(groups, split))
  counts = np.bincount(split, minlength=3)
  assert np.abs(counts - [420, 60, 120]).max() <= 6
  for code in range(1, 7):
    has = genres.values == code
    share = (split[has] == catalogues.TEST).mean()
    assert 0.08 < share < 0.32
  again = _split(genres, groups, seed=seed)
  np.testing.assert_array_equal(split, again)
  assert (split != _split(genres, groups, seed=seed + 9)).any()


def test_new_songs_go_to_the_part_of_their_group():
  genres, groups = _library()
  known = _split(genres, groups)
  before = known.copy()
  rng = np.random.default_rng(1)
  new = rng.random(len(known)) < 0.3
  fresh = groups >= groups.max() - 3  # Whole groups that nothing is known of.
  known[new | fresh] = song_groups.NEW
  found = _split(genres, groups, known=known)
  kept = np.isin(groups, groups[known >= 0])
  np.testing.assert_array_equal(found[kept], before[kept])
  assert not len(song_groups.torn(groups, found))
  # A group that was torn before: its new song goes where most songs are.
  known = before.copy()
  rows = np.flatnonzero(groups == np.bincount(groups).argmax())
  known[rows[0]] = (before[rows[0]] + 1) % 3
  known[rows[-1]] = song_groups.NEW
  found = _split(genres, groups, known=known)
  assert found[rows[-1]] == before[rows[-1]]
  assert song_groups.torn(groups, found).tolist() == [groups[rows[0]]]


@pytest.mark.parametrize("split_by", ["song", "artist", "artist_album"])
def test_each_song_is_tested_in_one_fold_and_no_group_is_torn(split_by):
  genres, groups = _library(120)
  lists = ragged.Ragged.from_lists([[int(g)] for g in groups])
  made = dataclasses.replace(
    tiny_data.tiny_catalogue(120),
    artists=lists,
    genres=genres,
    albums=groups.astype(np.int32),
  )
  made.split[5] = catalogues.NO_SPLIT
  splits = stratify.folds(
    made, 4, split_by=split_by, validation_share=0.15, seed=0
  )
  tested = np.stack(splits) == catalogues.TEST
  assert (tested.sum(axis=0) == (made.split >= 0)).all()
  for split in splits:
    assert split[5] == catalogues.NO_SPLIT
    counts = np.bincount(split[split >= 0], minlength=3)
    assert np.abs(counts - [71, 18, 30]).max() <= 4
    if split_by != "song":
      assert not len(song_groups.torn(groups, split))
  for count, share in ((1, 0.1), (4, 0.75), (4, 0.0)):
    with pytest.raises(errors.InputError, match="at least 2 folds"):
      stratify.folds(
        made, count, split_by=split_by, validation_share=share, seed=0
      )
  for count, seed in ((128, 0), (1000, 0), (4, -1), (4, 2**32)):
    with pytest.raises(errors.InputError, match="at most 127 folds"):
      stratify.folds(
        made, count, split_by=split_by, validation_share=0.1, seed=seed
      )
  with pytest.raises(errors.InputError, match="fold 0"):
    stratify.folds(made, 100, split_by="artist", validation_share=0.1, seed=0)


@pytest.mark.parametrize("seed", range(2))
def test_pairs_of_each_kind_can_be_validated_in_each_fold(seed):
  # Eight artists of four songs, and 88 songs of nobody: every second draw of 18
  # songs has no artist.
  lists = [[i // 4] if i < 32 else [] for i in range(120)]
  made = dataclasses.replace(
    tiny_data.tiny_catalogue(120), artists=ragged.Ragged.from_lists(lists)
  )
  splits = stratify.folds(
    made, 3, split_by="artist", validation_share=0.15, seed=seed
  )
  for split in splits:
    songs = np.flatnonzero(split == catalogues.VALIDATION)
    assert (songs < 32).sum() >= 4


def test_groups_too_large_for_the_shares_are_refused_with_their_size():
  genres, _ = _library(100)
  nine_tenths = np.maximum(np.arange(100) - 89, 0)
  with pytest.raises(errors.InputError, match="largest of 90 songs.*in place"):
    _split(genres, nine_tenths)
  alone = np.zeros(100, int)
  with pytest.raises(errors.InputError, match="by artist cannot be had"):
    _split(genres, alone)
  halves = np.repeat([0, 1], 50)
  with pytest.raises(errors.InputError, match="2 groups"):
    _split(genres, halves)
