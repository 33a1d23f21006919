"""Tests of runs that begin with the weights of another encoder."""

import json
import pathlib
import shutil
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

import pcl_jax
from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import restore
from pcl_jax.common import storage
from pcl_jax.data.splits import learned_songs
from pcl_jax.embedding import encoder_loading
from pcl_jax.embedding.bundles import bundle_files
from pcl_jax.evaluation.audit import leakage
from pcl_jax.interop import torch_files
from pcl_jax.training import initial_weights
from pcl_jax.training import loop
from pcl_jax.training import setup
from tests.support import quick_backbone
from tests.support import quick_run
from tests.support.published import golden_weights
from tests.support.tiny import tiny_run

pytestmark = pytest.mark.usefixtures("quickly")

AUDIO = {"backbone_type": quick_backbone.NAME, "width": 1}
AUDIO |= {"fc_hidden_dim": 128, "fc_output_dim": 128, "fc_dropout": 0.0}


@pytest.fixture(scope="module")
def source(unbroken) -> pathlib.Path:
  """Workdir of an encoder that the runs here fit; tests leave it as it is."""
  return unbroken


@pytest.fixture(scope="module")
def bundle(source, tmp_path_factory) -> pathlib.Path:
  """The same as a bundle."""
  folder = tmp_path_factory.mktemp("bundles") / "my-encoder"
  pcl_jax.load(source).save(folder)
  return folder


@pytest.fixture(scope="module")
def state_dict(tmp_path_factory) -> pathlib.Path:
  """A narrow short-chunk CNN as PyTorch's file."""
  path = tmp_path_factory.mktemp("torch") / "cnn.safetensors"
  arrays = golden_weights.draw_narrow_state_dict("sc_cnn")
  safetensors.numpy.save_file(arrays, path)
  return path


def _begun(config, workdir, devices=1):
  run = setup.build(config, jax.devices()[:devices])
  return initial_weights.begin(run, workdir)


def _weights(network) -> dict[str, np.ndarray]:
  return {k: np.asarray(v) for k, v in bundle_files.arrays_of(network).items()}


def _audio_of(state) -> dict[str, np.ndarray]:
  """Returns weights and statistics of a state's audio encoder by name."""
  return {
    jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
    for kind in ("params", "batch_stats")
    for path, leaf in jax.tree_util.tree_leaves_with_path(state[kind]["audio"])
  }


def _assert_same(found, expected) -> None:
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(found[name], array, name)


@pytest.mark.parametrize(
  "kind", ["workdir", "bundle", pytest.param("hub", marks=pytest.mark.long)]
)
def test_a_run_begins_with_the_bits_of_the_weights(
  kind, source, bundle, data_dir, tmp_path, monkeypatch
):
  place = {"workdir": source, "bundle": bundle, "hub": "hf://user/name"}[kind]
  commit = tmp_path / ("0" * 40)
  monkeypatch.setattr(
    encoder_loading.hub_downloads,
    "download",
    lambda *_: (shutil.copytree(bundle, commit), f"hf://user/name@{'0' * 40}"),
  )
  config = tiny_run.quick_config(data_dir, init_from=str(place))
  run, _ = _begun(config, tmp_path / "run")
  _assert_same(_audio_of(run.state), _weights(pcl_jax.load(source).network))
  assert not any(map(np.any, jax.tree.leaves(run.state["opt_state"])))
  about = run.meta["init_from"]
  name = {"workdir": source.name, "bundle": "my-encoder"}
  assert about["name"] == name.get(kind, f"hf://user/name@{'0' * 40}")
  assert about["weights_sha256"] == pcl_jax.load(source).about["weights_sha256"]
  assert about["strategy"] == "SS" and about["step"] % tiny_run.STEPS == 0
  assert not about["new_projection"]
  assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_state_dict_of_pytorch_is_begun_with(state_dict, data_dir, tmp_path):
  config = tiny_run.small_config(
    data_dir, init_from=str(state_dict), model_params__audio__width=8
  )
  run, _ = _begun(config, tmp_path / "run")
  network = torch_files.load(state_dict).network
  _assert_same(_audio_of(run.state), _weights(network))
  assert run.meta["init_from"]["name"] == "cnn.safetensors"
  assert not run.meta["init_from"]["songs_on_record"]


@pytest.mark.long
def test_another_strategy_draws_its_other_encoders_as_ever(
  source, data_dir, tmp_path
):
  combos = (("audio", "cf"), ("audio", "genre_w2v"))
  config = tiny_run.quick_config(data_dir, contrast_combos=combos)
  drawn = jax.device_get(setup.build(config, jax.devices()[:1]).state)
  config.init_from = str(source)
  state = jax.device_get(_begun(config, tmp_path)[0].state)
  _assert_same(_audio_of(state), _weights(pcl_jax.load(source).network))
  for kind in ("params", "batch_stats"):
    for tree in (drawn, state):
      tree[kind].pop("audio")
  jax.tree.map(np.testing.assert_array_equal, state, drawn)


