"""What a run's folder says of its training: config, and numbers by step."""

import dataclasses
import json
import pathlib
from typing import Any

from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.training import metric_writers

KINDS = ("train", "validation")
SPEED = ("songs_per_s", "data_wait_share")
COLLAPSE = "collapse_"  # What the names of diagnostics of collapse begin with.
_NOT_METRICS = ("kind", "step", "epoch")
_MOST_POINTS = 400  # Of a curve.


@dataclasses.dataclass(frozen=True)
class RunRecord:
  """What is known of a run.

  Attributes:
    workdir: folder of the run.
    config: its config; empty for a table of vectors.
    rows: kind, of `KINDS` -> rows of numbers by name, ascending in `step`.
    notes: texts that say what is missing.
  """

  workdir: pathlib.Path
  config: dict[str, Any]
  rows: dict[str, list[dict[str, Any]]]
  notes: list[str]

  @property
  def name(self) -> str:
    """What the run is called in charts."""
    return self.workdir.name or str(self.workdir)

  def metrics(self) -> list[str]:
    """Returns the names of all numbers, in the order of the file."""
    names = [
      name for rows in self.rows.values() for row in rows for name in row
    ]
    return [n for n in dict.fromkeys(names) if n not in _NOT_METRICS]


def _read_config(workdir: pathlib.Path) -> dict[str, Any]:
  path = workdir / "config.json"
  try:
    return dict(storage.read_json(path))
  except FileNotFoundError as error:
    raise errors.InputError(
      f"{path} does not exist: {workdir} is no folder of a run. Give a folder "
      "that launch.py trained into (--workdir)."
    ) from error
  except (OSError, ValueError, TypeError) as error:
    raise errors.InputError(
      f"{path} cannot be read ({error}). Copy the run's folder again."
    ) from error


def _read_rows(path: pathlib.Path) -> tuple[list[dict[str, Any]], list[str]]:
  """Returns the rows of a metrics.jsonl, and what is wrong with it."""
  if not path.exists():
    return [], [f"{path} does not exist: there are no curves."]
  rows, unread = [], 0
  for line in path.read_text("utf-8", "replace").splitlines():
    try:
      row = json.loads(line)
      rows.append({"kind": row["kind"], "step": int(row["step"])} | row)
    except (ValueError, TypeError, KeyError):
      unread += 1
  notes = []
  if unread:
    notes.append(f"{unread} lines of {path} are torn or no rows: left out.")
  if not rows:
    notes.append(f"{path} has no rows: there are no curves.")
  return rows, notes


def _mean(values: list[Any]) -> float | None:
  numbers = [v for v in values if isinstance(v, int | float)]
  return sum(numbers) / len(numbers) if numbers else None


def _thin(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Returns at most `_MOST_POINTS` rows: the means of as many neighbours."""
  group = -(-len(rows) // _MOST_POINTS)
  if group <= 1:
    return rows
  thinned = []
  for start in range(0, len(rows), group):
    some = rows[start : start + group]
    names = [
      n for n in dict.fromkeys(k for r in some for k in r) if n != "kind"
    ]
    mean = {name: _mean([r.get(name) for r in some]) for name in names}
    thinned.append(mean | {"kind": some[-1]["kind"], "step": some[-1]["step"]})
  return thinned


def read(workdir: pathlib.Path) -> RunRecord:
  """Reads the config of a run and its numbers.

  Args:
    workdir: folder of the run; a file, such as a table of vectors, has none of
      this.

  Returns:
    The record. Of long runs it has means of several rows.

  Raises:
    InputError: the folder is not that of a run.
  """
  if workdir.is_file():
    note = f"{workdir} is no run: it has no curves."
    return RunRecord(workdir, {}, {kind: [] for kind in KINDS}, [note])
  config = _read_config(workdir)
  path = workdir / metric_writers.FILE_NAME
  rows, notes = _read_rows(path)
  by_kind = {kind: [r for r in rows if r["kind"] == kind] for kind in KINDS}
  empty = sum(
    v is None for some in by_kind.values() for r in some for v in r.values()
  )
  if empty:
    notes.append(
      f"{empty} numbers of {path} are not finite: the curves have gaps there."
    )
  longest = max(map(len, by_kind.values()))
  if longest > _MOST_POINTS:
    notes.append(
      f"{path} has {longest} rows of a kind: each point of a curve is the mean "
      f"of {-(-longest // _MOST_POINTS)} of them at most."
    )
  thinned = {kind: _thin(some) for kind, some in by_kind.items()}
  return RunRecord(workdir, config, thinned, notes)
