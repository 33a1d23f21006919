"""Tests of pcl_jax.embedding.lists.song_paths."""

import itertools

import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.embedding.lists import song_paths
from pcl_jax.embedding.tables import search


def _songs(count: int, seed: int = 0, length: int = 4) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return search.unit(rng.normal(size=(count, length))).astype(np.float32)


def _steps(unit: np.ndarray, rows: np.ndarray) -> float:
  return float(((unit[rows[1:]] - unit[rows[:-1]]) ** 2).sum())


@pytest.mark.parametrize("k", [2, 3, 12, 40])
def test_no_song_is_in_a_path_twice_and_its_ends_are_those_given(k):
  unit = _songs(60)
  for first, last in ((0, 1), (5, 50)):
    rows = song_paths.between(unit, first, last, k).tolist()
    assert rows[0] == first and rows[-1] == last
    assert len(rows) == len(set(rows)) == k


def test_songs_on_the_arc_are_taken_as_they_lie_there():
  angles = np.linspace(0, 2, 21)
  arc = np.stack([np.cos(angles), np.sin(angles)], axis=1)
  order = np.random.default_rng(0).permutation(21)
  unit = arc[order].astype(np.float32)
  places = np.argsort(order)
  rows = song_paths.between(unit, int(places[0]), int(places[20]), 11)
  assert order[rows].tolist() == list(range(0, 21, 2))


def test_a_path_is_the_shortest_of_all_where_all_can_be_tried(monkeypatch):
  monkeypatch.setattr(song_paths, "_PER_STEP", 3)
  for seed in range(5):
    unit = _songs(8, seed)
    rows = song_paths.between(unit, 0, 1, 4)
    layers = song_paths._layers(
      unit, song_paths._waypoints(unit[0], unit[1], 2), np.arange(2, 8)
    )
    assert sorted(itertools.chain(*layers)) == list(range(2, 8))
    every = [np.array([0, *pair, 1]) for pair in itertools.product(*layers)]
    least = min(_steps(unit, one) for one in every)
    assert _steps(unit, rows) == pytest.approx(least, rel=1e-5)


def test_a_path_has_smaller_steps_than_the_nearest_songs_of_each_point():
  unit = _songs(500, length=16)
  for first, last in ((0, 1), (2, 3), (4, 5)):
    rows = song_paths.between(unit, first, last, 10)
    points = song_paths._waypoints(unit[first], unit[last], 8)
    seen = [first, last]
    for point in points:
      order = np.argsort(-(unit @ point))
      seen.append(next(one for one in order.tolist() if one not in seen))
    nearest = np.array([first, *seen[2:], last])
    assert _steps(unit, rows) <= _steps(unit, nearest) + 1e-6
    direct = ((unit[first] - unit[last]) ** 2).sum()
    assert _steps(unit, rows) >= direct / 9 - 1e-6  # What even steps have.


def test_the_way_back_is_as_long():
  unit = _songs(300, length=8)
  there, back = (
    song_paths.between(unit, *ends, 9) for ends in ((0, 1), (1, 0))
  )
  assert _steps(unit, there) == pytest.approx(_steps(unit, back), rel=0.3)
  assert (there[[0, -1]] == back[[-1, 0]]).all()


def test_only_allowed_songs_lie_between():
  unit, allowed = _songs(60), np.zeros(60, bool)
  allowed[10:20] = True
  rows = song_paths.between(unit, 0, 1, 12, allowed)
  assert sorted(rows[1:-1].tolist()) == list(range(10, 20))
  assert allowed.sum() == 10


def test_songs_of_equal_sound_are_a_path_too():
  unit = np.repeat(_songs(1), 5, axis=0)
  assert len(set(song_paths.between(unit, 0, 4, 5).tolist())) == 5


def test_a_path_that_cannot_be_had_is_refused():
  unit = _songs(5)
  with pytest.raises(errors.InputError, match="the same song"):
    song_paths.between(unit, 2, 2, 3)
  with pytest.raises(errors.InputError, match="-k is 6, .* give 2 to 5"):
    song_paths.between(unit, 0, 1, 6)
  with pytest.raises(errors.InputError, match="-k is 1, "):
    song_paths.between(unit, 0, 1, 1)
  unit[1] = -unit[0]
  with pytest.raises(errors.InputError, match="are opposite"):
    song_paths.between(unit, 0, 1, 3)
