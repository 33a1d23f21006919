"""Tests of pcl_jax.embedding.lists.step_order."""

import itertools

import numpy as np
import pytest

from pcl_jax.embedding.lists import step_order
from pcl_jax.embedding.tables import search


def _songs(count: int, seed: int = 0) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return search.unit(rng.normal(size=(count, 4))).astype(np.float32)


def _length(steps: np.ndarray, order) -> float:
  order = np.asarray(order)
  return float(steps[order[:-1], order[1:]].sum())


def test_songs_on_an_arc_come_as_they_lie_there():
  angles = np.linspace(0, 2, 30)
  arc = np.stack([np.cos(angles), np.sin(angles)], axis=1)
  shuffled = np.random.default_rng(0).permutation(30)
  order = step_order.smallest_steps(arc[shuffled].astype(np.float32))
  found = shuffled[order].tolist()
  assert found in (list(range(30)), list(range(30))[::-1])
  first = int(np.argmin(shuffled))
  order = step_order.smallest_steps(arc[shuffled].astype(np.float32), first)
  assert shuffled[order].tolist() == list(range(30))


@pytest.mark.parametrize("first", [None, 3])
def test_no_stretch_turned_round_makes_the_order_shorter(first):
  for seed in range(3):
    unit = _songs(25, seed)
    steps = step_order.distances(unit)
    order = step_order.smallest_steps(unit, first)
    assert sorted(order.tolist()) == list(range(25))
    assert first is None or order[0] == first
    length = _length(steps, order)
    fixed = 0 if first is None else 1
    for i, j in itertools.combinations(range(fixed, 26), 2):
      turned = [*order[:i], *order[i:j][::-1], *order[j:]]
      assert _length(steps, turned) >= length - 1e-6
    mean = np.mean(
      [
        _length(steps, np.random.default_rng(s).permutation(25))
        for s in range(20)
      ]
    )
    assert length < 0.7 * mean


def test_few_songs_have_nearly_the_shortest_order_of_all():
  for seed in range(5):
    unit = _songs(6, seed)
    steps = step_order.distances(unit)
    every = itertools.permutations(range(6))
    least = min(_length(steps, one) for one in every)
    found = _length(steps, step_order.smallest_steps(unit))
    assert least - 1e-6 <= found <= 1.1 * least


@pytest.mark.parametrize("count", [0, 1, 2])
def test_no_song_and_one_song_are_in_order(count):
  order = step_order.smallest_steps(_songs(count))
  assert sorted(order.tolist()) == list(range(count))


def test_songs_of_equal_sound_are_each_there_once():
  unit = np.repeat(_songs(2), 4, axis=0)
  order = step_order.smallest_steps(unit)
  assert sorted(order.tolist()) == list(range(8))
  assert len({*order[:4].tolist()} & set(range(4))) in (0, 4)
