"""Tests of pcl_jax.evaluation.report."""

import json

from pcl_jax.evaluation import registry
from pcl_jax.evaluation import report
from tests.support import reported_run
from tests.support.tiny import tiny_data


def test_the_summary_has_the_headline_of_each_task_in_a_few_lines(tmp_path):
  reported_run.write_results(tmp_path, tiny_data.tiny_catalogue())
  results = json.loads((tmp_path / report.FILE_NAME).read_text())
  rows = results["tasks"]["artist"]
  results["tasks"] |= {f"more_{i}": rows for i in range(12)}
  tasks = {name: registry.TASKS["artist"] for name in results["tasks"]}
  found = report.Evaluation(results, {}, tasks)
  lines = report.format_summary(found).splitlines()
  assert len(lines) == 14  # One is a note.
  (line,) = [
    one for one in lines if one.startswith("artist: average precision")
  ]
  metrics = (
    rows[name]["metrics"]["average_precision"]
    for name in (reported_run.ROW, "untrained", "chance")
  )
  mine, *others = metrics
  assert report.cell(mine["value"], mine["interval_95"]) in line
  assert line.split()[-2:] == [f"{one['value']:.3f}" for one in others]
  assert lines[1].endswith("0.250") and "[0.625, 0.875]" in lines[1]
  # Of 16 tasks that were measured, nine have a line.
  assert "and 7 more tasks, which --verbose prints" in lines
  assert results["notes"][0] in lines
  assert lines[-1] == "audit: 1 checks for leakage passed; SHARED: artists"
