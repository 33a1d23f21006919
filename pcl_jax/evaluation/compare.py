"""Compares runs by paired tests over the items that both measured."""

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np
import pyarrow
from pyarrow import parquet
import pyarrow.compute

from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation import registry
from pcl_jax.evaluation import report

# Settings that a task finds for itself, so that two runs may differ in them.
_FOUND = ("chosen_", "found_")


@dataclasses.dataclass(frozen=True)
class Evaluated:
  """A run and what its evaluation wrote.

  Attributes:
    workdir: folder of the run, or the table of vectors.
    results: content of results.json.
    tasks: what each task found about the trained encoder, or the vectors, where
      it has a result.
  """

  workdir: pathlib.Path
  results: dict[str, Any]
  tasks: dict[str, dict[str, Any]]

  def items(self, task: str) -> pyarrow.Table:
    """Returns the items of a task, for the trained encoder or the vectors.

    Raises:
      InputError: the table is missing or damaged.
    """
    folder = report.folder_of(self.workdir)
    path = folder / report.FOLDER / f"{task}.parquet"
    try:
      with open(path, "rb") as file:  # Whose name may be no text.
        table = parquet.read_table(file)
      row = self.results["trained"]
      mine = pyarrow.compute.equal(table[report.ROW], row)
      return table.filter(mine).drop_columns([report.ROW])
    except (OSError, pyarrow.ArrowException, KeyError) as error:
      raise errors.InputError(
        f"{path} cannot be read ({error}). {_remedy(self.workdir)}"
      ) from error


@dataclasses.dataclass(frozen=True)
class Test:
  """One metric of one task, of the first run and another.

  Attributes:
    task: name of the task.
    metric: name of the metric.
    other: number of the other run, from 1.
    difference: the other run minus the first; its p is not corrected.
    unshared: number of items that only one of the runs has.
  """

  task: str
  metric: str
  other: int
  difference: bootstrap.Difference
  unshared: int


def _remedy(workdir: pathlib.Path) -> str:
  of = f"--workdir={workdir}"
  if workdir.is_file():
    of = f"--embeddings={workdir} --data=..."
  return f"Make it with python -m pcl_jax.evaluate {of}"


def _tables(results: dict[str, Any]) -> set[str]:
  """Returns the SHA-256 of the table of vectors, as results or folds say."""
  certificates = [
    one.get("certificate", {}) for one in (results, *results.get("folds", ()))
  ]
  found = (one.get("embeddings") for one in certificates)
  return {table["sha256"] for table in found if table}


def read(workdir: pathlib.Path) -> Evaluated:
  """Reads what an evaluation wrote of a run, or of a table of vectors.

  Args:
    workdir: folder of the run, or the table.

  Raises:
    InputError: there is nothing, or nothing that can be compared.
  """
  path = report.folder_of(workdir) / report.FILE_NAME
  try:
    results = storage.read_json(path)
  except FileNotFoundError as error:
    raise errors.InputError(
      f"{path} does not exist: {workdir} has not been evaluated. "
      f"{_remedy(workdir)}"
    ) from error
  except (OSError, ValueError) as error:
    raise errors.InputError(
      f"{path} cannot be read ({error}). {_remedy(workdir)}"
    ) from error
  wanted = {"tasks", "trained", "fingerprint"}
  if not isinstance(results, dict) or not wanted <= results.keys():
    raise errors.InputError(
      f"{path} has no results of tasks: it was written by another version, "
      f"or for other purposes. {_remedy(workdir)}"
    )
  if workdir.is_file() and _tables(results) - {storage.sha256(workdir)}:
    raise errors.InputError(
      f"{path} is of other vectors: {workdir} was written again after it was "
      f"evaluated. {_remedy(workdir)}"
    )
  rows = {t: r.get(results["trained"]) for t, r in results["tasks"].items()}
  given = {t: r for t, r in rows.items() if r and "not_given" not in r}
  return Evaluated(workdir, results, given)


def _check_same_data(first: Evaluated, other: Evaluated) -> None:
  """Refuses runs that were evaluated on different data."""
  if first.results["fingerprint"] != other.results["fingerprint"]:
    raise errors.InputError(
      f"{first.workdir} was evaluated on {first.results['data']} (fingerprint "
      f"{first.results['fingerprint'][:12]}) and {other.workdir} on "
      f"{other.results['data']} ({other.results['fingerprint'][:12]}): songs "
      "or split differ, or one of the runs learned from test songs of the "
      "other, so their numbers cannot be compared. Evaluate both with --data "
      "on one data set whose test songs neither learned from."
    )


