"""Tests of pcl_jax.run and pcl_jax.errors: what is refused, and how."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from configs import common
from pcl_jax import errors
from pcl_jax import melspectrogram
from pcl_jax import run as runs
from pcl_jax import strategy as strategies
from pcl_jax import train
from pcl_jax.data import catalogue as catalogues
from pcl_jax.data import dataset
from pcl_jax.data import song_store
from tests import tiny_data
from tests import tiny_run

SS = (("audio", "audio_self"),)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tiny_run.make_data_set(tmp_path_factory.mktemp("run") / "data")


@pytest.fixture
def own_data(tmp_path):
  """A data set that a test may spoil."""
  return tiny_run.make_data_set(tmp_path / "data")


def _config(data_dir, *, combos=SS, method="", **keys):
  config = tiny_run.small_config(data_dir, **keys)
  config.contrast_combos = combos
  config.audio_contrast_params.pair_generation_method = method
  return config


def _refusal(config, workdir, capsys, devices=1):
  """Trains as launch.py does; returns what is said of why it does not."""
  with pytest.raises(SystemExit) as caught:
    errors.run_command(
      lambda: train.train_and_evaluate(
        config, workdir, devices=jax.devices()[:devices]
      )
    )
  assert caught.value.code == errors.EXIT_BAD_INPUT
  said = capsys.readouterr().err
  assert said.startswith("error: ") and "Traceback" not in said
  assert said.count("\n") == 1
  return said


@pytest.mark.parametrize(
  "raised, code, said",
  [
    (None, 0, ""),
    (errors.InputError("bad x"), 2, "error: bad x\n"),
    (errors.RunError("nan"), 1, "error: nan\n"),
    (KeyboardInterrupt(), 130, "interrupted; the same command line goes on\n"),
  ],
)
def test_a_command_ends_with_one_message_and_a_code(raised, code, said, capsys):
  def main():
    if raised is not None:
      raise raised

  with pytest.raises(SystemExit) as caught:
    errors.run_command(main)
  assert caught.value.code == code
  assert capsys.readouterr().err == said


def test_a_command_returns_its_own_code_and_our_bugs_keep_their_traceback():
  with pytest.raises(SystemExit) as caught:
    errors.run_command(lambda: 3)
  assert caught.value.code == 3
  with pytest.raises(ZeroDivisionError):
    errors.run_command(lambda: 1 // 0)


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
    runs.check_values(config)
  message = str(caught.value)
  assert f"config.{key} is {value!r}; it must be a number {rule}" in message
  assert f"--config.{key}=..." in message


def test_a_value_that_is_no_number_is_refused():
  config = common.self_supervised("sc_cnn", "")
  with config.ignore_type():
    config.opt_params.lr = "fast"
  with pytest.raises(errors.InputError, match="config.opt_params.lr is 'fast'"):
    runs.check_values(config)


def test_the_bounds_of_a_value_are_allowed():
  config = common.self_supervised("sc_cnn", "")
  config.model_params.cf.dropout = 0.0
  config.seed = config.data.threads = 0
  config.opt_params.weight_decay = 0.0
  assert runs.check_values(config) == strategies.parse(SS, "")


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
    runs.check_batch(batch_size, strategy, devices)
    return
  with pytest.raises(errors.InputError) as caught:
    runs.check_batch(batch_size, strategy, devices)
  assert said in str(caught.value)


def test_a_batch_that_does_not_fit_the_devices_is_refused(
  data_dir, tmp_path, capsys
):
  config = _config(data_dir, data__batch_size=6)
  said = _refusal(config, tmp_path / "w", capsys, devices=8)
  assert "config.data.batch_size is 6 pairs and there are 8 devices" in said
  assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
  "combos, method",
  [
    (SS, ""),
    ((("audio", "cf"),), ""),
    ((), "Playlist"),
    ((("audio", "cf"),), "Artist"),
  ],
)
def test_a_batch_larger_than_the_training_set_is_refused(
  data_dir, tmp_path, capsys, combos, method
):
  config = _config(data_dir, combos=combos, method=method, data__batch_size=400)
  said = _refusal(config, tmp_path / "w", capsys)
  assert "config.data.batch_size is 400" in said and "smaller batch" in said
  assert "36 training songs" in said
  assert not (tmp_path / "w").exists()


def test_an_absent_data_directory_is_refused_with_what_makes_one(
  tmp_path, capsys
):
  said = _refusal(_config(tmp_path / "none"), tmp_path / "w", capsys)
  for text in ("none (config.data.dir)", "melon_lmdb", "own_library", "sample"):
    assert text in said
  assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
  "absent, combos, said",
  [
    ("songs.lmdb", SS, "preprocessing.melon_lmdb"),
    ("catalogue.npz", SS, "python -m preprocessing.data_split --data="),
    (
      "playlist_vectors.npy",
      (("audio", "cf"),),
      "Strategy CM A,P needs it for mode P (cf). Make it with python -m "
      "preprocessing.playlist_vectors --data=",
    ),
    (
      "genre_vectors.npy",
      (("audio", "genre_w2v"),),
      "Strategy CM A,G needs it for mode G (genre_w2v). Make it with python -m "
      "preprocessing.genre_vectors --data=",
    ),
  ],
)
def test_what_is_not_prepared_is_named_with_the_command_that_makes_it(
  own_data, tmp_path, capsys, absent, combos, said
):
  (own_data / absent).rename(tmp_path / absent)
  found = _refusal(_config(own_data, combos=combos), tmp_path / "w", capsys)
  assert absent in found and said in found
  assert not (tmp_path / "w").exists()


def test_vectors_that_a_strategy_does_not_use_may_be_absent(own_data):
  (own_data / "playlist_vectors.npy").unlink()
  (own_data / "genre_vectors.npy").unlink()
  devices = jax.devices()[:1]
  assert runs.build(_config(own_data), devices).tables == {}


@pytest.mark.parametrize(
  "field, combos, method, said",
  [
    ("playlists", (), "Playlist", "A-IM Playlist needs playlists"),
    ("artists", (), "Artist", "A-IM Artist needs artists"),
    ("genres", (), "Genre", "A-IM Genre needs genres"),
    ("genres", (("audio", "genre_w2v"),), "", "CM A,G needs genres"),
    (
      "playlists",
      (("audio", "cf"),),
      "Playlist",
      "Hybrid Playlist + A,P needs playlists",
    ),
  ],
)
def test_a_strategy_whose_data_is_absent_is_refused(
  own_data, tmp_path, capsys, field, combos, method, said
):
  made = catalogues.load(own_data)
  lists = [] if field == "playlists" else [[] for _ in range(len(made))]
  empty = {field: catalogues.Ragged.from_lists(lists)}
  if field == "playlists":
    empty["playlist_files"] = np.empty(0, np.int8)
  dataclasses.replace(made, **empty).save(own_data)
  config = _config(own_data, combos=combos, method=method)
  found = _refusal(config, tmp_path / "w", capsys)
  assert f"strategy {said} and {own_data} has none" in found
  assert "prepare it again" in found


@pytest.mark.parametrize("how", ["cut", "zeros", "empty", "pickled"])
def test_a_damaged_catalogue_is_refused(own_data, tmp_path, capsys, how):
  path = own_data / "catalogue.npz"
  data = path.read_bytes()
  if how == "pickled":
    arrays = dict(np.load(path)) | {"split": np.array([{}], object)}
    np.savez(path, **arrays)
  else:
    spoiled = {"cut": data[:500], "zeros": bytes(len(data)), "empty": b""}
    path.write_bytes(spoiled[how])
  said = _refusal(_config(own_data), tmp_path / "w", capsys)
  assert f"{path} cannot be read" in said and "data_split" in said


def test_a_catalogue_of_another_store_is_refused(own_data, tmp_path, capsys):
  tiny_data.tiny_catalogue(songs=50).save(own_data)
  said = _refusal(_config(own_data), tmp_path / "w", capsys)
  assert "lists 50 songs that are not those of the song store (60)" in said


def _remake_store(data_dir, monkeypatch, where, name, value):
  """Writes the song store as another version of this code would."""
  (data_dir / dataset.STORE_NAME).rename(data_dir / "old.lmdb")
  with monkeypatch.context() as patch:
    patch.setattr(where, name, value)
    tiny_data.tiny_store(
      data_dir / dataset.STORE_NAME, catalogues.load(data_dir)
    )


def test_a_store_of_other_feature_settings_is_refused(
  own_data, tmp_path, capsys, monkeypatch
):
  other = dataclasses.replace(melspectrogram.SETTINGS, hop_samples=128)
  _remake_store(own_data, monkeypatch, melspectrogram, "SETTINGS", other)
  said = _refusal(_config(own_data), tmp_path / "w", capsys)
  assert "songs.lmdb" in said and "hop_samples: 128 there, 256 here" in said


def test_a_store_of_another_format_is_refused(
  own_data, tmp_path, capsys, monkeypatch
):
  _remake_store(own_data, monkeypatch, song_store, "FORMAT_VERSION", 7)
  said = _refusal(_config(own_data), tmp_path / "w", capsys)
  assert "songs.lmdb has format version 7" in said and "reads 1" in said


@pytest.mark.parametrize(
  "keys, said",
  [
    ({"audio_contrast_params__mixup_alpha": 0.0}, "mixup_alpha is 0.0"),
    ({"loss_params__contrastive_temperature": -0.1}, "temperature is -0.1"),
    ({"model_params__cf__dropout": 1.0}, "cf.dropout is 1.0"),
    ({"model_params__audio__backbone_type": "vgg"}, "'vgg'"),
    ({"contrast_combos": (("audio", "tags"),)}, "['audio', 'tags']"),
    ({"contrast_combos": ()}, "nothing would train the audio encoder"),
    (
      {"audio_contrast_params__pair_generation_method": "Album"},
      "pair_generation_method is 'Album'",
    ),
  ],
)
def test_a_bad_config_writes_nothing(data_dir, tmp_path, capsys, keys, said):
  config = tiny_run.small_config(data_dir, **keys)
  assert said in _refusal(config, tmp_path / "w", capsys)
  assert not (tmp_path / "w").exists()


def test_embeddings_of_different_sizes_are_refused(data_dir, tmp_path, capsys):
  config = _config(
    data_dir,
    combos=(("audio", "cf"), ("audio", "genre_w2v")),
    model_params__audio__fc_output_dim=64,
  )
  said = _refusal(config, tmp_path / "w", capsys)
  for text in ("fc_output_dim is 64", "output_dim is 128", "npy is 128"):
    assert text in said


def test_a_file_in_place_of_the_workdir_is_refused(data_dir, tmp_path, capsys):
  (tmp_path / "file").write_text("mine")
  for workdir in (tmp_path / "file", tmp_path / "file" / "below"):
    said = _refusal(_config(data_dir), workdir, capsys)
    assert f"--workdir={workdir} cannot be written" in said
  assert (tmp_path / "file").read_text() == "mine"


def test_a_config_is_written_whole_or_not_at_all(tmp_path):
  config = common.hybrid("resnet", "")
  runs.write_config(tmp_path, config)
  found = json.loads((tmp_path / "config.json").read_text())
  assert found == json.loads(config.to_json())
  assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
  (tmp_path / "config.json").unlink()
  (tmp_path / "config.json").mkdir()
  with pytest.raises(errors.InputError, match="cannot be written"):
    runs.write_config(tmp_path, config)


def _meta(**changes):
  meta = {
    "strategy": "SS",
    "architecture": {"audio": {"backbone_type": "resnet", "width": 64}},
    "feature": melspectrogram.SETTINGS.as_dict(),
    "config": {
      "seed": 0,
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
      place = place[part]
    place[last] = value
  return meta


@pytest.mark.parametrize(
  "key, value, said",
  [
    ("strategy", "CM A,P", "strategy was 'SS' and is 'CM A,P' now"),
    (
      "architecture__audio__width",
      32,
      "architecture.audio.width was 64 and is 32 now",
    ),
    ("architecture__cf", {"dropout": 0.1}, "cf.dropout was None and is 0.1"),
    ("data__fingerprint", "b", "data.fingerprint was 'a' and is 'b' now"),
    ("feature__hop_samples", 128, "hop_samples"),
    ("config__seed", 1, "seed was 0 and is 1 now"),
    ("config__data__batch_size", 4, "data.batch_size was 8 and is 4 now"),
  ],
)
def test_a_checkpoint_of_another_run_is_refused(key, value, said):
  changed = _meta(**{key: value})
  then, now = (changed, _meta()) if "feature" in key else (_meta(), changed)
  with pytest.raises(errors.InputError) as caught:
    runs.check_continues(then, now)
  assert said in str(caught.value)


def test_other_changes_of_the_config_are_listed():
  now = _meta(config__epochs=5, config__opt_params__lr=0.2)
  assert runs.check_continues(_meta(), now) == [
    "epochs was 3 and is 5 now",
    "opt_params.lr was 0.1 and is 0.2 now",
  ]
  assert runs.check_continues(_meta(), _meta()) == []
