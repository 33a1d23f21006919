"""Tests of pcl_jax.embedding.lists.song_choice."""

import functools
import itertools

import numpy as np
import pytest

from pcl_jax.data import ragged
from pcl_jax.embedding.lists import song_choice
from pcl_jax.embedding.tables import search
from tests.support import counted_calls

SONGS = 700


def _made(songs: int, artists: int, seed: int):
  """Makes scores, unit vectors, artists and lengths of songs."""
  rng = np.random.default_rng(seed)
  unit = search.unit(rng.normal(size=(songs, 6))).astype(np.float32)
  lengths = rng.integers(0, 3, songs)
  numbers = rng.integers(0, artists, lengths.sum()).astype(np.int32)
  return {
    "scores": unit @ unit[0],
    "unit": unit,
    "artists": ragged.Ragged.from_lengths(numbers, lengths),
    "seconds": rng.uniform(60, 400, songs),
    "allowed": rng.random(songs) < 0.8,
  }


@pytest.fixture(scope="module")
def library():
  """Some songs."""
  return _made(SONGS, 40, 3)


def _choose(library, k: int, **limits):
  rest = {name: library[name] for name in ("artists", "seconds")}
  limits = song_choice.Limits(**limits)
  best = song_choice.of_scores(library["scores"], library["allowed"])
  found = song_choice.choose(best, library["unit"], k, limits=limits, **rest)
  np.testing.assert_array_equal(found.scores, library["scores"][found.rows])
  return found.rows


def test_without_limits_the_best_come_in_order(library):
  found = _choose(library, 25)
  scores = np.where(library["allowed"], library["scores"], -np.inf)
  np.testing.assert_array_equal(found, np.argsort(-scores, kind="stable")[:25])
  everything = _choose(library, SONGS + 1)
  assert set(everything.tolist()) == set(np.flatnonzero(library["allowed"]))


def _by_the_rule(library, k, per_artist, max_seconds, diversity):
  """Takes songs one after another out of all, by the definition."""
  counts, taken, left = {}, [], max_seconds
  artists = [library["artists"][i].tolist() for i in range(SONGS)]
  scores, unit = library["scores"].astype(float), library["unit"].astype(float)
  for _ in range(k):
    best = (-np.inf, None)
    for row in np.flatnonzero(library["allowed"]).tolist():
      if row in taken or library["seconds"][row] > left:
        continue
      if any(counts.get(one, 0) >= per_artist for one in artists[row]):
        continue
      alike = (unit[taken] @ unit[row]).max(initial=-1.0) if taken else 0.0
      value = (1 - diversity) * scores[row] - diversity * alike
      best = max(best, (value, -row), key=lambda one: one[0])
    if best[1] is None:
      break
    taken.append(-best[1])
    left -= library["seconds"][taken[-1]]
    for one in artists[taken[-1]]:
      counts[one] = counts.get(one, 0) + 1
  return taken


@pytest.mark.parametrize(
  ("k", "per_artist", "max_seconds", "diversity"),
  [
    (30, 1, np.inf, 0.0),
    (50, 2, np.inf, 0.0),
    (12, 99, 1500.0, 0.0),
    (12, 2, 2000.0, 0.0),
    (5, 99, np.inf, 0.4),
  ],
)
def test_the_songs_are_those_of_the_rule(
  library, k, per_artist, max_seconds, diversity, monkeypatch
):
  if diversity:  # All songs are chosen from, as the rule has it.
    monkeypatch.setattr(song_choice, "_POOL", SONGS)
  options = {
    "per_artist": per_artist,
    "max_seconds": max_seconds,
    "diversity": diversity,
  }
  found = _choose(library, k, **options).tolist()
  assert found == _by_the_rule(library, k, **options)
  assert library["seconds"][found].sum() <= max_seconds
  artists = list(itertools.chain(*(library["artists"][i] for i in found)))
  assert max(np.bincount(artists), default=0) <= per_artist