def test_a_projection_of_another_size_is_drawn_new_and_that_is_said(
  source, config, tmp_path, capsys
):
  encoder = pcl_jax.load(source)
  encoder.meta["architecture"]["audio"]["fc_output_dim"] = 4
  last = encoder.network.projection.output
  for one in (last.kernel, last.bias):
    one.set_value(one.get_value()[..., :4])
  place = tmp_path / "source"
  encoder.save(place)
  drawn = _audio_of(setup.build(config, jax.devices()[:1]).state)
  config.init_from = str(place)
  run, _ = _begun(config, tmp_path / "run")
  found, there = _audio_of(run.state), _weights(pcl_jax.load(place).network)
  for name, array in found.items():
    origin = drawn if name.startswith("projection") else there
    np.testing.assert_array_equal(array, origin[name], name)
  said = capsys.readouterr().out
  assert "does not fit (fc_output_dim is 4 there and 128 here)" in said
  assert "is drawn new" in said
  assert run.meta["init_from"]["new_projection"]


def test_weights_are_the_same_on_several_devices(source, data_dir, tmp_path):
  config = tiny_run.quick_config(data_dir, init_from=str(source))
  one, four = (_begun(config, tmp_path, n)[0].state for n in (1, 4))
  jax.tree.map(np.testing.assert_array_equal, *map(jax.device_get, (one, four)))
  assert {len(x.devices()) for x in jax.tree.leaves(four["params"])} == {4}


def _train(config, workdir, **how):
  return loop.train_and_evaluate(config, workdir, jax.devices()[:1], **how)


def _interrupted_and_resumed(
  source, config, folder, monkeypatch
) -> pathlib.Path:
  """Trains an epoch from weights that are gone when the run goes on."""
  place = shutil.copytree(source, folder / "mine")
  config.init_from, config.epochs = str(place), 1
  with monkeypatch.context() as patch:
    tiny_run.interrupt_after(patch, 3)
    with pytest.raises(tiny_run.Interrupted):
      _train(config, folder / "run")
  shutil.rmtree(place)
  _train(config, folder / "run")
  return folder / "run"


def test_a_run_that_goes_on_does_not_read_the_weights_again(
  source, config, tmp_path, monkeypatch, capsys
):
  run = _interrupted_and_resumed(source, config, tmp_path, monkeypatch)
  said = capsys.readouterr().out
  assert said.count("begins with weights") == 1
  assert "going on from step 3" in said and "are not read again" in said
  files = checkpoint_files.CheckpointFiles(run)
  first, last = (restore.read_meta(files, step) for step in (3, 4))
  assert first["init_from"] == last["init_from"]
  assert first["init_from"]["name"] == "mine"


@pytest.mark.long
def test_a_run_that_goes_on_ends_bitwise_as_the_unbroken_one(
  source, config, tmp_path, monkeypatch
):
  run = _interrupted_and_resumed(source, config, tmp_path, monkeypatch)
  config.init_from = str(source)
  _train(config, tmp_path / "unbroken")
  tiny_run.assert_same_end(run, tmp_path / "unbroken", config, tiny_run.STEPS)


def test_another_init_from_is_refused_where_a_run_goes_on(
  unbroken, config, source, tmp_path
):
  run = shutil.copytree(unbroken, tmp_path / "run")
  before = sorted(run.rglob("*"))
  config.init_from = str(source)
  with pytest.raises(
    pcl_jax.InputError, match="init_from was '' and is '.*' now"
  ):
    _train(config, run)
  assert sorted(run.rglob("*")) == before


def _with_nan(arrays):
  arrays["backbone.fc.kernel"][0, 0] = np.nan


def _spoil(bundle, folder, change) -> pathlib.Path:
  """Returns a copy of a bundle whose arrays or config were changed."""
  copy = shutil.copytree(bundle, folder / "spoilt")
  config = storage.read_json(copy / bundle_files.CONFIG)
  if isinstance(change, dict):
    config |= change
  else:
    path = copy / bundle_files.WEIGHTS
    arrays = safetensors.numpy.load_file(path)
    change(arrays)
    safetensors.numpy.save_file(arrays, path)
    config[path.name]["sha256"] = storage.sha256(path)
  storage.write_json(copy / bundle_files.CONFIG, config)
  return copy


def _without_config(bundle, folder) -> pathlib.Path:
  copy = shutil.copytree(bundle, folder / "half")
  (copy / bundle_files.CONFIG).unlink()
  return copy


def _foreign(folder) -> pathlib.Path:
  path = folder / "foreign.safetensors"
  safetensors.numpy.save_file({"wte": np.zeros((3, 3), np.float32)}, path)
  return path


def _written(folder, name, content) -> pathlib.Path:
  (folder / name).write_bytes(content)
  return folder / name


