"""Runs against each other: paired tests over the items that both measured."""

from collections.abc import Sequence
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pyarrow
from pyarrow import parquet
import pyarrow.compute

from pcl_jax.common import errors
from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation import registry
from pcl_jax.evaluation import report
from pcl_jax.evaluation import representations

# Settings that a task finds for itself, so that two runs may differ in them.
_FOUND = ("chosen_", "found_")
_DRAWS = 10_000


@dataclasses.dataclass(frozen=True)
class Evaluated:
  """A run and what its evaluation wrote.

  Attributes:
    workdir: folder of the run.
    results: of results.json.
  """

  workdir: pathlib.Path
  results: dict[str, Any]

  @property
  def row(self) -> str:
    """Name of the row of the trained encoder."""
    return self.results["trained"]

  def given(self) -> dict[str, dict[str, Any]]:
    """Returns the outcome of the trained encoder in each task that has one."""
    rows = {t: r.get(self.row) for t, r in self.results["tasks"].items()}
    return {t: r for t, r in rows.items() if r and "not_given" not in r}

  def items(self, task: str) -> pyarrow.Table:
    """Returns the items of a task, of the trained encoder.

    Raises:
      InputError: the table is missing or damaged.
    """
    path = self.workdir / report.FOLDER / f"{task}.parquet"
    try:
      table = parquet.read_table(path)
      mine = pyarrow.compute.equal(table[report.ROW], self.row)
      return table.filter(mine).drop_columns([report.ROW])
    except (OSError, pyarrow.ArrowException, KeyError) as error:
      raise errors.InputError(
        f"{path} cannot be read ({error}). {_remedy(self.workdir)}"
      ) from error


@dataclasses.dataclass(frozen=True)
class Test:
  """One metric of one task, of the first run and another.

  Attributes:
    task: its name.
    metric: its name.
    other: number of the other run, from 1.
    means: of the first run and of the other, over the items of both.
    difference: the other's mean minus the first's.
    interval: its 95 % bootstrap interval.
    p: of the paired bootstrap, not corrected.
    items: that both runs define.
    unshared: items that only one of them has.
  """

  task: str
  metric: str
  other: int
  means: tuple[float, float]
  difference: float
  interval: tuple[float, float]
  p: float
  items: int
  unshared: int


def _remedy(workdir: pathlib.Path) -> str:
  return f"Make it with python -m pcl_jax.evaluate --workdir={workdir}"


def read(workdir: pathlib.Path) -> Evaluated:
  """Reads what an evaluation wrote into a run's folder.

  Args:
    workdir: of the run.

  Raises:
    InputError: there is nothing, or nothing that can be compared.
  """
  path = workdir / report.FILE_NAME
  try:
    results = json.loads(path.read_text())
  except FileNotFoundError as error:
    raise errors.InputError(
      f"{path} does not exist: the run has not been evaluated. "
      f"{_remedy(workdir)}"
    ) from error
  except (OSError, ValueError) as error:
    raise errors.InputError(
      f"{path} cannot be read ({error}). {_remedy(workdir)}"
    ) from error
  if not isinstance(results, dict) or not results.get("tasks"):
    raise errors.InputError(
      f"{path} holds no results of tasks: it was written by another version, "
      f"or for other purposes. {_remedy(workdir)}"
    )
  return Evaluated(workdir, results)


def _check_same_data(first: Evaluated, other: Evaluated) -> None:
  """Refuses runs that were evaluated on different data."""
  for one in (first, other):
    if "fingerprint" not in one.results:
      raise errors.InputError(
        f"{one.workdir / report.FILE_NAME} does not say on which data it was "
        f"made. {_remedy(one.workdir)}"
      )
  if first.results["fingerprint"] != other.results["fingerprint"]:
    raise errors.InputError(
      f"{first.workdir} was evaluated on {first.results['data']} (fingerprint "
      f"{first.results['fingerprint'][:12]}) and {other.workdir} on "
      f"{other.results['data']} ({other.results['fingerprint'][:12]}): songs "
      "or split differ, so their numbers cannot be compared. Evaluate both on "
      "one data set with --data."
    )


def protocol(settings: dict[str, Any]) -> dict[str, Any]:
  """Returns the settings that two runs must share to be compared."""
  return {
    key: value for key, value in settings.items() if not key.startswith(_FOUND)
  }


def _check_same_task(task: str, first: Evaluated, other: Evaluated) -> None:
  mine, theirs = (
    protocol(one.given()[task]["settings"]) for one in (first, other)
  )
  differing = [
    f"{key}: {mine.get(key)!r} and {theirs.get(key)!r}"
    for key in sorted(mine.keys() | theirs.keys())
    if mine.get(key) != theirs.get(key)
  ]
  if differing:
    raise errors.InputError(
      f"task {task} was measured differently in {first.workdir} and "
      f"{other.workdir} ({'; '.join(differing)}). Evaluate both with the same "
      "options, or compare other tasks with --tasks."
    )