def protocol(settings: dict[str, Any]) -> dict[str, Any]:
  """Returns the settings that two runs must share to be compared."""
  return {
    key: value for key, value in settings.items() if not key.startswith(_FOUND)
  }


def _check_same_task(task: str, first: Evaluated, other: Evaluated) -> None:
  differing = storage.differences(
    *(protocol(one.tasks[task]["settings"]) for one in (first, other))
  )
  if differing:
    raise errors.InputError(
      f"task {task} was measured differently in {first.workdir} (there) and "
      f"{other.workdir} (here): {'; '.join(differing)}. Evaluate both with the "
      "same options, or compare other tasks with --tasks."
    )


def _test_task(
  task: str, first: Evaluated, others: Sequence[Evaluated], seed: int
) -> list[Test]:
  """Tests the metrics of a task that are means over a column of items."""
  tests, base = [], first.items(task)
  key = base.column_names[0]
  entry = registry.TASKS.get(task)
  wanted = (entry and entry.shown) or first.tasks[task]["metrics"]
  for number, other in enumerate(others, 1):
    if task not in other.tasks:
      continue
    _check_same_task(task, first, other)
    tables = (base, other.items(task))
    names = [n for n in wanted if all(n in t.column_names for t in tables)]
    ids = [np.asarray(table[key]) for table in tables]
    shared, *rows = np.intersect1d(*ids, return_indices=True)
    if not names or not len(shared):
      continue
    values = [
      np.stack([np.asarray(table[n], np.float64)[at] for n in names], axis=1)
      for table, at in zip(tables, rows, strict=True)
    ]
    unshared = sum(map(len, ids)) - 2 * len(shared)
    found = bootstrap.paired_differences(*values, seed=seed)
    tests += [
      Test(task, name, number, difference, unshared)
      for name, difference in zip(names, found, strict=True)
      if difference.items
    ]
  return tests


def compare(
  workdirs: Sequence[pathlib.Path],
  tasks: tuple[str, ...] | None = None,
  *,
  seed: int = 0,
) -> tuple[list[Test], list[str]]:
  """Tests the trained encoders of runs against that of the first one.

  Args:
    workdirs: folders of evaluated runs, or tables, at least two.
    tasks: tasks to compare; None for all that any run has measured.
    seed: seed of the resamples.

  Returns:
    The tests, and texts that say what was not compared.

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
    tasks = tuple(dict.fromkeys(task for run in runs for task in run.tasks))
  tests, notes = [], []
  for task in tasks:
    lacking = [str(run.workdir) for run in runs if task not in run.tasks]
    if lacking:
      notes.append(f"{task}: no result in {', '.join(lacking)}")
    if task in first.tasks:
      tests += _test_task(task, first, others, seed)
  if not tests:
    raise errors.InputError(
      "the runs have no task in common: "
      + "; ".join(notes or ["none was chosen"])
      + f". {_remedy(first.workdir)}"
    )
  return tests, notes


def rows_of(
  names: Sequence[str], tests: Sequence[Test]
) -> tuple[list[str], list[list[str]]]:
  """Returns head and rows of the table of the tests, as text.

  Args:
    names: what the runs are called, in the order of `compare`.
    tests: the tests; their p is also corrected for all of them (Holm).
  """
  corrected = bootstrap.holm(np.array([one.difference.p for one in tests]))
  rows = []
  for test, holm in zip(tests, corrected, strict=True):
    found = test.difference
    rows.append(
      [
        test.task,
        test.metric,
        names[test.other],
        *(f"{mean:.3f}" for mean in found.means),
        f"{found.value:+.3f}  [{found.low:+.3f}, {found.high:+.3f}]",
        f"{found.p:.4f}",
        f"{holm:.4f}",
        str(found.items),
        str(test.unshared),
      ]
    )
  head = ["task", "metric", "run", "first", "run's", "difference", "p"]
  return [*head, "p (Holm)", "items", "not shared"], rows


def format_tests(
  workdirs: Sequence[pathlib.Path], tests: list[Test], notes: list[str]
) -> str:
  """Returns the table of the tests.

  Args:
    workdirs: folders of the runs, in the order of `compare`.
    tests: the tests that `compare` returned.
    notes: the notes that `compare` returned.
  """
  lines = [
    f"Each encoder, or table of vectors, against that of {workdirs[0]}, over "
    "the items that",
    "both have: paired bootstrap, 95 % intervals; p also corrected for the "
    f"{len(tests)} tests of this",
    "table (Holm).",
    "",
    *console.grid(*rows_of(list(map(str, workdirs)), tests)),
  ]
  if notes:
    lines += ["", *(f"not compared: {note}" for note in notes)]
  return "\n".join(lines)
