"""Pools the evaluations of several folds: each song is a query in one of them.

The items of all folds are put together, and means and intervals are taken over
all of them. Candidates are those of the item's fold.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import os
import pathlib
from typing import Any

import numpy as np

from pcl_jax.common import errors
from pcl_jax.embedding import encoder_loading
from pcl_jax.evaluation import bootstrap
from pcl_jax.evaluation import report
from pcl_jax.evaluation import task_base

_KEY = "song_id"  # The only items that are the same ones in each fold.
_Rows = Mapping[str, Mapping[str, np.ndarray]]


def find(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the folders of folds, 0, 1, ..., in a folder.

  Raises:
    InputError: there are fewer than two, or one is missing.
  """
  names = [one.name for one in folder.iterdir()] if folder.is_dir() else []
  numbers = sorted(int(name) for name in names if name.isdecimal())
  if len(numbers) < 2 or numbers != list(range(len(numbers))):
    there = ", ".join(map(str, numbers)) or "none"
    raise errors.InputError(
      f"--folds: {folder} must have the folders 0, 1 and so on, one for each "
      f"fold, and has {there}. Make folds with python -m "
      "preprocessing.data_folds, and train a run on each."
    )
  return [folder / str(number) for number in numbers]


def check_runs(workdirs: Sequence[pathlib.Path], which: str) -> None:
  """Refuses runs that cannot be measured, before the first of them is.

  Args:
    workdirs: of the runs, one for each fold.
    which: the `best` checkpoint by validation loss, or the `latest`.

  Raises:
    InputError: one has no checkpoint or no data set, or two were trained on the
      same fold.
  """
  seen: dict[pathlib.Path, pathlib.Path] = {}
  for workdir in workdirs:
    _, meta = encoder_loading.load_network(workdir, which)
    place = task_base.open_data(workdir, meta, None).directory.resolve()
    other = seen.setdefault(place, workdir)
    if other != workdir:
      raise errors.InputError(
        f"{other} and {workdir} were trained on the same fold, {place}: train "
        "one run on each fold."
      )


def _check_queries(found: Sequence[report.Evaluation]) -> None:
  """Refuses folds in which a song is a query of two."""
  seen: dict[int, int] = {}
  for number, one in enumerate(found):
    row, mine = one.results["trained"], set()
    for rows in one.items.values():
      mine |= {*np.asarray(rows.get(row, {}).get(_KEY, ())).tolist()}
    for song in mine:
      if seen.setdefault(song, number) != number:
        raise errors.InputError(
          f"song {song} is a query in folds {seen[song]} and {number}: these "
          "are not folds of one data set. Make them with python -m "
          "preprocessing.data_folds."
        )


def _pool_items(
  parts: Sequence[tuple[int, dict[str, np.ndarray]]],
) -> dict[str, np.ndarray]:
  """Puts the items of folds together; other items than songs are renamed."""
  key, *columns = parts[0][1]
  ids = [
    one[key] if key == _KEY else [f"{v} of fold {i}" for v in one[key]]
    for i, one in parts
  ]
  shared = [c for c in columns if all(c in one for _, one in parts)]
  return {key: np.concatenate(ids)} | {
    c: np.concatenate([np.asarray(one[c], np.float64) for _, one in parts])
    for c in shared
  }


