"""Tests of pcl_jax.embedding.lists.song_lists, list_wishes, second_vectors."""

import unicodedata

import numpy as np
from pyarrow import parquet
import pytest

from pcl_jax.common import errors
from pcl_jax.embedding import song_queries
from pcl_jax.embedding.lists import list_wishes
from pcl_jax.embedding.lists import second_vectors
from pcl_jax.embedding.lists import song_lists
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.embedding.tables import search
from pcl_jax.embedding.tables import song_table
from pcl_jax.library import song_labels
from tests.support.tiny import tiny_table

SONGS = tiny_table.SONGS
Wishes = list_wishes.Wishes


def _queries(table, *rows: int) -> list[song_queries.Query]:
  return [song_queries.Query(table.rows.unit[row], row) for row in rows]


def _rows(table, wanted, k=SONGS, **wishes) -> list[int]:
  found = song_lists.similar(
    table, _queries(table, *wanted), k, wishes=Wishes(**wishes)
  )
  assert (np.diff(found.scores) <= 1e-6).all() or wishes
  return found.rows.tolist()


def test_one_wanted_song_finds_its_nearest(labelled):
  found = song_lists.similar(labelled, _queries(labelled, 7), 10)
  nearest = labelled.nearest(labelled.vectors[7], 10, without=7)
  np.testing.assert_array_equal(found.rows, nearest.rows)
  np.testing.assert_allclose(found.scores, nearest.scores, atol=1e-6)


def test_neither_queries_nor_silent_songs_are_found(labelled):
  found = _rows(labelled, (3, 4))
  assert sorted(found) == [i for i in range(59) if i not in (3, 4)]


def test_the_wishes_leave_out_what_they_name(labelled):
  every = _rows(labelled, (0,))
  for wishes, kept in (
    ({"exclude_same": ["artist"]}, lambda i: i % 4 != 0),
    ({"exclude_same": ["album"]}, lambda i: i >= 10),
    ({"exclude_same": ["artist", "album"]}, lambda i: i >= 10 and i % 4),
    ({"genre": "hip  hop"}, lambda i: i % 3 == 2),
    ({"excluded": (5, 6)}, lambda i: i not in (5, 6)),
    ({"folder": "/music"}, lambda i: True),
  ):
    found = _rows(labelled, (0,), **wishes)
    assert found == [i for i in every if kept(i)], wishes


def test_rows_to_leave_out_may_be_an_array(labelled):
  rows = np.array([5, 6])
  assert Wishes(excluded=rows) == Wishes(excluded=(5, 6)) != Wishes()
  found = _rows(labelled, (0,), excluded=rows)
  assert found == _rows(labelled, (0,), excluded=(5, 6))
  assert (
    song_lists.continued(
      labelled, np.array([3, 4, 8]), 5, Wishes(excluded=np.array([], np.int64))
    ).rows.tolist()
    == labelled.continue_playlist([3, 4, 8], 5).rows.tolist()
  )


