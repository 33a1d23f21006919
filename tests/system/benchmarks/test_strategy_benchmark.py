"""Tests of benchmarks.strategies and of its table."""

import argparse
import dataclasses
import json
import shutil

import numpy as np
import pytest

from benchmarks.real_music import __main__ as real_music
from benchmarks.strategies import __main__ as strategies
from benchmarks.strategies import strategy_runs
from benchmarks.strategies import strategy_table
from configs import sample
from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import ragged
from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation import representations
from pcl_jax.evaluation.retrieval import precision_at_k
from pcl_jax.training import config_check
from preprocessing import sample_data
from tests.support.tiny import tiny_data
from tests.support.tiny import tiny_run


def _row(seed, seeds=3, queries=40, shift=0.0):
  """Returns made-up look-ups of a row: one for each of its seeds."""
  rng = np.random.default_rng(seed)
  shape = (len(strategy_table.TASKS), 2, seeds, queries)
  values = rng.uniform(0.2, 0.6, shape) + shift
  return [
    {
      task: {
        metric: values[t, m, s].tolist()
        for m, metric in enumerate(
          (strategy_table.PRECISION, strategy_table.AVERAGE)
        )
      }
      for t, task in enumerate(strategy_table.TASKS)
    }
    for s in range(seeds)
  ]


def _means(scores):
  return strategy_table.resampled(scores, np.random.default_rng(0))


def _cells(table, first):
  """Returns the cells of every line that begins with a cell."""
  return [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in table.splitlines()
    if line.startswith(f"| {first} |")
  ]


def test_the_precisions_are_those_of_the_evaluation():
  catalogue = tiny_data.tiny_catalogue()
  rows = np.random.default_rng(0).standard_normal((60, 7)).astype(np.float32)
  expected = precision_at_k.precisions(catalogue, rows)
  actual = strategy_table.look_up(
    catalogue, rows, catalogue.rows_of(catalogues.TEST)
  )
  for task in strategy_table.TASKS:
    found = actual[task][strategy_table.PRECISION]
    assert len(found) == expected[task]["queries"]
    assert np.mean(found) == pytest.approx(expected[task]["precision_at_5"])


def test_songs_that_lie_with_their_artist_have_an_average_precision_of_1():
  artist = np.arange(60) % 6
  catalogue = tiny_data.tiny_catalogue()
  object.__setattr__(
    catalogue,
    "artists",
    ragged.Ragged.from_lists([[int(a)] for a in artist]),
  )
  known = np.flatnonzero(catalogue.split != catalogues.TEST).astype(np.int32)
  actual = strategy_table.look_up(
    catalogue, np.eye(6, dtype=np.float32)[artist], known, known
  )
  assert actual["artist"][strategy_table.AVERAGE] == [1.0] * len(known)


def test_the_interval_of_one_seed_is_that_of_its_queries():
  values = np.random.default_rng(0).uniform(size=(1, 200))
  actual = bootstrap.percentiles(_means(values))
  expected = bootstrap.bootstrap_interval(values[0], draws=4000)
  np.testing.assert_allclose(actual, expected, atol=0.005)


def test_seeds_that_agree_add_nothing_to_the_interval():
  values = np.random.default_rng(0).uniform(size=(1, 50))
  one = _means(values)
  three = _means(np.repeat(values, 3, axis=0))
  np.testing.assert_allclose(three, one, atol=1e-12)


def test_where_seeds_alone_differ_the_mean_spreads_by_their_standard_error():
  of_seeds = np.array([0.2, 0.5, 0.6, 0.9])
  values = np.repeat(of_seeds[:, None], 30, axis=1)
  means = _means(values)
  expected = of_seeds.std(ddof=1) / np.sqrt(len(of_seeds))
  assert means.std() == pytest.approx(expected, rel=0.05)
  assert means.mean() == pytest.approx(of_seeds.mean(), abs=0.01)


def test_the_interval_covers_the_true_mean_of_seeds_and_queries():
  rng = np.random.default_rng(0)
  covered = 0
  for _ in range(30):
    values = rng.normal(0.0, 0.1, (5, 1)) + rng.normal(0.0, 0.3, (1, 40))
    low, high = bootstrap.percentiles(_means(values))
    covered += low <= 0.0 <= high
  assert covered >= 24  # 28 expected, fewer since there are 5 seeds.


def test_a_row_that_is_better_at_every_query_is_told_apart():
  worse = _row(0, seeds=1)
  better = [
    {
      task: {m: [v + 0.125 for v in each] for m, each in metrics.items()}
      for task, metrics in worse[0].items()
    }
  ]
  table = strategy_table.in_markdown(
    "head", {"untrained": worse, "SS": better}, {"SS": 12}, {}, upper="P"
  )
  differences = _cells(table, "SS")[2:]
  assert len(differences) == len(strategy_table.TASKS)
  for cells in differences:
    assert cells[1:] == ["**+0.125 [+0.125, +0.125]**"] * 3


