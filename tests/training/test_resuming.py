"""Tests of resuming: what may change when a run goes on."""

import pytest

from configs import common
from pcl_jax.audio import melspectrogram
from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.common import errors
from pcl_jax.training import config_check
from pcl_jax.training import resuming


def _meta(**changes):
  meta = {
    "format_version": checkpoint_files.FORMAT_VERSION,
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
    resuming.check_changes(then, now)
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
  changes = resuming.check_changes(_meta(), _meta(**{f"config__{key}": value}))
  dotted = key.replace("__", ".")
  assert [line.split()[0] for line in changes.lines] == [dotted]
  assert not changes.other_batches


def test_more_epochs_ask_where_the_learning_rate_falls_until_the_last():
  falling = {"config__opt_params__lr_schedule": "cosine"}
  then, now = _meta(**falling), _meta(**falling, config__epochs=5)
  with pytest.raises(errors.InputError, match="epochs was 3 and is 5 now"):
    resuming.check_changes(then, now)
  assert resuming.check_changes(then, now, ["epochs"]).lines


def test_a_checkpoint_from_before_a_key_existed_goes_on_with_its_default():
  assert (
    resuming.check_changes(_meta(), _meta(config__init_from="")).lines == []
  )
  with pytest.raises(
    errors.InputError, match="init_from was '' and is 'x' now"
  ):
    resuming.check_changes(_meta(), _meta(config__init_from="x"))


@pytest.mark.parametrize("then, now", [("", "x"), ("x", ""), ("x", "y")])
def test_other_weights_to_begin_with_cannot_be_allowed(then, now):
  then, now = (_meta(config__init_from=place) for place in (then, now))
  with pytest.raises(errors.InputError, match="only the beginning of a run"):
    resuming.check_changes(then, now, ["init_from"])


@pytest.mark.parametrize(
  "orders", [("shuffled", "resident"), ("resident", "shuffled")]
)
def test_songs_may_move_to_the_devices_and_back_within_an_epoch(orders):
  then, now = (_meta(config__data__order=order) for order in orders)
  changes = resuming.check_changes(then, now)
  assert changes.lines == [
    f"data.order was {orders[0]!r} and is {orders[1]!r} now"
  ]
  assert not changes.other_batches


def test_songs_on_the_devices_are_another_run_than_blocks():
  then, now = (
    _meta(config__data__order=order) for order in ("blocks", "resident")
  )
  with pytest.raises(errors.InputError, match="order was 'blocks'"):
    resuming.check_changes(then, now)
  assert resuming.check_changes(then, now, ["data.order"]).other_batches


def test_another_number_of_patches_a_song_begins_the_epoch_anew():
  then, now = _meta(), _meta(config__data__patches_per_song=0)
  with pytest.raises(errors.InputError, match="was 1 and is 0 now"):
    resuming.check_changes(then, now)
  allowed = ["data.patches_per_song"]
  assert resuming.check_changes(then, now, allowed).other_batches


def test_an_unchanged_run_has_no_changes():
  assert resuming.check_changes(_meta(), _meta()).lines == []


@pytest.mark.parametrize(
  "allowed",
  [["opt_params.lr"], ["opt_params"], ["seed", "opt_params.lr", "epochs"]],
)
def test_what_is_allowed_is_listed_and_gone_on_with(allowed):
  now = _meta(config__opt_params__lr=0.2, config__epochs=5)
  changes = resuming.check_changes(_meta(), now, allowed)
  assert changes.lines == [
    "epochs was 3 and is 5 now",
    "opt_params.lr was 0.1 and is 0.2 now",
  ]
  assert not changes.other_batches


def test_one_allowed_change_does_not_let_another_through():
  now = _meta(config__opt_params__lr=0.2, config__seed=1)
  with pytest.raises(errors.InputError) as caught:
    resuming.check_changes(_meta(), now, ["opt_params"])
  said = str(caught.value)
  assert "seed was 0 and is 1 now" in said and "lr was" not in said
  assert "--allow_change=seed goes on" in said


@pytest.mark.parametrize("allowed", ["data", "data.fingerprint"])
def test_another_data_set_may_be_allowed_and_has_other_batches(allowed):
  now = _meta(data__fingerprint="b")
  changes = resuming.check_changes(_meta(), now, [allowed])
  assert changes.other_batches


def test_a_key_that_is_allowed_and_does_not_exist_is_refused():
  with pytest.raises(errors.InputError, match="Did you mean opt_params.lr?"):
    resuming.check_changes(_meta(), _meta(), ["opt_params.lrr"])


def test_other_networks_cannot_be_allowed():
  now = _meta(architecture__audio__width=32)
  with pytest.raises(errors.InputError, match="architecture.audio.width was"):
    resuming.check_changes(_meta(), now, ["opt_params", "data", "seed"])


def test_a_refusal_has_the_flags_that_give_the_config_of_before():
  """As where `configs/library.py` computes its sizes for another device."""
  then = _meta(config__model_params={"audio": {"width": 64}})
  now = _meta(
    config__model_params={"audio": {"width": 16}},
    config__data__batch_size=4,
    config__epochs=5,
    architecture__audio__width=32,
    data__fingerprint="b",
  )
  flags = "--config.data.batch_size=8 --config.model_params.audio.width=64"
  with pytest.raises(errors.InputError) as caught:
    resuming.check_changes(then, now)
  assert f"it was trained with ({flags}), or" in str(caught.value)
  now["architecture"] = then["architecture"]
  with pytest.raises(errors.InputError) as caught:
    resuming.check_changes(then, now)
  assert f"it was trained with ({flags}), or" in str(caught.value)


@pytest.mark.parametrize(
  "then, now, is_other", [(24, 16, True), (16, 16, False), (None, 16, False)]
)
def test_a_validation_of_another_number_of_patches_means_something_else(
  then, now, is_other
):
  """Devices may split another number; older checkpoints do not say theirs."""
  then, now = (
    _meta() if size is None else _meta(validation_batch=size)
    for size in (then, now)
  )
  changes = resuming.check_changes(then, now)
  assert changes.other_loss == is_other
  assert ("validation_batch was 24 and is 16 now" in changes.lines) == is_other


def test_a_rate_of_dropout_has_no_array_and_may_be_allowed():
  then = _meta(architecture__audio__fc_dropout=0.0)
  now = _meta(architecture__audio__fc_dropout=0.2, config__opt_params__lr=0.2)
  assert resuming.check_changes(then, now, ["opt_params"]).lines


def test_every_key_that_never_asks_is_one_of_the_config_or_the_data_set():
  known = config_check.flatten(common.get_config().to_dict()) | {
    "data.songs": 0
  }
  assert set(resuming.HARMLESS) <= known.keys()


def test_a_checkpoint_from_before_augmentation_goes_on_without_it():
  then, now = _meta(), _meta(config__augmentation__gain_db=0.0)
  assert resuming.check_changes(then, now).lines == []
  now = _meta(config__augmentation__gain_db=3.0)
  with pytest.raises(errors.InputError, match="gain_db was 0.0 and is 3.0 now"):
    resuming.check_changes(then, now)


def test_rounds_of_another_length_begin_anew_and_more_steps_never_ask():
  keys = {"steps": 30, "validate_every_steps": 10}
  then = _meta(**{f"config__{key}": value for key, value in keys.items()})
  now = _meta(config__steps=50, config__validate_every_steps=10)
  assert not resuming.check_changes(then, now).other_batches
  now = _meta(config__steps=30, config__validate_every_steps=5)
  with pytest.raises(errors.InputError, match="every_steps was 10 and is 5"):
    resuming.check_changes(then, now)
  allowed = ["validate_every_steps"]
  assert resuming.check_changes(then, now, allowed).other_batches


@pytest.mark.parametrize(
  "key, value, is_other",
  [
    ("data__batch_size", 12, True),
    ("loss_params__contrastive_temperature", 0.2, True),
    ("audio_contrast_params__mixup", False, True),
    ("contrast_combos", [["audio", "cf"]], True),
    ("opt_params__lr", 0.01, False),
    ("seed", 1, False),
    ("epochs", 9, False),
    ("augmentation__gain_db", 6.0, False),
  ],
)
def test_a_best_loss_outlives_only_what_leaves_its_meaning(
  key, value, is_other, capsys
):
  then, now = _meta(), _meta(**{f"config__{key}": value})
  then["progress"] = {
    "step": 8, "epoch": 2, "best_loss": 2.5, "epochs_without_better": 1
  }  # fmt: skip
  progress = resuming.progress_of(then, now, [key.replace("__", ".")])
  kept = (2.5, 1, 0)
  found = (
    progress.best_loss,
    progress.epochs_without_better,
    progress.compared_since,
  )
  assert found == ((None, 0, 8) if is_other else kept)
  assert ("means something else now" in capsys.readouterr().out) == is_other
