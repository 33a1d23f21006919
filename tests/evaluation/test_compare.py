"""Tests of pcl_jax.evaluation.compare and of the files it reads."""

import json
import math

import numpy as np
import pytest

from pcl_jax import evaluate
from pcl_jax.common import errors
from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation import compare
from pcl_jax.evaluation import registry
from pcl_jax.evaluation import report
from pcl_jax.evaluation import task_base

ROW = "trained (SS)"
SHOWN = ("average_precision", "r_precision")


def _write(folder, values, *, ids=None, fingerprint="f", settings=None):
  """Writes the evaluation of a run with one task; returns its folder."""
  ids = np.arange(len(values), dtype=np.uint32) if ids is None else ids
  columns = {name: values for name in SHOWN}
  found = task_base.Result(
    metrics=bootstrap.mean_metrics(columns),
    per_item={"song_id": ids} | columns,
    settings=settings or {"queries": "test"},
  )
  folder.mkdir(parents=True)
  rows = {ROW: found.per_item, "untrained": {"song_id": ids} | columns}
  results = {
    "data": "data/x",
    "fingerprint": fingerprint,
    "trained": ROW,
    "tasks": {"artist": {ROW: report.as_dict(found)}},
  }
  report.write(folder, report.Evaluation(results, {"artist": rows}, {}))
  return folder


def _values(seed: int = 0, n: int = 60) -> np.ndarray:
  return np.random.default_rng(seed).random(n)


def test_runs_are_compared_over_the_items_that_both_have(tmp_path, capsys):
  first, change = _values(), 0.1 + 0.05 * _values(1)
  a = _write(tmp_path / "a", first)
  order = np.random.default_rng(2).permutation(60)[:50]
  b = _write(tmp_path / "b", (first + change)[order], ids=order.astype("u4"))
  tests, notes = compare.compare([a, b], ("artist", "hubs"))
  assert [test.metric for test in tests] == list(SHOWN)
  test = tests[0]
  found = test.difference
  assert found.value == pytest.approx(change[order].mean())
  assert found.low < found.value < found.high
  assert (found.items, test.unshared) == (50, 10)
  assert found.means[0] == pytest.approx(first[order].mean())
  assert found.p < 0.001
  assert notes == [f"hubs: no result in {a}, {b}"]
  evaluate.main(["--compare", str(a), str(b), "--tasks=artist"])
  printed = capsys.readouterr().out
  assert f"{found.value:+.3f}" in printed
  assert f"{2 * found.p:.4f}" in printed  # Corrected for two tests.


@pytest.mark.parametrize(
  "flags",
  [
    ["--compare", "a", "b", "--split=validation"],
    ["--compare", "a", "b", "--data=d"],
    ["--compare", "a", "b", "--baselines"],
    ["--compare", "a", "b", "--checkpoint=latest"],
    ["--embeddings=t", "--data=d", "--checkpoint=latest"],
  ],
)
def test_flags_that_would_do_nothing_are_refused(flags, capsys):
  with pytest.raises(SystemExit):
    evaluate.main(flags)
  name = flags[-1].partition("=")[0]
  assert f"{name} does nothing with {flags[0][:5]}" in capsys.readouterr().err


def test_undefined_items_of_either_run_are_no_pairs(tmp_path):
  first = _values()
  second = first + 0.2
  second[:7] = math.nan
  a, b = _write(tmp_path / "a", first), _write(tmp_path / "b", second)
  tests, _ = compare.compare([a, b], ("artist",))
  assert tests[0].difference.items == 53
  assert tests[0].difference.value == pytest.approx(0.2)


def test_several_runs_are_each_compared_with_the_first(tmp_path):
  folders = [
    _write(tmp_path / name, _values() + 0.1 * i) for i, name in enumerate("abc")
  ]
  tests, notes = compare.compare(folders)
  assert not notes
  found = [(test.other, round(test.difference.value, 6)) for test in tests]
  assert found == [(1, 0.1), (1, 0.1), (2, 0.2), (2, 0.2)]


def test_runs_of_other_data_are_refused(tmp_path):
  a = _write(tmp_path / "a", _values())
  b = _write(tmp_path / "b", _values(), fingerprint="g")
  with pytest.raises(errors.InputError, match="songs or split differ"):
    compare.compare([a, b], ("artist",))


def test_a_task_of_other_settings_is_refused_and_named(tmp_path):
  settings = {"queries": "test", "chosen_rate": 1, "found_std": 0.7}
  a = _write(tmp_path / "a", _values(), settings=settings)
  found = settings | {"chosen_rate": 2, "found_std": 0.6}
  b = _write(tmp_path / "b", _values(), settings=found)
  compare.compare([a, b], ("artist",))  # What a task finds may differ.
  c = _write(
    tmp_path / "c", _values(), settings=settings | {"queries": "validation"}
  )
  message = "artist was measured differently.*there 'test', here 'validation'"
  with pytest.raises(errors.InputError, match=message):
    compare.compare([a, c], ("artist",))


def test_a_run_without_results_is_refused_with_the_command_that_makes_them(
  tmp_path,
):
  a, b = _write(tmp_path / "a", _values()), tmp_path / "b"
  b.mkdir()
  command = f"python -m pcl_jax.evaluate --workdir={b}"
  for text in (None, "{", "{}", '{"precision_at_5": {}}'):
    if text is not None:
      (b / report.FILE_NAME).write_text(text)
    with pytest.raises(errors.InputError) as error:
      compare.compare([a, b], ("artist",))
    assert command in str(error.value)
  with pytest.raises(errors.InputError, match="two runs"):
    compare.compare([a], ("artist",))


def test_a_missing_or_damaged_table_of_items_is_refused(tmp_path):
  a, b = _write(tmp_path / "a", _values()), _write(tmp_path / "b", _values())
  path = b / report.FOLDER / "artist.parquet"
  path.write_bytes(path.read_bytes()[:-40])
  with pytest.raises(errors.InputError, match="artist.parquet"):
    compare.compare([a, b], ("artist",))
  path.unlink()
  with pytest.raises(errors.InputError, match="artist.parquet"):
    compare.compare([a, b], ("artist",))


def test_undefined_numbers_are_null_in_results_and_said_in_the_table(tmp_path):
  folder = _write(tmp_path / "a", np.full(5, math.nan))
  results = json.loads((folder / report.FILE_NAME).read_text())
  metric = results["tasks"]["artist"][ROW]["metrics"]["r_precision"]
  assert metric == {"value": None, "interval_95": [None, None], "items": 0}
  results |= {"precision_at_5": {}, "notes": [], "checks": [], "songs": 5}
  text = report.format_evaluation(
    report.Evaluation(results, {}, registry.TASKS)
  )
  assert "undefined" in text
