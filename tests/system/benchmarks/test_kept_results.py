"""Tests of benchmarks.real_music.kept_results: runs of several days."""

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from benchmarks.real_music import kept_results
from benchmarks.real_music import real_scores
from benchmarks.real_music import real_table
from benchmarks.real_music import row_values
from benchmarks.strategies import strategy_table
from pcl_jax.common import errors
from pcl_jax.common import storage

ABOUT = {"steps": 20, "training_hours": 1.5, "device": "a device"}

_BESIDE = ("longer", "half", "half_longer", "quarter", "box")


def _run(folds, seed, fold, **settings):
  """Returns a run of made-up vectors."""
  rows = np.random.default_rng(seed).normal(size=(80, 4)).astype(np.float32)
  scores = real_scores.measure(folds[fold], rows)
  settings = {"steps": 20, "seed": seed} | settings
  return kept_results.Run("ss+all", seed, fold, scores, ABOUT, settings)


def test_what_is_read_is_what_was_kept_to_four_digits(folds, tmp_path):
  run = _run(folds, 3, 1)
  kept_results.keep(tmp_path, folds, [run])
  kept = kept_results.read(tmp_path)
  assert (kept.recordings, kept.rendered, kept.folds) == (64, 16, 2)
  (found,) = kept.runs
  assert (found.row, found.seed, found.fold) == ("ss+all", 3, 1)
  assert found.about == ABOUT and found.settings == {"steps": 20}
  for protocol in real_scores.PROTOCOLS:
    for task in real_scores.TASKS:
      for metric in real_scores.METRICS:
        np.testing.assert_allclose(
          found.scores[protocol][task][metric],
          run.scores[protocol][task][metric],
          atol=5e-5,
        )


def test_runs_of_several_days_come_together(folds, tmp_path):
  for seed, fold in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0)):
    # On another machine the features, and so the fingerprint, may be others.
    run = _run(folds, seed, fold, **{"data.fingerprint": f"of {seed}"})
    (line,) = kept_results.keep(tmp_path, folds, [run])
  assert line == "ss+all: 5 runs"
  kept = kept_results.read(tmp_path)
  rows = row_values.rows_of(kept, range(2))
  assert list(rows["ss+all"]) == [0, 1]  # The third lacks a fold.
  assert list(row_values.rows_of(kept, [0])["ss+all"]) == [0, 1, 2]
  values = row_values.values_of(
    rows["ss+all"], "retrieval", "album", "average_precision"
  )
  assert values.shape == (2, 64)


def test_a_run_that_is_made_again_replaces_what_was_kept(folds, tmp_path):
  kept_results.keep(tmp_path, folds, [_run(folds, 0, 0)])
  again = dataclasses.replace(
    _run(folds, 0, 0), scores=_run(folds, 9, 0).scores
  )
  kept_results.keep(tmp_path, folds, [again])
  (found,) = kept_results.read(tmp_path).runs
  np.testing.assert_allclose(
    found.scores["look-up"]["album"]["average_precision"],
    again.scores["look-up"]["album"]["average_precision"],
    atol=5e-5,
  )


def test_results_of_other_settings_are_refused(folds, tmp_path):
  kept_results.keep(tmp_path, folds, [_run(folds, 0, 0)])
  with pytest.raises(errors.InputError, match="steps: there 20, here 30"):
    kept_results.keep(tmp_path, folds, [_run(folds, 1, 0, steps=30)])


def test_results_of_fewer_training_hours_are_refused(folds, tmp_path):
  kept_results.keep(tmp_path, folds, [_run(folds, 0, 0)])
  fewer = dataclasses.replace(
    _run(folds, 1, 0), about=ABOUT | {"training_hours": 0.75}
  )
  with pytest.raises(errors.InputError, match="1.50 hours on fold 0.* 0.75"):
    kept_results.keep(tmp_path, folds, [fewer])


