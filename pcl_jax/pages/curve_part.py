"""The part of a page that is about training: curves of one run or several."""

from collections.abc import Sequence
import math
from typing import Any

from pcl_jax.pages import chart_specs
from pcl_jax.pages import run_records

_TITLES = {
  "songs_per_s": "patches per second",
  "data_wait_share": "share of the time spent waiting for data",
}
_SECTIONS = {
  "loss": "Loss, as a whole and by term",
  "speed": "Speed",
  "collapse": "Collapse: diagnostics of the projections of validation batches",
}
_DIGITS = 5  # Significant ones.


def _section(metric: str) -> str:
  if metric in run_records.SPEED:
    return "speed"
  is_collapse = metric.startswith(run_records.COLLAPSE)
  return "collapse" if is_collapse else "loss"


def _title(metric: str) -> str:
  name = metric.removeprefix(run_records.COLLAPSE).replace("_", " ")
  name = metric if _section(metric) == "loss" else name
  return _TITLES.get(metric, name)


def _rounded(value: Any) -> Any:
  """Returns a number for json; None for what is none, or not finite."""
  if not isinstance(value, int | float) or not math.isfinite(value):
    return None
  return float(f"{value:.{_DIGITS}g}")


def history(
  runs: Sequence[run_records.RunRecord], names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str]]:
  """Returns the numbers of runs by column, and the column of each number.

  Args:
    runs: the runs.
    names: what they are called.
  """
  metrics = dict.fromkeys(name for run in runs for name in run.metrics())
  # Names of numbers have characters that Vega-Lite takes for paths.
  fields = {metric: f"m{i}" for i, metric in enumerate(metrics)}
  rows = [
    (name, kind, row)
    for run, name in zip(runs, names, strict=True)
    for kind, some in run.rows.items()
    for row in some
  ]
  columns: dict[str, Any] = {
    "run": [name for name, _, _ in rows],
    "kind": [kind for _, kind, _ in rows],
    "step": [row["step"] for _, _, row in rows],
  }
  for metric, field in fields.items():
    columns[field] = [_rounded(row.get(metric)) for _, _, row in rows]
  return columns, fields


def sections(
  fields: dict[str, str], names: Sequence[str]
) -> list[dict[str, Any]]:
  """Returns the curves of each section: its title, and titles and charts.

  Args:
    fields: the column of each number in the data `history`.
    names: what the runs are called.
  """
  metrics = sorted(fields, key=lambda one: one != "total")  # It comes first.
  made = []
  for section, heading in _SECTIONS.items():
    charts = [
      {
        "title": _title(metric),
        "spec": chart_specs.curve(
          fields[metric],
          _title(metric),
          runs=names,
          share=metric == "data_wait_share",
        ),
      }
      for metric in metrics
      if _section(metric) == section
    ]
    if charts:
      made.append({"title": heading, "charts": charts})
  return made
