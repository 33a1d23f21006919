"""Tests of the values a config may have, and of changes between starts."""

import pytest

from configs import common
from pcl_jax.audio import melspectrogram
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
BAD += [(key, -1, "0 or more") for key in ("seed", "data.threads")]
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
  config.seed = config.data.threads = 0
  config.opt_params.weight_decay = 0.0
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


def test_a_checkpoint_from_before_augmentation_goes_on_without_it():
  then, now = _meta(), _meta(config__augmentation__gain_db=0.0)
  assert config_check.check_changes(then, now).lines == []
  now = _meta(config__augmentation__gain_db=3.0)
  with pytest.raises(errors.InputError, match="gain_db was 0.0 and is 3.0 now"):
    config_check.check_changes(then, now)


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


def test_rounds_of_another_length_begin_anew_and_more_steps_never_ask():
  keys = {"steps": 30, "validate_every_steps": 10}
  then = _meta(**{f"config__{key}": value for key, value in keys.items()})
  now = _meta(config__steps=50, config__validate_every_steps=10)
  assert not config_check.check_changes(then, now).other_batches
  now = _meta(config__steps=30, config__validate_every_steps=5)
  with pytest.raises(errors.InputError, match="every_steps was 10 and is 5"):
    config_check.check_changes(then, now)
  allowed = ["validate_every_steps"]
  assert config_check.check_changes(then, now, allowed).other_batches


def test_more_patches_a_song_than_there_can_be_passes_are_refused():
  config = common.of_strategy("ss", "resnet", "")
  config.data.patches_per_song = 257
  with pytest.raises(errors.InputError, match="is 257; it is at most 256"):
    config_check.check_values(config)


def _meta(**changes):
  meta = {
    "format_version": config_check.FORMAT_VERSION,
    "strategy": "SS",
    "architecture": {"audio": {"backbone_type": "resnet", "width": 64}},
    "feature": melspectrogram.SETTINGS.as_dict(),
    "config": {
      "seed": 0,
      "contrast_combos": [],
      "epochs": 3,
      "data": {"batch_size": 8, "double_window": 625},
      "opt_params": {"lr": 0.1},
    },
    "data": {"fingerprint": "a", "songs": 3},
  }
  for key, value in changes.items():
    *parts, last = key.split("__")
    place = meta
    for part in parts:
      place = place.setdefault(part, {})
    place[last] = value
  return meta


@pytest.mark.parametrize(
  "key, value, said",
  [
    (
      "config__contrast_combos",
      [["audio", "cf"]],
      "contrast_combos was [] and is [['audio', 'cf']] now",
    ),
    ("config__opt_params__lr", 0.2, "opt_params.lr was 0.1 and is 0.2 now"),
    (
      "architecture__audio__width",
      32,
      "architecture.audio.width was 64 and is 32 now",
    ),
    ("architecture__cf", {"dropout": 0.1}, "cf.dropout was None and is 0.1"),
    ("data__fingerprint", "b", "data.fingerprint was 'a' and is 'b' now"),
    ("feature__hop_samples", 128, "hop_samples"),
    ("feature__channels", "left", "there 'mean', the encoder's 'left'"),
    ("format_version", 1, "has format version 1 and this program trains with"),
    ("config__seed", 1, "seed was 0 and is 1 now"),
    ("config__data__batch_size", 4, "data.batch_size was 8 and is 4 now"),
  ],
)
def test_a_checkpoint_of_another_run_is_refused(key, value, said):
  changed = _meta(**{key: value})
  then, now = (changed, _meta()) if key.startswith("f") else (_meta(), changed)
  with pytest.raises(errors.InputError) as caught:
    config_check.check_changes(then, now)
  assert said in str(caught.value)


@pytest.mark.parametrize(
  "key, value",
  [
    ("epochs", 5),
    ("log_every_steps", 7),
    ("data__dir", "elsewhere"),
    ("data__threads", 3),
    ("data__stall_s", 9.0),
    ("train__compilation_cache", "there"),
  ],
)
def test_what_changes_nothing_that_is_learnt_never_asks(key, value):
  changes = config_check.check_changes(
    _meta(), _meta(**{f"config__{key}": value})
  )
  dotted = key.replace("__", ".")
  assert [line.split()[0] for line in changes.lines] == [dotted]
  assert not changes.other_batches