def test_songs_of_no_artist_are_not_limited(library):
  found = _choose(library, SONGS, per_artist=1)
  without = np.flatnonzero(library["artists"].lengths == 0)
  assert set(without[library["allowed"][without]]) <= set(found.tolist())


def test_a_diverse_list_is_spread_more_widely(library):
  unit, mean = library["unit"], []
  for diversity in (0.0, 0.4, 1.0):
    rows = _choose(library, 20, diversity=diversity)
    assert len(set(rows.tolist())) == 20
    mean.append((unit[rows] @ unit[rows].T).mean())
    assert rows[0] == _choose(library, 1)[0]
  assert mean[0] > mean[1] > mean[2]


def test_a_time_too_short_for_any_song_leaves_nothing(library):
  assert not len(_choose(library, 5, max_seconds=59.0))


def _down_the_ranking(library, k, limits, pool):
  """Chooses by trying each song of a pool, the best of those left first."""
  unit, counts, left_s = library["unit"], {}, limits.max_seconds
  best = song_choice.of_scores(library["scores"], library["allowed"])(pool).rows
  values = (1 - limits.diversity) * library["scores"][best].astype(float)
  alike, left, taken = np.full(len(best), -1.0), np.ones(len(best), bool), []
  while left.any() and len(taken) < k:
    found = values - limits.diversity * alike * bool(taken)
    place = int(np.argmax(np.where(left, found, -np.inf)))
    left[place], row = False, int(best[place])
    artists = library["artists"][row].tolist()
    if library["seconds"][row] > left_s or any(
      counts.get(one, 0) >= (limits.per_artist or np.inf) for one in artists
    ):
      continue
    taken.append(row)
    left_s -= library["seconds"][row]
    for one in artists:
      counts[one] = counts.get(one, 0) + 1
    alike = np.maximum(alike, unit[best] @ unit[row])
  if len(taken) == k or len(best) < pool:
    return taken
  return _down_the_ranking(library, k, limits, 4 * pool)


def test_diverse_songs_within_limits_are_those_of_trying_each(monkeypatch):
  monkeypatch.setattr(song_choice, "_POOL", 4)
  monkeypatch.setattr(song_choice, "_POOL_OF_K", 1)
  rng = np.random.default_rng(11)
  short = 0
  for seed in range(40):
    library = _made(int(rng.integers(5, 60)), int(rng.integers(1, 30)), seed)
    if seed % 3 == 0:  # Many songs of one length, and of one vector.
      library["seconds"] = np.round(library["seconds"], -2)
      library["unit"] = library["unit"][np.arange(len(library["unit"])) // 3]
      library["scores"] = library["unit"] @ library["unit"][0]
    k = int(rng.integers(1, 12))
    limits = {
      "per_artist": [None, 1, 2][seed % 3],
      "max_seconds": [np.inf, *rng.uniform(50, 2500, 2)][seed % 3 - 1],
      "diversity": float(rng.choice([0.1, 0.5, 1.0])),
    }
    found = _choose(library, k, **limits).tolist()
    wanted = song_choice.Limits(**limits)
    assert found == _down_the_ranking(library, k, wanted, max(4, k)), seed
    short += len(found) < min(k, library["allowed"].sum())
  assert short > 8  # Lists that no pool can fill.


@pytest.mark.parametrize(
  "limits", [{"max_seconds": 1800.0}, {"per_artist": 1}], ids=str
)
def test_a_diverse_list_that_cannot_be_filled_does_not_try_every_song(limits):
  calls = []
  for songs in (1000, 4000):
    library = _made(songs, 1, 5)
    artists = [[i % 10] for i in range(songs)]
    library["artists"] = ragged.Ragged.from_lists(artists)
    choose = functools.partial(_choose, library, 30, **limits, diversity=0.3)
    found, count = counted_calls.of(choose)
    calls.append(count)
    assert 5 <= len(found) < 30
  # One pool more in a library four times as large.
  assert calls[1] < 2 * calls[0]
