"""What an evaluation found, as files and as the table that people read."""

from collections.abc import Iterable, Mapping
import dataclasses
import json
import math
import pathlib
from typing import Any

import numpy as np
import pyarrow
from pyarrow import parquet

from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.audit import leakage
from pcl_jax.evaluation.retrieval import precision_at_k

FILE_NAME = "results.json"
FOLDER = "evaluation"
ROW = "representation"  # First column of every table of items.
_COLUMNS = 5  # Metrics in the table where a task does not say which.


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """All that was measured.

  Attributes:
    results: plain values, fit for json.
    items: task -> representation -> columns of one value an item.
    tasks: the tasks, by name.
  """

  results: dict[str, Any]
  items: dict[str, dict[str, dict[str, np.ndarray]]]
  tasks: Mapping[str, task_base.Task]


def _plain(value: Any) -> Any:
  """Returns plain values; json knows no number that is none."""
  if isinstance(value, dict):
    return {str(k): _plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple | np.ndarray):
    return [_plain(v) for v in value]
  if isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def as_dict(found: task_base.Result) -> dict[str, Any]:
  """Returns a result, without its items, as plain values."""
  metrics = {
    name: {
      "value": metric.value,
      "interval_95": [metric.low, metric.high],
      "items": metric.items,
    }
    for name, metric in found.metrics.items()
  }
  return _plain(
    {
      "metrics": metrics,
      "left_out": found.left_out,
      "settings": found.settings,
    }
  )


def write(workdir: pathlib.Path, found: Evaluation) -> list[pathlib.Path]:
  """Writes results.json, and a table of items for each task.

  Args:
    workdir: folder of the run.
    found: what to write.

  Returns:
    The files' paths, results.json first.
  """
  folder = workdir / FOLDER
  folder.mkdir(exist_ok=True)
  paths = [
    write_items(folder / f"{task}.parquet", rows)
    for task, rows in found.items.items()
    if rows
  ]
  path = workdir / FILE_NAME
  partial = path.with_name(f"{FILE_NAME}.partial")
  text = json.dumps(_plain(found.results), indent=2, allow_nan=False)
  partial.write_text(text + "\n")
  partial.replace(path)
  return [path, *paths]


def write_items(
  path: pathlib.Path, rows: dict[str, dict[str, np.ndarray]]
) -> pathlib.Path:
  """Writes the values of each item, of several representations, as parquet.

  Args:
    path: of the file.
    rows: representation -> columns; the first one names the item.
  """
  tables = [
    pyarrow.table({ROW: np.repeat(name, len(next(iter(columns.values()))))}
                  | columns)
    for name, columns in rows.items()
  ]  # fmt: skip
  partial = path.with_name(f"{path.name}.partial")
  parquet.write_table(
    pyarrow.concat_tables(tables, promote_options="permissive"), partial
  )
  partial.replace(path)
  return path


def format_precision(results: dict[str, Any]) -> str:
  """Returns the table of precision at 5; empty where there is none."""
  table = results["precision_at_5"]
  columns = list(dict.fromkeys(c for row in table.values() for c in row))
  if not columns:
    return ""
  width = max(map(len, table)) + 2
  queries = {c: row[c]["queries"] for row in table.values() for c in row}
  counts = ", ".join(f"{queries[c]} for {c}" for c in columns)
  lines = [
    f"Precision at {precision_at_k.NEAREST}, with 95 % bootstrap intervals. "
    f"Queries: test songs of {results['data']} ({counts});",
    f"candidates: all other {results['songs'] - 1} songs.",
    "",
    " " * width + "".join(f"{c:<24}" for c in columns),
  ]
  for name, row in table.items():
    cells = [
      _cell(row[c]["precision_at_5"], row[c]["interval_95"]) for c in columns
    ]
    lines.append(f"{name:<{width}}" + "".join(f"{cell:<24}" for cell in cells))
  return "\n".join(line.rstrip() for line in lines)


def _cell(value: float | None, interval: list[float | None]) -> str:
  if value is None:
    return "undefined"
  text = f"{value:.3f}"
  if None in interval:
    return text
  return f"{text}  [{interval[0]:.3f}, {interval[1]:.3f}]"


def grid(head: list[str], rows: Iterable[list[str]]) -> list[str]:
  """Lays out cells in columns, the first one to the left; lines of text."""
  rows = [head, *rows]
  widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
  return [
    "  ".join(
      cell.ljust(width) for cell, width in zip(row, widths, strict=True)
    ).rstrip()
    for row in rows
  ]


def format_task(
  name: str, task: task_base.Task, rows: dict[str, dict[str, Any]]
) -> str:
  """Returns a task's part of the table.

  Args:
    name: of the task.
    task: its entry in the registry.
    rows: representation -> what `as_dict` gave, or why there is no result.
  """
  title = f"{task.title} ({name})"
  given = {k: row for k, row in rows.items() if "not_given" not in row}
  missing = {k: row["not_given"] for k, row in rows.items() if k not in given}
  lines = [title]
  if given:
    metrics = next(iter(given.values()))["metrics"]
    shown = [one for one in task.shown if one in metrics]
    shown = shown or list(metrics)[:_COLUMNS]
    lines += grid(
      ["", *shown], [[k, *_cells(row, shown)] for k, row in given.items()]
    )
    lines += _notes(given, shown)
  if len(set(missing.values())) == 1 and not given:
    lines.append(f"  not measured: {next(iter(missing.values()))}")
  else:
    lines += [f"  {k}: not measured: {why}" for k, why in missing.items()]
  return "\n".join(lines)


def _cells(row: dict[str, Any], shown: list[str]) -> list[str]:
  """Returns a row's numbers, the first one with its interval."""
  cells = []
  for i, name in enumerate(shown):
    metric = row["metrics"].get(name)
    if metric is None:
      cells.append("")
      continue
    interval = metric["interval_95"] if i == 0 else [None, None]
    cells.append(_cell(metric["value"], interval))
  return cells


def _notes(given: dict[str, dict[str, Any]], shown: list[str]) -> list[str]:
  first = next(iter(given.values()))
  items = first["metrics"][shown[0]]["items"]
  notes = [f"  mean over {items} items"]
  left_out = {
    reason: count
    for row in given.values()
    for reason, count in row["left_out"].items()
    if count
  }
  notes += [f"left out: {count} {why}" for why, count in left_out.items()]
  return ["; ".join(notes)]


def format_evaluation(found: Evaluation) -> str:
  """Returns the table that people read."""
  results = found.results
  parts = [format_precision(results)]
  parts += [
    format_task(name, found.tasks[name], rows)
    for name, rows in results["tasks"].items()
  ]
  lines = results["notes"] + leakage.format_checks(results["checks"])
  parts.append("\n".join(lines))
  return "\n\n".join(part for part in parts if part)
