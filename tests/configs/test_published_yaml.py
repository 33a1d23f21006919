"""Tests of configs.published_yaml."""

import logging

import pytest
import yaml

from configs import published_yaml
from pcl_jax.common import errors
from pcl_jax.training import config_check

FILES = {
  "dataloader_params.shared.lmdb_cache_file": "cache.lmdb",
  "dataloader_params.shared.lmdb_cache_inds_file": "cache_inds.pkl",
  "dataloader_params.contrast_files.sound_tags_file": "tags.pkl",
  "dataloader_params.contrast_files.cf_emb_file": "cf.pkl",
  "dataloader_params.audio_pair_files.playlist_file_dir": "playlists",
  "dataloader_params.audio_pair_files.val_pairs_file": "pairs.pkl",
  "dataloader_params.audio_pair_files.genre_co_file": "genres.pkl",
  "dataloader_params.audio_pair_files.artist_co_file": "artists.pkl",
  "model_params.genre_w2v.emb_file": "w2v.npy",
}
IGNORED = {
  "devices",
  "min_cache_batches",
  "save_model_loc",
  "dataloader_params.shared.num_workers",
  "dataloader_params.shared.num_read_ind_batches",
  "dataloader_params.shared.data_split_files.train",
  "dataloader_params.shared.data_split_files.val",
  "model_params.cf.input_dim",
  "model_params.genre_w2v.d_model",
  *FILES,
}
# lr is written as the published file has it, which YAML 1.1 reads as text.
PUBLISHED = """
epochs: 150
early_stop_patience: 25
min_cache_batches: 50
devices: [0]
save_model_loc: ./runs
wandb_params: {project: p, run_id: , run_name: n}
contrast_combos: [[audio, cf], [audio, genre_w2v], [cf, genre_w2v]]
audio_contrast_params:
  pair_generation_method: Playlist
  mixup: True
  mixup_alpha: 7.0
  mixup_beta: 2.0
dataloader_params:
  shared:
    batch_size: 384
    num_workers: 6
    num_read_ind_batches: 600
    lmdb_cache_file: cache.lmdb
    lmdb_cache_inds_file: cache_inds.pkl
    data_split_files: {train: train.pkl, val: val.pkl}
  contrast_files:
    sound_tags_file: tags.pkl
    cf_emb_file: cf.pkl
    max_num_tags: 10
    double_window: 625
  audio_pair_files:
    playlist_file_dir: playlists
    val_pairs_file: pairs.pkl
    genre_co_file: genres.pkl
    artist_co_file: artists.pkl
model_params:
  audio:
    backbone_type: sc_cnn
    fc_hidden_dim: 128
    fc_output_dim: 128
    fc_dropout: 0.0
    fc_hidden_batch_norm: False
    fc_output_layer_norm: False
  cf:
    input_dim: 301
    hidden_dim: 128
    output_dim: 128
    dropout: 0.3
    hidden_batch_norm: False
    output_layer_norm: True
  genre_w2v:
    n_head: 4
    d_model: 128
    d_k: 128
    d_v: 128
    emb_file: w2v.npy
    dropout: 0.1
opt_params: {lr: 1.e-4}
loss_params: {contrastive_temperature: 0.1}
"""


def _set(tree, key, value):
  *parts, last = key.split(".")
  for part in parts:
    tree = tree.setdefault(part, {})
  tree[last] = value


@pytest.fixture
def folder(tmp_path):
  """Holds everything that the published file points to."""
  for name in [*FILES.values(), "train.pkl", "val.pkl"]:
    (tmp_path / name).touch()
  return tmp_path


def _write(folder, **changed):
  """Writes the published file, keys changed (__ for the dot)."""
  content = yaml.safe_load(PUBLISHED)
  for key, value in changed.items():
    _set(content, key.replace("__", "."), value)
  path = folder / "my.yaml"
  path.write_text(yaml.safe_dump(content))
  return path


def _load(folder, **changed):
  return published_yaml.get_config(str(_write(folder, **changed)))


def _refused(folder, *texts, **changed):
  with pytest.raises(errors.InputError) as caught:
    _load(folder, **changed)
  for text in ("my.yaml", *texts):
    assert text in str(caught.value)


