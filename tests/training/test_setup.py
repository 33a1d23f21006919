"""Tests of pcl_jax.run and pcl_jax.errors: what is refused, and how."""

import json

import pytest

from configs import common
from pcl_jax.common import errors
from pcl_jax.data import strategies
from pcl_jax.training import config_check
from pcl_jax.training import setup

SS = (("audio", "audio_self"),)


ABOVE_0 = [
  "epochs",
  "early_stop_patience",
  "log_every_steps",
  "save_every_steps",
  "audio_contrast_params.mixup_alpha",
  "audio_contrast_params.mixup_beta",
  "data.batch_size",
  "data.double_window",
  "data.max_num_tags",
  "data.sample_seconds",
  "model_params.audio.width",
  "model_params.audio.fc_hidden_dim",
  "model_params.audio.fc_output_dim",
  "model_params.cf.hidden_dim",
  "model_params.cf.output_dim",
  "model_params.genre_w2v.n_head",
  "model_params.genre_w2v.d_k",
  "model_params.genre_w2v.d_v",
  "opt_params.lr",
  "loss_params.contrastive_temperature",
]
RATES = [
  "model_params.audio.fc_dropout",
  "model_params.cf.dropout",
  "model_params.genre_w2v.dropout",
]
BAD = [(key, value, "above 0") for key in ABOVE_0 for value in (0, -1)]
BAD += [(key, -1, "0 or more") for key in ("seed", "data.threads")]
BAD += [("data.sample_songs", -1, "0 or more")]
BAD += [("opt_params.weight_decay", -1e-4, "0 or more")]
BAD += [("opt_params.warmup_steps", -1, "0 or more")]
BAD += [(key, v, "in [0, 1)") for key in RATES for v in (1.0, -0.1)]
BAD += [
  ("opt_params.lr", float("nan"), "above 0"),
  ("opt_params.lr", float("inf"), "above 0"),
]


def _at(config, key):
  for part in key.split("."):
    config = config[part]
  return config


@pytest.mark.parametrize("key, value, rule", BAD)
def test_a_value_that_no_run_can_have_is_refused(key, value, rule):
  config = common.self_supervised("sc_cnn", "")
  config.update_from_flattened_dict({key: value})
  value = _at(config, key)  # Where a float is needed, an int became one.
  with pytest.raises(errors.InputError) as caught:
    config_check.check_values(config)
  message = str(caught.value)
  assert f"config.{key} is {value!r}; it must be a number {rule}" in message
  assert f"--config.{key}=..." in message


def test_a_value_that_is_no_number_is_refused():
  config = common.self_supervised("sc_cnn", "")
  with config.ignore_type():
    config.opt_params.lr = "fast"
  with pytest.raises(errors.InputError, match="config.opt_params.lr is 'fast'"):
    config_check.check_values(config)


def test_the_bounds_of_a_value_are_allowed():
  config = common.self_supervised("sc_cnn", "")
  config.model_params.cf.dropout = 0.0
  config.seed = config.data.threads = 0
  config.opt_params.weight_decay = 0.0
  assert config_check.check_values(config) == strategies.parse(SS, "")


def test_an_unknown_order_of_reading_is_refused():
  config = common.get_config()
  config.contrast_combos = SS
  config.data.order = "random"
  with pytest.raises(errors.InputError, match="order is 'random'; .*shuffled"):
    config_check.check_values(config)


@pytest.mark.parametrize(
  "batch_size, combos, method, devices, said",
  [
    (12, SS, "", 8, None),
    (4, SS, "", 8, None),
    (6, SS, "", 8, "it must be a multiple of 4. The nearest are 4 and 8."),
    (3, (), "Artist", 8, "a multiple of 4. The nearest are 4."),
    (9, SS, "", 3, None),
    (10, SS, "", 3, "a multiple of 3. The nearest are 9 and 12."),
    (12, (("audio", "cf"),), "", 8, "12 songs and there are 8 devices"),
    (16, (("audio", "cf"),), "", 8, None),
    (7, (), "Genre", 1, None),
    (7, (), "Genre", 2, None),
  ],
)
def test_a_batch_is_split_evenly_or_refused_with_the_nearest_sizes(
  batch_size, combos, method, devices, said
):
  strategy = strategies.parse(combos, method)
  if said is None:
    config_check.check_batch(batch_size, strategy, devices)
    return
  with pytest.raises(errors.InputError) as caught:
    config_check.check_batch(batch_size, strategy, devices)
  assert said in str(caught.value)


def test_a_batch_that_microbatches_do_not_divide_is_refused():
  strategy = strategies.parse(SS, "")
  config_check.check_batch(24, strategy, 2, 4)
  with pytest.raises(errors.InputError, match="4 microbatches.*multiple of 4"):
    config_check.check_batch(6, strategy, 2, 4)


@pytest.mark.parametrize(
  "key, value",
  [
    ("train.microbatches", 0),
    ("train.max_nonfinite_steps", 0),
    ("train.compute_dtype", "float16"),
    ("loss_params.tile", 0),
    ("loss_params.tiled_above", -1),
  ],
)
def test_settings_of_memory_are_checked(key, value):
  config = common.hybrid("resnet", "")
  config.update_from_flattened_dict({key: value})
  with pytest.raises(errors.InputError, match=key):
    config_check.check_values(config)


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
