"""Tests of pcl_jax.common.errors: how mistakes are reported to people."""

import dataclasses
import errno
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from pcl_jax.audio import melspectrogram
from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import ragged
from pcl_jax.data import song_store
from pcl_jax.training import loop
from pcl_jax.training import setup
from tests.support import quick_backbone
from tests.support.tiny import tiny_data
from tests.support.tiny import tiny_run

SS = (("audio", "audio_self"),)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tiny_run.make_data_set(tmp_path_factory.mktemp("run") / "data")


@pytest.fixture(autouse=True)
def _quick_network(monkeypatch):
  quick_backbone.register(monkeypatch)


@pytest.fixture
def own_data(tmp_path):
  """A data set that a test may spoil."""
  return tiny_run.make_data_set(tmp_path / "data")


def _config(data_dir, *, combos=SS, method="", **keys):
  config = tiny_run.quick_config(data_dir, **keys)
  config.contrast_combos = combos
  config.audio_contrast_params.pair_generation_method = method
  return config


def _refusal(config, workdir, capsys, devices=1):
  """Trains as launch.py does; returns what is said of why it does not."""
  with pytest.raises(SystemExit) as caught:
    errors.run_command(
      lambda: loop.train_and_evaluate(
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
    (
      NotADirectoryError(20, "Not a directory", "a/b"),
      2,
      "error: a/b cannot be read or written (Not a directory). Give a place "
      "that exists and that you may use, on a disk with room.\n",
    ),
    (
      OSError(errno.ENOSPC, "No space left on device"),  # As `write` gives it.
      2,
      "error: a file cannot be read or written (No space left on device). Give "
      "a place that exists and that you may use, on a disk with room.\n",
    ),
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


def test_a_reader_that_has_seen_enough_ends_a_command_quietly():
  program = """
from pcl_jax.common import errors
errors.run_command(lambda: [print("row" * 1000) for _ in range(1000)] and None)
"""
  command = [sys.executable, "-c", program]
  with subprocess.Popen(
    command,
    cwd=pathlib.Path(__file__).parents[2],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  ) as done:
    assert done.stdout.readline().startswith(b"row")
    done.stdout.close()
    assert done.stderr.read() == b""
  assert done.returncode == errors.EXIT_FAILED


def test_a_command_returns_its_own_code_and_our_bugs_keep_their_traceback():
  with pytest.raises(SystemExit) as caught:
    errors.run_command(lambda: 3)
  assert caught.value.code == 3
  with pytest.raises(ZeroDivisionError):
    errors.run_command(lambda: 1 // 0)

  def ask():
    raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

  with pytest.raises(ConnectionRefusedError):
    errors.run_command(ask)


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
  assert setup.build(_config(own_data), devices).batches.tables == {}


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
  empty = {field: ragged.Ragged.from_lists(lists)}
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
  (data_dir / song_store.FILE_NAME).rename(data_dir / "old.lmdb")
  with monkeypatch.context() as patch:
    patch.setattr(where, name, value)
    tiny_data.tiny_store(
      data_dir / song_store.FILE_NAME, catalogues.load(data_dir)
    )


def test_a_store_of_other_feature_settings_is_refused(
  own_data, tmp_path, capsys, monkeypatch
):
  other = dataclasses.replace(melspectrogram.SETTINGS, hop_samples=128)
  _remake_store(own_data, monkeypatch, melspectrogram, "SETTINGS", other)
  said = _refusal(_config(own_data), tmp_path / "w", capsys)
  assert "songs.lmdb" in said and "hop_samples: there 128, here 256" in said


def test_a_truncated_store_is_refused(own_data, tmp_path, capsys):
  store = own_data / song_store.FILE_NAME / "data.mdb"
  os.truncate(store, store.stat().st_size // 2)
  said = _refusal(_config(own_data), tmp_path / "w", capsys)
  assert f"{store} is truncated" in said


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
      {"audio_contrast_params__pair_generation_method": "Mood"},
      "pair_generation_method is 'Mood'",
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


def test_a_workdir_whose_name_no_checkpoint_can_have_is_refused(tmp_path):
  workdir = tmp_path / os.fsdecode(b"caf\xe9")
  with pytest.raises(errors.InputError, match="not UTF-8, and TensorStore"):
    checkpoint_files.CheckpointFiles(workdir)
  assert not workdir.exists()


def test_a_file_in_place_of_the_workdir_is_refused(data_dir, tmp_path, capsys):
  (tmp_path / "file").write_text("mine")
  for workdir in (tmp_path / "file", tmp_path / "file" / "below"):
    said = _refusal(_config(data_dir), workdir, capsys)
    assert f"--workdir: {workdir} is not a folder, or lies below a file" in said
  assert (tmp_path / "file").read_text() == "mine"