def test_results_of_other_songs_are_refused(folds, tmp_path):
  run = _run(folds, 0, 0)
  kept_results.keep(tmp_path, folds, [run])
  with pytest.raises(errors.InputError, match="other queries than those"):
    kept_results.keep(tmp_path, folds[::-1], [run])
  other = {
    protocol: {
      task: columns | {"songs": columns["songs"][::-1]}
      for task, columns in tasks.items()
    }
    for protocol, tasks in run.scores.items()
  }
  other = dataclasses.replace(run, scores=other)
  with pytest.raises(errors.InputError, match="is of other songs"):
    kept_results.keep(tmp_path, folds, [other])


@pytest.mark.long
def test_the_page_has_the_tables_of_what_is_kept():
  docs = pathlib.Path(__file__).parents[3] / "docs"
  page = (docs / "real_music.md").read_text()
  results = docs / "real_music"
  beside = [results / one for one in _BESIDE]
  text = real_table.of_folders(results / "minutes", beside, results / "box")
  between = page.partition(strategy_table.BEGIN)[2]
  assert between.partition(strategy_table.END)[0].strip() == text


def test_intervals_by_package_are_of_the_packages_queries():
  """Queries of one package that are all alike count as one."""
  songs = [f"games/{'abcd'[i // 4]}/{i}.ogg" for i in range(16)]
  places = [[0, 4, 5, 8], [12, 13, 1]]
  queries = {
    "songs": songs,
    "folds": [{"retrieval": {"album": one}} for one in places],
  }
  kept = kept_results.Kept(16, 0, 2, [], queries)
  assert kept.packages("retrieval", "album", [0, 1]).tolist() == [
    0, 1, 1, 2, 3, 3, 0
  ]  # fmt: skip
  assert kept.packages("retrieval", "album", [1]).tolist() == [1, 1, 0]
  songs[0] = "song.ogg"  # Of an own library.
  assert kept.packages("retrieval", "album", [0]).tolist() == [0, 1, 1, 2]


def test_tables_by_package_have_wider_intervals_where_packages_differ(
  folds, tmp_path
):
  def scores(fold):
    by_chance = real_scores.measure(folds[fold], None)
    for tasks in by_chance.values():
      for columns in tasks.values():
        for metric in real_scores.METRICS:
          columns[metric] = [float(one > 40) for one in columns["songs"]]
    return by_chance

  runs = kept_results.of_statistics(folds, tmp_path)
  runs += [kept_results.Run("a", 0, fold, scores(fold)) for fold in (0, 1)]
  kept_results.keep(tmp_path, folds, runs)
  other = shutil.copytree(tmp_path, tmp_path / "other")
  whole = kept_results.read(tmp_path)
  names = whole.queries["songs"]
  whole.queries["songs"][:] = [
    name.replace("games/", f"games/{'ab'[int(name[11:]) > 40]}/")
    for name in names
  ]
  storage.write_json(tmp_path / "queries.json", whole.queries)
  widths = []
  for draw in row_values.DRAWN:
    text = real_table.of_folders(tmp_path, draw=draw)
    row = next(line for line in text.splitlines() if line.startswith("| a |"))
    low, high = row.split("[")[1].split("]")[0].split(", ")
    widths.append(float(high) - float(low))
  assert widths[0] < 0.3 and widths[1] == 1.0
  with pytest.raises(errors.InputError, match="other queries"):
    real_table.of_folders(tmp_path, [other])


@pytest.mark.parametrize("groups", [None, np.arange(6)])
def test_few_queries_of_one_sign_have_no_tiny_p(groups):
  """Six differences of one sign: 2 in 64 is the least that signs can say."""
  change = np.linspace(0.1, 0.2, 6)
  draws = strategy_table.resampled(change[None], np.random.default_rng(0))
  assert (draws > 0).all()
  assert row_values._p(change, draws, groups) == 2 / 64
  pairs = np.repeat(np.arange(3), 2)
  assert row_values._p(change, draws, pairs) == 2 / 8