def test_rows_that_are_alike_are_not_told_apart():
  same = _row(0, seeds=1)
  table = strategy_table.in_markdown(
    "head", {"untrained": same, "SS": same}, {"SS": 12}, {}, upper="P"
  )
  assert "**" not in table


def test_the_table_holds_means_seeds_steps_and_queries():
  rows = {"untrained": _row(0), "SS": _row(1, shift=0.2)}
  upper = {"P": _row(2, seeds=1, queries=7, shift=0.3)}
  table = strategy_table.in_markdown(
    "two cores", rows, {"SS": 1200}, upper, upper="P"
  )
  assert table.startswith("two cores")
  assert "40 for sub-genre, 40 for artist; of P: 7 for sub-genre" in table
  scores = np.array(
    [one["artist"][strategy_table.PRECISION] for one in rows["SS"]]
  )
  name, steps, _, artist = _cells(table, "SS")[0]
  of_seeds = scores.mean(axis=1)
  assert steps == "3 x 1,200"
  assert artist.startswith(f"{scores.mean():.3f} [")
  assert artist.endswith(f"({of_seeds.min():.3f} to {of_seeds.max():.3f})")
  assert len(_cells(table, "P")) == 2  # In no difference: other queries.
  order = [line.split("|")[1].strip() for line in table.splitlines()[6:9]]
  assert order == ["P", "SS", "untrained"]


def test_the_table_goes_between_the_markers_and_nowhere_else(tmp_path):
  path = tmp_path / "strategies.md"
  begin, end = strategy_table.BEGIN, strategy_table.END
  path.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
  for text in ("one", "two"):
    strategy_table.write_between_markers(path, text)
    assert path.read_text() == f"before\n{begin}\n\n{text}\n\n{end}\nafter\n"
  assert [one.name for one in tmp_path.iterdir()] == ["strategies.md"]


def test_a_file_that_is_absent_is_made(tmp_path):
  path = tmp_path / "new.md"
  strategy_table.write_between_markers(path, "table")
  strategy_table.write_between_markers(path, "again")
  assert path.read_text().count("again") == 1


@pytest.mark.parametrize("text", ["", "{0}", "{1}", "{1} {0}", "{0} {1} {0}"])
def test_a_file_without_one_place_for_the_table_is_left_as_it_is(
  text, tmp_path
):
  path = tmp_path / "strategies.md"
  old = text.format(strategy_table.BEGIN, strategy_table.END)
  path.write_text(old)
  with pytest.raises(errors.InputError, match="no one place"):
    strategy_table.write_between_markers(path, "table")
  assert path.read_text() == old


def test_a_file_without_a_place_is_refused_before_the_runs(
  tmp_path, monkeypatch
):
  path = tmp_path / "page.md"
  path.write_text("# No markers")
  monkeypatch.setattr(strategies, "measure", lambda _: 1 / 0)
  monkeypatch.setattr(sample_data, "make_where_absent", lambda *_, **__: 1 / 0)
  with pytest.raises(errors.InputError, match="no one place"):
    strategies.main([f"--write={path}"])
  monkeypatch.setattr(real_music, "_train", lambda _: 1 / 0)
  flags = [f"--{name}={tmp_path}" for name in ("data", "out", "kept")]
  with pytest.raises(errors.InputError, match="no one place"):
    real_music.main([*flags, f"--write={path}"])
  for place, why in ((tmp_path, "is a folder"), (path / "a.md", "written")):
    with pytest.raises(errors.InputError, match=f"{place} .*{why}.*--write"):
      strategies.main([f"--write={place}"])
    with pytest.raises(errors.InputError, match=f"{place} .*{why}.*--write"):
      real_music.main([*flags, f"--write={place}"])
  with pytest.raises(errors.InputError, match="has no queries.json"):
    real_music.main([*flags, f"--box={tmp_path}"])
  with pytest.raises(errors.InputError, match="is not musicnn's wheel"):
    real_music.main([*flags, "--stages=train,baselines", f"--musicnn={path}"])


def test_there_are_the_papers_strategies():
  titles = [strategies.title_of(name) for name in strategies.STRATEGIES]
  assert titles == [
    "SS",
    *(f"CM {modes}" for modes in ("A,P", "A,G", "A,G,P")),
    *(f"A-IM {method}" for method in ("Playlist", "Artist", "Genre")),
    "Hybrid Playlist + A,G,P",
  ]


def test_names_become_whole_and_stand_once():
  text = "hybrid,aim+artist,hybrid+playlist+a_g_p,hybrid:bfloat16,ss"
  assert strategies.names_of(text) == [
    "hybrid+playlist+a_g_p",
    "aim+artist",
    "hybrid+playlist+a_g_p:bfloat16",
    "ss",
  ]
  for name in strategies.STRATEGIES:
    assert strategies.names_of(name) == [name]
  assert strategies.title_of("ss:bfloat16") == "SS, bfloat16"
  assert strategies.title_of(strategies.UNTRAINED) == "untrained"