def test_more_epochs_ask_where_the_learning_rate_falls_until_the_last():
  falling = {"config__opt_params__lr_schedule": "cosine"}
  then, now = _meta(**falling), _meta(**falling, config__epochs=5)
  with pytest.raises(errors.InputError, match="epochs was 3 and is 5 now"):
    config_check.check_changes(then, now)
  assert config_check.check_changes(then, now, ["epochs"]).lines


def test_a_checkpoint_from_before_a_key_existed_goes_on_with_its_default():
  assert (
    config_check.check_changes(_meta(), _meta(config__init_from="")).lines == []
  )
  with pytest.raises(
    errors.InputError, match="init_from was '' and is 'x' now"
  ):
    config_check.check_changes(_meta(), _meta(config__init_from="x"))


@pytest.mark.parametrize(
  "orders", [("shuffled", "resident"), ("resident", "shuffled")]
)
def test_songs_may_move_to_the_devices_and_back_within_an_epoch(orders):
  then, now = (_meta(config__data__order=order) for order in orders)
  changes = config_check.check_changes(then, now)
  assert changes.lines == [
    f"data.order was {orders[0]!r} and is {orders[1]!r} now"
  ]
  assert not changes.other_batches


def test_songs_on_the_devices_are_another_run_than_blocks():
  then, now = (
    _meta(config__data__order=order) for order in ("blocks", "resident")
  )
  with pytest.raises(errors.InputError, match="order was 'blocks'"):
    config_check.check_changes(then, now)
  assert config_check.check_changes(then, now, ["data.order"]).other_batches


def test_another_number_of_patches_a_song_begins_the_epoch_anew():
  then, now = _meta(), _meta(config__data__patches_per_song=0)
  with pytest.raises(errors.InputError, match="was 1 and is 0 now"):
    config_check.check_changes(then, now)
  allowed = ["data.patches_per_song"]
  assert config_check.check_changes(then, now, allowed).other_batches


def test_an_unchanged_run_has_no_changes():
  assert config_check.check_changes(_meta(), _meta()).lines == []


@pytest.mark.parametrize(
  "allowed",
  [["opt_params.lr"], ["opt_params"], ["seed", "opt_params.lr", "epochs"]],
)
def test_what_is_allowed_is_listed_and_gone_on_with(allowed):
  now = _meta(config__opt_params__lr=0.2, config__epochs=5)
  changes = config_check.check_changes(_meta(), now, allowed)
  assert changes.lines == [
    "epochs was 3 and is 5 now",
    "opt_params.lr was 0.1 and is 0.2 now",
  ]
  assert not changes.other_batches


def test_one_allowed_change_does_not_let_another_through():
  now = _meta(config__opt_params__lr=0.2, config__seed=1)
  with pytest.raises(errors.InputError) as caught:
    config_check.check_changes(_meta(), now, ["opt_params"])
  said = str(caught.value)
  assert "seed was 0 and is 1 now" in said and "lr was" not in said
  assert "--allow_change=seed goes on" in said


@pytest.mark.parametrize("allowed", ["data", "data.fingerprint"])
def test_another_data_set_may_be_allowed_and_has_other_batches(allowed):
  now = _meta(data__fingerprint="b")
  changes = config_check.check_changes(_meta(), now, [allowed])
  assert changes.other_batches


def test_a_key_that_is_allowed_and_does_not_exist_is_refused():
  with pytest.raises(errors.InputError, match="Did you mean opt_params.lr?"):
    config_check.check_changes(_meta(), _meta(), ["opt_params.lrr"])


def test_other_networks_cannot_be_allowed():
  now = _meta(architecture__audio__width=32)
  with pytest.raises(errors.InputError, match="architecture.audio.width was"):
    config_check.check_changes(_meta(), now, ["opt_params", "data", "seed"])


def test_a_rate_of_dropout_has_no_array_and_may_be_allowed():
  then = _meta(architecture__audio__fc_dropout=0.0)
  now = _meta(architecture__audio__fc_dropout=0.2, config__opt_params__lr=0.2)
  assert config_check.check_changes(then, now, ["opt_params"]).lines


def test_every_key_that_never_asks_is_one_of_the_config_or_the_data_set():
  known = config_check.flatten(common.get_config().to_dict()) | {
    "data.songs": 0
  }
  assert set(config_check.HARMLESS) <= known.keys()
