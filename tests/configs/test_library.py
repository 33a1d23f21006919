"""Tests of configs/library.py."""

import json

import pytest

from configs import library
from pcl_jax.common import errors
from pcl_jax.training import config_check
from pcl_jax.training import run_sizes
from tests.support.tiny import tiny_run

NAMES = {
  "": "SS",
  "ss": "SS",
  "artist": "A-IM Artist",
  "album": "A-IM Album",
  "playlist": "A-IM Playlist",
  "genre": "A-IM Genre",
  "hybrid": "Hybrid Playlist + A,P",
}


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
  monkeypatch.setattr(run_sizes, "is_accelerated", lambda: False)


def _sizes(config):
  return (
    config.data.batch_size,
    config.model_params.audio.width,
    config.steps,
    config.validate_every_steps,
    config.opt_params.warmup_steps,
  )


@pytest.mark.parametrize("argument, name", NAMES.items())
def test_each_argument_is_a_strategy_with_values_a_run_can_have(
  argument, name, data_dir
):
  config = library.get_config(argument)
  config.data.dir = str(data_dir)
  assert config_check.check_values(config).name == name
  assert config.data.patches_per_song == 0
  pair = name.split()[-1].lower() if name.startswith("A-IM") else ""
  if pair in ("artist", "album"):
    assert config.loss_params.exclude_sharing == (pair,)
  small = library.get_config(f"{argument or 'ss'},smoke")
  assert config_check.check_values(small).name == name
  assert small.steps < 10


def test_what_is_no_argument_is_refused():
  with pytest.raises(errors.InputError, match="Did you mean 'artist'"):
    library.get_config("artis")


def test_sizes_follow_the_data_set_that_is_given_later(data_dir, tmp_path):
  config = library.get_config("ss")
  config.lock()
  config.data.dir = str(tmp_path / "nothing")
  assert _sizes(config) == (2, 16, 300, 15, 25)
  config.data.dir = str(data_dir)
  # 36 training songs; a quarter of them are 9.
  assert _sizes(config) == (8, 16, 300, 15, 25)
  flat = config_check.flatten(json.loads(config.to_json()))
  assert (flat["data.batch_size"], flat["steps"]) == (8, 300)


def test_a_key_that_is_given_stays_and_what_follows_it_follows(data_dir):
  config = library.get_config("ss")
  config.data.batch_size, config.steps = 4, 1200
  config.data.dir = str(data_dir)
  assert _sizes(config) == (4, 16, 1200, 60, 100)
  config.steps = 0  # Epochs, as in the paper.
  config_check.check_values(config)
  assert config.validate_every_steps == config.opt_params.warmup_steps == 0


@pytest.mark.long
def test_an_own_library_is_trained_in_rounds(data_dir, tmp_path):
  config = library.get_config("artist")
  config.data.dir = str(data_dir)
  config.update({"steps": 6})
  config.model_params.audio.width = 2
  assert tiny_run.train_on_one(config, tmp_path)["step"] == 6
