"""Tests of config_check: the values that a config may have."""

import jax
import pytest

from configs import common
from pcl_jax.common import errors
from pcl_jax.data import strategies
from pcl_jax.training import config_check

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
BAD += [("data.threads", -1, "0 or more")]
BAD += [("seed", value, "from 0 to 2147483647") for value in (-1, 2**31)]
BAD += [("data.sample_songs", -1, "0 or more")]
BAD += [("data.patches_per_song", -1, "0 or more")]
BAD += [("opt_params.weight_decay", -1e-4, "0 or more")]
BAD += [("opt_params.warmup_steps", -1, "0 or more")]
BAD += [(key, v, "in [0, 1)") for key in RATES for v in (1.0, -0.1)]
BAD += [("augmentation.time_masks", -1, "0 or more")]
BAD += [("augmentation.stretch", 1.0, "in [0, 1)")]
BAD += [("augmentation.gain_db", value, "from 0 to 100") for value in (-1, 101)]
BAD += [
  ("augmentation.band_mask_bands", value, "from 1 to 48") for value in (0, 49)
]
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
  config = common.of_strategy("ss", "sc_cnn", "")
  config.update_from_flattened_dict({key: value})
  value = _at(config, key)  # Where a float is needed, an int became one.
  with pytest.raises(errors.InputError) as caught:
    config_check.check_values(config)
  message = str(caught.value)
  assert f"config.{key} is {value!r}; it must be a number {rule}" in message
  assert f"--config.{key}=..." in message


def test_a_value_that_is_no_number_is_refused():
  config = common.of_strategy("ss", "sc_cnn", "")
  with config.ignore_type():
    config.opt_params.lr = "fast"
  with pytest.raises(errors.InputError, match="config.opt_params.lr is 'fast'"):
    config_check.check_values(config)


def test_the_bounds_of_a_value_are_allowed():
  config = common.of_strategy("ss", "sc_cnn", "")
  config.model_params.cf.dropout = 0.0
  config.seed, config.data.threads = 2**31 - 1, 0
  config.opt_params.weight_decay = 0.0
  jax.jit(jax.random.key)(config.seed)
  assert config_check.check_values(config) == strategies.parse(SS, "")


def test_several_positives_need_a_strategy_that_has_pairs():
  config = common.of_strategy("cm", "resnet", "")
  config.loss_params.positives = "all"
  with pytest.raises(errors.InputError, match="strategy CM A,P has no pairs"):
    config_check.check_values(config)
  for family in ("ss", "aim", "hybrid"):
    config = common.of_strategy(family, "resnet", "")
    config.loss_params.positives = "all"
    config_check.check_values(config)
  config.loss_params.positives = "some"
  with pytest.raises(errors.InputError, match="'some'; it is one of partner"):
    config_check.check_values(config)


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


@pytest.mark.parametrize(
  "combos, method, what",
  [
    (SS, "", "pair"),
    ((), "Artist", "pair"),
    ((("audio", "cf"),), "Genre", "pair"),
    ((("audio", "cf"),), "", "song"),
  ],
)
def test_a_batch_of_one_whose_loss_is_always_0_is_refused(combos, method, what):
  strategy = strategies.parse(combos, method)
  with pytest.raises(errors.InputError, match=f"is 1 {what}: .* always 0 .* 2"):
    config_check.check_batch(1, strategy, 1)
  config_check.check_batch(2, strategy, 1)


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
    ("train.matmul_precision", "tf32"),
    ("loss_params.tile", 0),
    ("loss_params.tiled_above", -1),
  ],
)
def test_settings_of_memory_are_checked(key, value):
  config = common.of_strategy("hybrid", "resnet", "")
  config.update_from_flattened_dict({key: value})
  with pytest.raises(errors.InputError, match=key):
    config_check.check_values(config)


@pytest.mark.parametrize(
  "keys, said",
  [
    ({"steps": 9, "epochs": 3}, "steps is 9 and config.epochs is 3: both are"),
    ({"validate_every_steps": 4}, "every_steps is 4 and config.steps is 0"),
    (
      {"steps": 9, "validate_every_steps": 10},
      "every_steps is 10 and config.steps is 9",
    ),
    (
      {"steps": 10**9, "validate_every_steps": 10**9},
      "takes 6.14e.03 GB of memory, and at most 4 GB are allowed",
    ),
    ({"steps": -1}, "config.steps is -1; it must be a number 0 or more"),
  ],
)
def test_a_run_of_two_lengths_or_without_rounds_is_refused(keys, said):
  config = common.of_strategy("ss", "resnet", "")
  config.update(keys)
  with pytest.raises(errors.InputError, match=said):
    config_check.check_values(config)


def test_epochs_may_stay_at_their_default_where_steps_are_given():
  config = common.of_strategy("ss", "resnet", "")
  assert config.epochs == config_check.DEFAULT_EPOCHS
  config.update({"steps": 100, "validate_every_steps": 100})
  config_check.check_values(config)


def test_more_patches_a_song_than_there_can_be_passes_are_refused():
  config = common.of_strategy("ss", "resnet", "")
  config.data.patches_per_song = 257
  with pytest.raises(errors.InputError, match="is 257; it is at most 256"):
    config_check.check_values(config)