def test_the_published_file_loads_with_its_values(folder):
  (folder / "my.yaml").write_text(PUBLISHED)
  config = published_yaml.get_config(str(folder / "my.yaml"))
  assert (config.epochs, config.early_stop_patience) == (150, 25)
  assert config.contrast_combos == (
    ("audio", "cf"),
    ("audio", "genre_w2v"),
    ("cf", "genre_w2v"),
  )
  assert config.audio_contrast_params.to_dict() == {
    "pair_generation_method": "Playlist",
    "mixup": True,
    "mixup_alpha": 7.0,
    "mixup_beta": 2.0,
  }
  assert config.data.batch_size == 384
  assert (config.data.max_num_tags, config.data.double_window) == (10, 625)
  assert config.model_params.to_dict() == {
    "audio": {
      "backbone_type": "sc_cnn",
      "width": 128,
      "fc_hidden_dim": 128,
      "fc_output_dim": 128,
      "fc_dropout": 0.0,
    },
    "cf": {"hidden_dim": 128, "output_dim": 128, "dropout": 0.3},
    "genre_w2v": {"n_head": 4, "d_k": 128, "d_v": 128, "dropout": 0.1},
  }
  assert config.opt_params.to_dict() == {
    "lr": 1e-4,
    "lr_schedule": "constant",
    "warmup_steps": 0,
    "weight_decay": 1e-4,
  }
  assert config.loss_params.contrastive_temperature == 0.1
  assert config.wandb_params.to_dict() == {
    "project": "p",
    "run_name": "n",
    "run_id": "",
  }
  assert config.trackers == ("tensorboard",)
  assert config_check.check_values(config).name == "Hybrid Playlist + A,G,P"


def test_every_value_of_the_file_is_taken(folder):
  changed = {
    "epochs": 3,
    "early_stop_patience": 2,
    "audio_contrast_params.pair_generation_method": "Genre",
    "audio_contrast_params.mixup": False,
    "audio_contrast_params.mixup_alpha": 4,
    "audio_contrast_params.mixup_beta": 1.5,
    "model_params.audio.fc_hidden_dim": 64,
    "model_params.audio.fc_output_dim": 32,
    "model_params.audio.fc_dropout": 0.2,
    "model_params.cf.hidden_dim": 16,
    "model_params.cf.output_dim": 32,
    "model_params.cf.dropout": 0,
    "model_params.genre_w2v.n_head": 2,
    "model_params.genre_w2v.d_k": 8,
    "model_params.genre_w2v.d_v": 4,
    "model_params.genre_w2v.dropout": 0.4,
    "opt_params.lr": "3e-4",
    "loss_params.contrastive_temperature": 0.5,
  }
  renamed = {
    "dataloader_params.shared.batch_size": ("data.batch_size", 64),
    "dataloader_params.contrast_files.max_num_tags": ("data.max_num_tags", 5),
    "dataloader_params.contrast_files.double_window": (
      "data.double_window",
      300,
    ),
  }
  given = changed | {key: value for key, (_, value) in renamed.items()}
  config = _load(folder, **{k.replace(".", "__"): v for k, v in given.items()})
  expected = changed | dict(renamed.values()) | {"opt_params.lr": 3e-4}
  for key, value in expected.items():
    found = config
    for part in key.split("."):
      found = found[part]
    assert found == value, key


@pytest.mark.parametrize("backbone, l2", [("resnet", 0.0), ("sc_cnn", 1e-4)])
def test_l2_follows_the_encoder_as_in_the_paper(folder, backbone, l2):
  config = _load(folder, model_params__audio__backbone_type=backbone)
  assert config.model_params.audio.backbone_type == backbone
  assert config.opt_params.weight_decay == l2


def test_what_has_no_meaning_here_is_named_in_one_warning(folder, caplog):
  with caplog.at_level(logging.WARNING, logger="absl"):
    _load(folder)
  (record,) = caplog.records
  listed = record.getMessage().rpartition(": ")[2].split(", ")
  assert set(listed) == IGNORED and len(listed) == len(IGNORED)


def test_nothing_is_warned_of_where_nothing_is_left_out(folder, caplog):
  (folder / "my.yaml").write_text("contrast_combos: [[audio, cf]]\n")
  with caplog.at_level(logging.WARNING, logger="absl"):
    config = published_yaml.get_config(str(folder / "my.yaml"))
  assert not caplog.records
  assert config_check.check_values(config).name == "CM A,P"


@pytest.mark.parametrize("method", [None, "", False])
def test_a_blank_pair_method_means_none(folder, method):
  config = _load(folder, audio_contrast_params__pair_generation_method=method)
  assert config_check.check_values(config).name == "CM A,G,P"


@pytest.mark.parametrize(
  "combos", [["audio", "audio_self"], [["audio_self", "audio"]]]
)
def test_self_supervision_is_read_in_both_forms(folder, combos):
  config = _load(
    folder,
    contrast_combos=combos,
    audio_contrast_params__pair_generation_method=None,
  )
  assert config_check.check_values(config).name == "SS"


def test_lists_of_names_are_taken(folder):
  config = _load(
    folder, trackers=[], loss_params__exclude_sharing=["playlist", "artist"]
  )
  assert config.trackers == ()
  assert config.loss_params.exclude_sharing == ("playlist", "artist")


def test_empty_combos_leave_pairs_alone(folder):
  for combos in (None, []):
    config = _load(folder, contrast_combos=combos)
    assert config_check.check_values(config).name == "A-IM Playlist"