@pytest.mark.parametrize("forms", [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_folder_is_found_however_its_accents_are_written(tmp_path, forms):
  stored, given = (unicodedata.normalize(one, "Bj\u00f6rk") for one in forms)
  names = [f"{stored}/1.mp3", f"{stored}/2.mp3", "Bjork/3.mp3"]
  table = tiny_table.write(tmp_path / "music.parquet", names=names)
  for folder in (given, f"/music/{given}/"):
    assert sorted(_rows(table, (5,), folder=folder)) == [0, 1]


def test_limits_hold_for_the_whole_list(labelled):
  found = np.array(_rows(labelled, (0,), per_artist=2))
  known = found[found % 4 < 3] % 4
  assert np.bincount(known).tolist() == [2, 2, 2]
  assert (found % 4 == 3).sum() == 14  # Of unknown artists, none silent.
  minutes = _rows(labelled, (0,), max_minutes=10.0)
  assert 500 < labelled.facts.seconds[minutes].sum() <= 600
  scores = labelled.rows.unit @ labelled.rows.unit[0]
  found = _rows(labelled, (0,), min_score=0.2)
  assert set(found) == set(np.flatnonzero(scores[:59] >= 0.2)) - {0}


def test_the_songs_in_order_are_the_same_songs(labelled):
  plain = _rows(labelled, (0,), 20, diversity=0.3)
  ordered = _rows(labelled, (0,), 20, diversity=0.3, order=True)
  assert sorted(plain) == sorted(ordered) and plain[0] == ordered[0]
  unit = labelled.rows.unit
  lengths = [
    np.linalg.norm(np.diff(unit[one], axis=0), axis=1).sum()
    for one in (plain, ordered)
  ]
  assert lengths[1] < lengths[0]


def test_a_file_that_is_not_in_the_table_has_labels_too(labelled):
  labels = song_labels.Labels(artists=("ANN",), album_id="album 2 / X")
  query = song_queries.Query(labelled.rows.unit[0], labels=labels)
  for kind, kept in (
    ("artist", lambda i: i % 4 != 0),
    ("album", lambda i: i // 10 != 2),
  ):
    wishes = Wishes(exclude_same=[kind])
    found = song_lists.similar(labelled, [query], SONGS, wishes=wishes)
    assert sorted(found.rows) == [i for i in range(59) if kept(i)]


def test_a_continuation_keeps_its_ranking_and_the_wishes(labelled):
  members = np.array([3, 4, 8])
  every = song_lists.continued(labelled, members, 10)
  same = labelled.continue_playlist(members, 10)
  np.testing.assert_array_equal(every.rows, same.rows)
  found = song_lists.continued(labelled, members, 6, Wishes(per_artist=1))
  ranked = labelled.continue_playlist(members, 56).rows.tolist()
  expected, seen = [], set()
  for row in ranked:
    if row % 4 == 3 or row % 4 not in seen:
      expected.append(row)
      seen.add(row % 4)
  assert found.rows.tolist() == expected[:6]
  places = [ranked.index(row) for row in found.rows]
  whole = labelled.continue_playlist(members, 56)
  np.testing.assert_array_equal(found.lists, whole.lists[places])
  np.testing.assert_allclose(found.scores, whole.scores[places], rtol=1e-6)
  with pytest.raises(errors.InputError, match="ranked by votes"):
    song_lists.continued(labelled, members, 6, Wishes(diversity=0.5))


def test_a_path_keeps_to_the_genre(labelled):
  found = song_lists.between(labelled, 0, 1, 7, Wishes(genre="Jazz"))
  assert found.rows[0] == 0 and found.rows[-1] == 1
  assert (found.rows[1:-1] % 3 == 1).all() and 59 not in found.rows
  unit = labelled.rows.unit[found.rows]
  np.testing.assert_allclose(
    found.scores[1:], (unit[1:] * unit[:-1]).sum(axis=1), atol=1e-6
  )
  with pytest.raises(errors.InputError, match="a path takes"):
    song_lists.between(labelled, 0, 1, 7, Wishes(per_artist=1))


def test_a_playlist_in_order_is_the_same_playlist(labelled, monkeypatch):
  members = [9, 3, 40, 12, 7]
  found = song_lists.reordered(labelled, members)
  assert sorted(found.rows.tolist()) == sorted(members)
  monkeypatch.setattr(song_lists, "_MOST_ORDERED", 4)
  with pytest.raises(errors.InputError, match="5 songs .* 4 are the most"):
    song_lists.reordered(labelled, members)
  with pytest.raises(errors.InputError, match="5 songs .* smaller -k"):
    _rows(labelled, (0,), 5, order=True)
  assert len(_rows(labelled, (0,), 4, order=True)) == 4


def test_vectors_of_playlists_have_their_share(labelled):
  other = np.random.default_rng(5).normal(size=(SONGS, 5)).astype(np.float32)
  other[40:] = 0
  unit, queries = search.unit(other), _queries(labelled, 0, 50)
  for share in (0.0, 1.0):
    second = second_vectors.SecondVectors(unit, share)
    found = song_lists.similar(labelled, queries, SONGS, second=second)
    known = found.rows[found.rows < 40]
    # Of the two queries, the one without such a vector has no say in them.
    expected = -(unit @ unit[0])
    if share == 0.0:
      direction = labelled.rows.unit[[0, 50]].mean(axis=0)
      expected = -(labelled.rows.unit @ direction)
    assert (np.diff(expected[known]) >= -1e-6).all()
  assert second.count() == 40
  with pytest.raises(errors.InputError, match="none of the songs that are"):
    song_lists.similar(labelled, _queries(labelled, 50), 5, second=second)


@pytest.mark.parametrize(
  ("wishes", "message"),
  [
    ({"exclude_same": ["title"]}, "exclude_same is 'title': .*artist, album"),
    ({"diversity": 1.5}, "diversity is 1.5: give a number from 0 to 1"),
    ({"diversity": np.nan}, "diversity is nan"),
    ({"min_score": 2.0}, "min_score is 2: "),
    ({"max_minutes": -1.0}, "max_minutes is -1: give a number from 0 on"),
    ({"per_artist": 0}, "per_artist is 0"),
    ({"genre": "polka"}, "genre 'polka'. Those of most songs are: rock"),
    ({"folder": "/elsewhere"}, "no song of .* lies in /elsewhere.*/music/0"),
    ({"max_minutes": 0.5}, "the shortest song .* has 1.0 minutes"),
    ({"min_score": 0.99}, "no song has a score of 0.99 .the best of all"),
    ({"excluded": tuple(range(SONGS))}, "none of the 60 songs .* is left"),
  ],
)
def test_wishes_that_cannot_be_had_are_refused(labelled, wishes, message):
  with pytest.raises(errors.InputError, match=message):
    _rows(labelled, (0,), **wishes)


def test_a_table_that_does_not_say_what_is_asked_for_is_refused(
  unlabelled, tmp_path
):
  path = tmp_path / "old.parquet"
  columns = parquet.read_table(unlabelled.path)
  parquet.write_table(columns.drop(list(embedding_table.FACTS)), path)
  table = song_table.read_table(path)
  for wishes in (
    {"exclude_same": ["artist"]},
    {"exclude_same": ["album"]},
    {"per_artist": 1},
    {"genre": "Rock"},
  ):
    with pytest.raises(
      errors.InputError, match="does not say the .* once more"
    ):
      _rows(table, (0,), **wishes)