@pytest.mark.parametrize(
  "make, said",
  [
    (lambda _, t: t / "absent", "absent does not exist: give a bundle"),
    (lambda _, t: t, "has no folder checkpoints"),
    (lambda b, t: _spoil(b, t, _with_nan), "not finite, in backbone.fc.kernel"),
    (
      lambda b, t: _spoil(b, t, {"format_version": 99}),
      "has format version 99, .* update pcl_jax",
    ),
    (_without_config, "config.json cannot be read"),
    (lambda _, t: _foreign(t), "no name of the PyTorch weights"),
    (lambda _, t: _written(t, "a.safetensors", b"\xff" * 9), "as safetensors"),
    (lambda _, t: _written(t, "a.txt", b"weights"), "ends in none of .*.pt"),
  ],
)
def test_weights_that_cannot_be_used_are_refused_before_anything_is_written(
  make, said, bundle, data_dir, tmp_path
):
  config = tiny_run.quick_config(data_dir)
  config.init_from = str(make(bundle, tmp_path))
  with pytest.raises(pcl_jax.InputError, match=said) as caught:
    _train(config, tmp_path / "run")
  told = str(caught.value)
  assert told.startswith("config.init_from: ") and "\n" not in told
  assert not (tmp_path / "run").exists()


def test_code_in_a_pickle_is_not_run(data_dir, tmp_path):
  torch = pytest.importorskip("torch")
  mark = tmp_path / "mark"

  class Hostile:
    def __reduce__(self):
      return pathlib.Path.touch, (mark,)

  torch.save({"a": Hostile()}, tmp_path / "a.pt")
  config = tiny_run.quick_config(data_dir, init_from=str(tmp_path / "a.pt"))
  with pytest.raises(pcl_jax.InputError, match="as arrays alone"):
    _train(config, tmp_path / "run")
  assert not mark.exists() and not (tmp_path / "run").exists()


def test_a_pickle_needs_pytorch(data_dir, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)
  path = _written(tmp_path, "a.pt", b"")
  config = tiny_run.quick_config(data_dir, init_from=str(path))
  with pytest.raises(pcl_jax.InputError, match="a.pt needs PyTorch"):
    _train(config, tmp_path / "run")


def test_an_encoder_of_another_size_is_refused_with_the_keys(
  data_dir, tmp_path
):
  audio = AUDIO | {"width": 3, "fc_output_dim": 4}
  place = quick_run.save(tmp_path / "wide", audio=audio)
  config = tiny_run.quick_config(data_dir, init_from=str(place))
  with pytest.raises(pcl_jax.InputError) as caught:
    _train(config, tmp_path / "run")
  told = str(caught.value)
  assert "width is 3 there and 1 here" in told
  assert "give --config.model_params.audio.width=3, or leave" in told
  assert "backbone_type" not in told
  assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_an_encoder_of_another_kind_is_refused(source, data_dir, tmp_path):
  config = tiny_run.narrow_config(data_dir, init_from=str(source))
  with pytest.raises(pcl_jax.InputError) as caught:
    _train(config, tmp_path / "run")
  assert "backbone_type is 'quick' there and 'sc_cnn' here" in str(caught.value)


def test_songs_that_the_weights_learned_from_are_no_test_songs(
  unbroken, config, data_dir, tmp_path, capsys
):
  """They are on record in a workdir, not in a bundle."""
  config.init_from = str(unbroken)
  config.epochs = 1
  run, learned = _begun(config, tmp_path / "run")
  assert len(learned.songs) == len(learned_songs.read(unbroken).songs) > 0
  assert run.meta["init_from"]["songs_on_record"]
  assert "not on record" not in capsys.readouterr().err
  folder = tmp_path / "bundle"
  pcl_jax.load(unbroken).save(folder)
  config.init_from = str(folder)
  run, learned = _begun(config, tmp_path / "run")
  assert not len(learned.songs)
  assert "not on record" in capsys.readouterr().err
  checks = leakage.check(run.meta, run.batches.data)
  (found,) = [one for one in checks if one.passed is None]
  assert found.name == "weights at the beginning" and "bundle" in found.found


@pytest.mark.long
def test_what_a_run_began_with_goes_into_its_bundle_and_card(
  source, data_dir, tmp_path
):
  config = tiny_run.quick_config(data_dir, init_from=str(source), epochs=1)
  _train(config, tmp_path / "run")
  encoder = pcl_jax.load(tmp_path / "run")
  encoder.save(tmp_path / "out")
  origin = storage.read_json(tmp_path / "out" / bundle_files.CONFIG)["origin"]
  assert origin["init_from"] == encoder.meta["init_from"]
  assert origin["config"]["init_from"] == ""
  card = (tmp_path / "out" / bundle_files.CARD).read_text()
  digest = pcl_jax.load(source).about["weights_sha256"][:12]
  assert f"began with the weights `{digest}` of `{source.name}`" in card
  assert source.parent.name not in json.dumps(origin) + card
  config.init_from = str(tmp_path / "out")
  run, _ = _begun(config, tmp_path / "next")
  assert run.meta["init_from"]["init_from"] == origin["init_from"]
