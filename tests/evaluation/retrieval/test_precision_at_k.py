"""Tests of pcl_jax.evaluation.retrieval.precision_at_k."""

import dataclasses

import numpy as np
import pytest

from pcl_jax.data import catalogues
from pcl_jax.data import ragged
from pcl_jax.evaluation.retrieval import precision_at_k
from pcl_jax.evaluation.retrieval import relevance
from tests.support.tiny import tiny_data

pytestmark = pytest.mark.usefixtures("quick_compilation")


def _precisions_by_hand(values, queries, embeddings) -> list[float]:
  """Looks up the five nearest songs of each query, one by one."""
  unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
  found = []
  for query in queries.tolist():
    mine = set(values[query].tolist())
    shares = [
      song != query and bool(mine & set(values[song].tolist()))
      for song in range(len(values))
    ]
    if any(shares):
      others = [song for song in range(len(values)) if song != query]
      others.sort(key=lambda song: -float(unit[query] @ unit[song]))
      found.append(np.mean([shares[song] for song in others[:5]]))
  return found


def test_sub_genres_are_the_codes_that_do_not_end_in_00():
  catalogue = dataclasses.replace(
    tiny_data.tiny_catalogue(),
    genre_codes=np.array(["GN0101", "GN0100", "GN0200", "GN0201"]),
    genres=ragged.Ragged.from_lists([[1, 2], [], [3], [4, 1, 3], *[[2]] * 56]),
  )
  found = relevance.sub_genres(catalogue)
  assert len(found) == 60
  assert [found[i].tolist() for i in range(5)] == [[1], [], [], [4, 1], []]


def test_chance_is_the_share_of_all_other_songs_that_are_alike():
  catalogue = tiny_data.tiny_catalogue()
  found = precision_at_k.by_chance(catalogue)
  lists = {
    "sub-genre": relevance.sub_genres(catalogue),
    "artist": catalogue.artists,
  }
  for name, values in lists.items():
    sets = [set(values[i].tolist()) for i in range(60)]
    shares = [
      sum(bool(sets[q] & sets[i]) for i in range(60) if i != q) / 59
      for q in catalogue.rows_of(catalogues.TEST).tolist()
    ]
    shares = [share for share in shares if share]
    assert found[name]["precision_at_5"] == pytest.approx(np.mean(shares))
    assert found[name]["queries"] == len(shares)


def test_precisions_are_those_found_by_hand():
  catalogue = tiny_data.tiny_catalogue()
  rows = np.random.default_rng(0).standard_normal((60, 7))
  results = precision_at_k.precisions(catalogue, rows)
  lists = {
    "sub-genre": relevance.sub_genres(catalogue),
    "artist": catalogue.artists,
  }
  assert list(results) == list(lists)
  for name, values in lists.items():
    queries = catalogue.rows_of(catalogues.TEST)
    expected = _precisions_by_hand(values, queries, rows)
    result = results[name]
    assert result["precision_at_5"] == pytest.approx(np.mean(expected))
    assert result["queries"] == len(expected)
    low, high = result["interval_95"]
    assert 0 <= low <= result["precision_at_5"] <= high <= 1


def test_songs_that_lie_with_their_artist_are_all_found():
  artist = np.arange(60) % 6  # Ten songs each: nine to find.
  catalogue = dataclasses.replace(
    tiny_data.tiny_catalogue(),
    artists=ragged.Ragged.from_lists([[int(a)] for a in artist]),
    genres=ragged.Ragged.from_lists([[]] * 60),
  )
  results = precision_at_k.precisions(catalogue, np.eye(6)[artist])
  assert list(results) == ["artist"]  # There is no sub-genre to look for.
  assert results["artist"]["precision_at_5"] == 1.0
  assert results["artist"]["interval_95"] == [1.0, 1.0]


def test_a_test_song_that_shares_nothing_is_no_query():
  catalogue = tiny_data.tiny_catalogue()
  queries = catalogue.rows_of(catalogues.TEST)
  artists = [[0]] * 60
  artists[queries[0]] = [1]
  catalogue = dataclasses.replace(
    catalogue, artists=ragged.Ragged.from_lists(artists)
  )
  rows = np.random.default_rng(0).standard_normal((60, 7))
  results = precision_at_k.precisions(catalogue, rows)
  assert results["artist"]["queries"] == len(queries) - 1