@pytest.mark.parametrize("text", ["", ",", "a_im", "ss,cm+p", "ss:float8"])
def test_what_is_no_strategy_is_refused(text):
  with pytest.raises(argparse.ArgumentTypeError, match="strategy"):
    strategies.names_of(text)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
  folder = tmp_path_factory.mktemp("strategies") / "data"
  return dataset.DataSet(tiny_run.make_data_set(folder, songs=200))


@pytest.mark.parametrize("name", ["ss", "aim+genre", "cm+a_g:bfloat16"])
def test_a_run_is_that_of_the_sample_but_for_its_length(name, tiny):
  config = strategy_runs.config_of(name, 2, tiny, steps=60)
  argument, _, dtype = name.partition(":")
  expected = sample.get_config(argument)
  assert config.contrast_combos == expected.contrast_combos
  assert config.opt_params.lr == expected.opt_params.lr
  assert config.seed == 2
  assert config.train.compute_dtype == (dtype or "float32")
  assert config.steps == config.validate_every_steps == 60
  # The weights of the last step are what is measured.
  assert config.opt_params.lr_schedule == "cosine"
  assert config.opt_params.warmup_steps == 60 // 12
  config_check.check_values(config)


def _flags(tiny, out, **changes):
  given = {
    "data": str(tiny.directory),
    "out": out,
    "only": ["ss", "cm+a_p"],
    "seeds": [0, 1],
    "steps": 12,
    "workers": 1,
  }
  return argparse.Namespace(**(given | changes))


@pytest.fixture
def trained(monkeypatch):
  """Puts made-up results in place of training; lists what was asked for."""
  asked = []

  def run_all(jobs, workers):
    for name, config, folder in jobs:
      asked.append(folder.name)
      folder.mkdir(parents=True)
      result = {
        "settings": strategy_runs.settings_of(
          name, config, dataset.DataSet(config.data.dir).fingerprint()
        ),
        "steps": 12,
        "scores": _row(len(asked), seeds=1)[0],
        "processor_s": 60.0,
      }
      (folder / strategy_runs.RESULT).write_text(json.dumps(result))

  monkeypatch.setattr(strategy_runs, "run_all", run_all)
  fixed = {"mean mel": _row(9, seeds=1)}
  monkeypatch.setattr(strategies, "fixed_scores", lambda data: fixed)
  return asked


def test_what_is_there_is_not_run_again(trained, tiny, tmp_path):
  first = strategies.measure(_flags(tiny, tmp_path))
  names = ["untrained-0", "ss-0", "cm+a_p-0"]
  names += [name.replace("-0", "-1") for name in names]
  assert trained == names
  trained.clear()
  assert strategies.measure(_flags(tiny, tmp_path)) == first
  assert not trained
  strategies.measure(_flags(tiny, tmp_path, seeds=[0, 1, 2], only=["ss"]))
  assert trained == ["untrained-2", "ss-2"]
  assert "4 whole run(s): 60 to 60 s each, 4 minutes" in first


def test_a_result_of_other_settings_is_refused(trained, tiny, tmp_path):
  strategies.measure(_flags(tiny, tmp_path))
  with pytest.raises(errors.InputError, match="steps was 12 and is 48 now"):
    strategies.measure(_flags(tiny, tmp_path, steps=48))


def test_a_result_of_other_data_with_as_many_songs_is_refused(
  trained, tiny, tmp_path
):
  strategies.measure(_flags(tiny, tmp_path))
  other = tiny_run.make_data_set(tmp_path / "other", songs=200)
  made = catalogues.load(other)
  split = np.roll(made.split, 1)
  dataclasses.replace(made, split=split).save(other)
  with pytest.raises(errors.InputError, match="data.fingerprint was"):
    strategies.measure(_flags(dataset.DataSet(other), tmp_path))


@pytest.mark.long
def test_a_run_that_fails_is_named_and_the_others_are_finished(tiny, tmp_path):
  good = strategy_runs.config_of("ss", 0, tiny, steps=1)
  good.model_params.audio.width = 4
  bad = good.copy_and_resolve_references()
  bad.data.dir = str(tmp_path / "nowhere")
  jobs = [("ss", bad, tmp_path / "bad"), ("ss", good, tmp_path / "good")]
  with pytest.raises(errors.RunError, match="bad failed"):
    strategy_runs.run_all(jobs, 1)
  result = strategy_runs.read_result(
    tmp_path / "good", strategy_runs.settings_of("ss", good, tiny.fingerprint())
  )
  assert result["steps"] >= 1 and result["processor_s"] > 0
  assert not (tmp_path / "bad" / strategy_runs.RESULT).exists()


def test_baselines_are_the_statistics_of_the_mel_and_mode_p_where_it_is(
  data_dir, tmp_path
):
  data = dataset.DataSet(data_dir)
  found = strategies.fixed_scores(data)
  assert found.keys() == {*strategies.STATISTICS, representations.MODE_P}
  copy = tmp_path / "data"
  shutil.copytree(data_dir, copy)
  (copy / dataset.PLAYLIST_VECTORS).unlink()
  found = strategies.fixed_scores(dataset.DataSet(copy))
  assert found.keys() == strategies.STATISTICS.keys()
