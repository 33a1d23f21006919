"""Tests of what a run is made of."""

import json

import pytest

from configs import common
from pcl_jax.common import errors
from pcl_jax.training import setup


def test_a_config_is_written_whole_or_not_at_all(tmp_path):
  config = common.hybrid("resnet", "")
  setup.write_config(tmp_path, config)
  found = json.loads((tmp_path / "config.json").read_text())
  assert found == json.loads(config.to_json())
  assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
  (tmp_path / "config.json").unlink()
  (tmp_path / "config.json").mkdir()
  with pytest.raises(errors.InputError, match="cannot be written"):
    setup.write_config(tmp_path, config)


def test_progress_survives_json_before_any_validation():
  progress = setup.Progress(step=3, step_in_epoch=3)
  text = json.dumps(progress.as_dict(), allow_nan=False)
  assert setup.Progress.from_dict(json.loads(text)) == progress