def _metrics(task: str, given: dict[str, Any], columns: list[str]):
  """Returns the metrics of a task that are means over a column of items."""
  entry = registry.TASKS.get(task)
  wanted = (entry.shown if entry else ()) or tuple(given["metrics"])
  return [name for name in wanted if name in columns]


def _test_task(
  task: str, first: Evaluated, others: Sequence[Evaluated], seed: int
) -> list[Test]:
  tests, base = [], first.items(task)
  key = base.column_names[0]
  for number, other in enumerate(others, 1):
    if task not in other.given():
      continue
    _check_same_task(task, first, other)
    theirs = other.items(task)
    names = _metrics(task, first.given()[task], theirs.column_names)
    names = [name for name in names if name in base.column_names]
    if not names:
      continue
    ids = [np.asarray(table[key]) for table in (base, theirs)]
    shared, *rows = np.intersect1d(*ids, return_indices=True)
    values = [
      np.stack([np.asarray(table[n], np.float64)[at] for n in names], axis=1)
      for table, at in zip((base, theirs), rows, strict=True)
    ]
    unshared = sum(map(len, ids)) - 2 * len(shared)
    tests += _test_columns(task, names, number, values, unshared, seed)
  return tests


def _test_columns(task, names, number, values, unshared, seed) -> list[Test]:
  if not len(values[0]):
    return []
  found = bootstrap.paired_difference(*values, draws=_DRAWS, seed=seed)
  both = ~np.isnan(values[1] - values[0])
  tests = []
  for i, name in enumerate(names):
    if not found["items"][i]:
      continue
    means = tuple(float(v[both[:, i], i].mean()) for v in values)
    tests.append(
      Test(
        task=task,
        metric=name,
        other=number,
        means=means,
        difference=float(found["difference"][i]),
        interval=(float(found["low"][i]), float(found["high"][i])),
        p=float(found["p"][i]),
        items=int(found["items"][i]),
        unshared=unshared,
      )
    )
  return tests


def compare(
  workdirs: Sequence[pathlib.Path],
  tasks: tuple[str, ...] | None = None,
  *,
  seed: int = 0,
) -> tuple[list[Test], list[str]]:
  """Tests the trained encoders of runs against that of the first one.

  Args:
    workdirs: of evaluated runs, two at least.
    tasks: that are compared; None for all that any run has measured.
    seed: of the resamples.

  Returns:
    The tests, and in words what was not compared.

  Raises:
    InputError: a run has no results, or runs were evaluated on different data
      or in different ways; fewer than two runs were given.
  """
  if len(workdirs) < 2:
    raise errors.InputError(
      "--compare needs two runs or more: --compare runs/a runs/b"
    )
  runs = [read(workdir) for workdir in workdirs]
  first, others = runs[0], runs[1:]
  for other in others:
    _check_same_data(first, other)
  if tasks is None:
    tasks = tuple(dict.fromkeys(task for run in runs for task in run.given()))
  tests, notes = [], []
  for task in tasks:
    lacking = [str(run.workdir) for run in runs if task not in run.given()]
    if lacking:
      notes.append(f"{task}: no result in {', '.join(lacking)}")
    if task in first.given():
      tests += _test_task(task, first, others, seed)
  if not tests:
    raise errors.InputError(
      "the runs have no task in common: "
      + "; ".join(notes or ["none was chosen"])
      + f". {_remedy(first.workdir)}"
    )
  return tests, notes


def format_tests(
  workdirs: Sequence[pathlib.Path], tests: list[Test], notes: list[str]
) -> str:
  """Returns the table of the tests.

  Args:
    workdirs: of the runs, the first one first.
    tests: of `compare`.
    notes: likewise.
  """
  corrected = bootstrap.holm(np.array([test.p for test in tests]))
  lines = [
    f"{representations.TRAINED.capitalize()} encoders, each against that of "
    f"{workdirs[0]}, over the items that both have: paired bootstrap, 95 %",
    f"intervals; p also corrected for the {len(tests)} tests of this table "
    "(Holm).",
    "",
  ]
  head = ["task", "metric", "run", "first", "run's", "difference", "p"]
  rows = [
    [
      test.task,
      test.metric,
      str(workdirs[test.other]),
      f"{test.means[0]:.3f}",
      f"{test.means[1]:.3f}",
      f"{test.difference:+.3f}  [{test.interval[0]:+.3f}, "
      f"{test.interval[1]:+.3f}]",
      f"{test.p:.4f}",
      f"{holm:.4f}",
      str(test.items),
      str(test.unshared),
    ]
    for test, holm in zip(tests, corrected, strict=True)
  ]
  lines += report.grid([*head, "p (Holm)", "items", "not shared"], rows)
  if notes:
    lines += ["", *(f"not compared: {note}" for note in notes)]
  return "\n".join(lines)