def test_a_file_is_needed_and_must_be_there(tmp_path):
  with pytest.raises(errors.InputError, match="published_yaml.py:my.yaml"):
    published_yaml.get_config("")
  absent = tmp_path / "absent.yaml"
  with pytest.raises(errors.InputError, match="absent.yaml cannot be read"):
    published_yaml.get_config(str(absent))
  with pytest.raises(errors.InputError, match="cannot be read"):
    published_yaml.get_config(str(tmp_path))


@pytest.mark.parametrize(
  "content",
  ["epochs: [1, 2", "a: b: c", "\tepochs: 1", "\0", "a: !!python/x 1"],
)
def test_a_malformed_file_is_refused_by_its_name(tmp_path, content):
  path = tmp_path / "bad.yaml"
  path.write_text(content)
  with pytest.raises(errors.InputError, match="bad.yaml cannot be read"):
    published_yaml.get_config(str(path))


def test_bytes_that_are_no_text_are_refused(tmp_path):
  path = tmp_path / "bad.yaml"
  path.write_bytes(b"\xff\xfe\x00epochs")
  with pytest.raises(errors.InputError, match="bad.yaml"):
    published_yaml.get_config(str(path))


@pytest.mark.parametrize("content", ["", "- 1\n- 2\n", "just text"])
def test_a_file_without_keys_is_refused(tmp_path, content):
  path = tmp_path / "bad.yaml"
  path.write_text(content)
  with pytest.raises(errors.InputError, match="bad.yaml holds no keys"):
    published_yaml.get_config(str(path))


@pytest.mark.parametrize(
  "key",
  [
    "epoch",
    "opt_params__learning_rate",
    "model_params__audio__fc_hidden",
    "dataloader_params__shared__batch",
    "model_params",
    "7",
  ],
)
def test_an_unknown_key_is_refused_by_its_name(folder, key):
  _refused(folder, key.replace("__", "."), "unknown", **{key: 1})


@pytest.mark.parametrize(
  "key, value",
  [
    ("epochs", "many"),
    ("epochs", 1.5),
    ("epochs", True),
    ("epochs", None),
    ("opt_params__lr", "fast"),
    ("opt_params__lr", True),
    ("opt_params__lr", [1e-4]),
    ("opt_params__lr", None),
    ("opt_params__lr", {"value": 1}),
    ("audio_contrast_params__mixup", "yes please"),
    ("audio_contrast_params__mixup", 1),
    ("audio_contrast_params__pair_generation_method", 3),
    ("dataloader_params__shared__batch_size", "384"),
    ("model_params__audio__backbone_type", ["resnet"]),
    ("model_params__audio__backbone_type", "vgg"),
    ("contrast_combos", "audio"),
    ("contrast_combos", 3),
  ],
)
def test_a_value_of_the_wrong_type_is_refused_by_its_key(folder, key, value):
  if key.startswith("opt_params") or isinstance(value, list | dict):
    _refused(folder, key.replace("__", "."), **{key: value})
  else:
    _refused(folder, key.replace("__", "."), repr(value), **{key: value})


@pytest.mark.parametrize(
  "key, value",
  [
    ("audio_contrast_params.mixup_alpha", -1.0),
    ("audio_contrast_params.mixup_alpha", float("inf")),
    ("loss_params.contrastive_temperature", 0.0),
    ("model_params.cf.dropout", 1.0),
    ("opt_params.lr", float("nan")),
  ],
)
def test_a_value_out_of_range_is_refused_before_training(folder, key, value):
  config = _load(folder, **{key.replace(".", "__"): value})
  with pytest.raises(errors.InputError, match=f"config.{key}"):
    config_check.check_values(config)


@pytest.mark.parametrize(
  "key", [*FILES, "dataloader_params.shared.data_split_files.val"]
)
def test_a_path_that_does_not_exist_is_refused_by_its_key(folder, key):
  changed = {key.replace(".", "__"): "gone/away"}
  _refused(folder, key, "gone/away", "--config.data.dir", **changed)


def test_paths_may_be_relative_to_the_working_folder(
  folder, tmp_path, monkeypatch
):
  (tmp_path / "elsewhere").mkdir()
  path = tmp_path / "elsewhere" / "my.yaml"
  path.write_text(PUBLISHED)
  monkeypatch.chdir(folder)
  published_yaml.get_config(str(path))


@pytest.mark.parametrize(
  "key, built",
  [
    ("model_params.audio.fc_hidden_batch_norm", False),
    ("model_params.audio.fc_output_layer_norm", False),
    ("model_params.cf.hidden_batch_norm", False),
    ("model_params.cf.output_layer_norm", True),
  ],
)
def test_a_network_that_is_not_built_is_refused(folder, key, built):
  _load(folder, **{key.replace(".", "__"): built})
  changed = {key.replace(".", "__"): not built}
  _refused(folder, key, str(not built), f"only {built}", **changed)
