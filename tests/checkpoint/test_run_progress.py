"""Tests of run_progress: how far a run is."""

import dataclasses
import json

from pcl_jax.checkpoint import run_progress


def test_progress_survives_json_before_any_validation():
  progress = run_progress.Progress(step=3, step_in_epoch=3)
  text = json.dumps(dataclasses.asdict(progress), allow_nan=False)
  assert run_progress.Progress(**json.loads(text)) == progress