def _pool_settings(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Returns settings that all folds share, and lists of the others."""
  pooled: dict[str, Any] = {"folds": len(settings)}
  for name in settings[0]:
    values = [one.get(name) for one in settings]
    same = all(value == values[0] for value in values)
    pooled |= {name: values[0]} if same else {f"{name}_by_fold": values}
  return pooled


def _pool_row(
  given: Sequence[tuple[int, dict[str, Any]]],
  items: Sequence[tuple[int, dict[str, np.ndarray]]],
  missing: Mapping[int, str],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Pools a row of a task; returns it as `report.as_dict`, and its items."""
  lengths = {one["settings"].get("neighbours") for _, one in given}
  if len(lengths) > 1:
    shown = ", ".join(map(str, sorted(lengths)))
    reason = (
      f"the folds have lists of different lengths ({shown}), whose recall is "
      f"not the same thing: give --neighbours={min(lengths)}"
    )
    return {"not_given": reason}, {}
  pooled = _pool_items(items)
  first = given[0][1]["metrics"]
  columns = {name: pooled[name] for name in first if name in pooled}
  if not columns:
    reason = "its metrics are no means over items and cannot be pooled"
    return {"not_given": reason}, {}
  left_out: dict[str, int] = {}
  for _, one in given:
    for why, count in one["left_out"].items():
      left_out[why] = left_out.get(why, 0) + count
  notes = [note for _, one in given for note in one["notes"]]
  notes += [f"not in fold {i}: {why}" for i, why in missing.items()]
  result = task_base.Result(
    metrics=bootstrap.mean_metrics(columns),
    per_item=pooled,
    left_out=left_out,
    settings=_pool_settings([one["settings"] for _, one in given]),
    notes=tuple(dict.fromkeys(notes)),
  )
  return report.as_dict(result), pooled


def _pool_tasks(
  found: Sequence[report.Evaluation],
) -> tuple[dict[str, dict], dict[str, dict]]:
  """Pools all rows of all tasks; returns results and items."""
  tasks: dict[str, dict] = {}
  items: dict[str, dict] = {}
  for task, rows in found[0].results["tasks"].items():
    tasks[task], items[task] = {}, {}
    for row in rows:
      parts = [one.results["tasks"][task].get(row) for one in found]
      given = [
        (i, p) for i, p in enumerate(parts) if p and "not_given" not in p
      ]
      missing = {
        i: p["not_given"] for i, p in enumerate(parts) if p and "not_given" in p
      }
      if not given:
        tasks[task][row] = {"not_given": next(iter(missing.values()))}
        continue
      mine = [(i, found[i].items[task][row]) for i, _ in given]
      tasks[task][row], pooled = _pool_row(given, mine, missing)
      if pooled:
        items[task][row] = pooled
  return tasks, items


def _pool_precision(
  tables: Sequence[dict[str, dict[str, Any]]],
) -> dict[str, dict[str, Any]]:
  """Returns the look-up over all folds, weighted by queries."""
  pooled: dict[str, dict[str, Any]] = {}
  for row in tables[0]:
    pooled[row] = {}
    # A fold without queries of a kind lacks it.
    for kind in dict.fromkeys(k for one in tables for k in one.get(row, {})):
      parts = [one[row][kind] for one in tables if kind in one.get(row, {})]
      queries = sum(part["queries"] for part in parts)
      total = sum(part["precision_at_5"] * part["queries"] for part in parts)
      pooled[row][kind] = {
        "precision_at_5": total / queries,
        "interval_95": [None, None],
        "queries": queries,
      }
  return pooled


def _pool_checks(found: Sequence[report.Evaluation]) -> list[dict[str, Any]]:
  """Returns checks that all folds pass once, and others by fold."""
  by_name: dict[str, list[tuple[int, dict[str, Any]]]] = {}
  for number, one in enumerate(found):
    for check in one.results["checks"]:
      by_name.setdefault(check["name"], []).append((number, check))
  pooled = []
  for name, checks in by_name.items():
    if all(check["passed"] for _, check in checks):
      pooled.append(checks[0][1] | {"found": "passed in all folds"})
      continue
    pooled += [
      check | {"name": f"{name} (fold {number})"}
      for number, check in checks
      if not check["passed"]
    ]
  return pooled


def pool(found: Sequence[report.Evaluation]) -> report.Evaluation:
  """Returns what all folds together give.

  Args:
    found: the evaluation of each fold, with the same tasks and options.

  Raises:
    InputError: the encoders of folds have other strategies, or a song is a
      query of two folds.
  """
  results = [one.results for one in found]
  rows = list(dict.fromkeys(one["trained"] for one in results))
  if len(rows) > 1:
    raise errors.InputError(
      f"the folds are of different kinds ({', '.join(rows)}): train all of "
      "them with one config."
    )
  _check_queries(found)
  tasks, items = _pool_tasks(found)
  prints = "".join(one["fingerprint"] for one in results)
  notes = [note for one in results for note in one["notes"]]
  notes.append(
    f"Queries of {len(found)} folds together; the candidates of a query are "
    "songs of its fold."
  )
  pooled = {
    "format_version": results[0]["format_version"],
    "data": os.path.commonpath(
      [os.path.abspath(one["data"]) for one in results]
    ),
    "fingerprint": hashlib.sha256(prints.encode()).hexdigest(),
    "songs": results[0]["songs"],
    "split_by": results[0]["split_by"],
    "trained": rows[0],
    "options": results[0]["options"],
    "precision_at_5": _pool_precision([r["precision_at_5"] for r in results]),
    "tasks": tasks,
    "folds": [
      {k: v for k, v in one.items() if k not in ("tasks", "notes")}
      for one in results
    ],
    "checks": _pool_checks(found),
    "notes": list(dict.fromkeys(notes)),
  }
  return dataclasses.replace(found[0], results=pooled, items=items)
