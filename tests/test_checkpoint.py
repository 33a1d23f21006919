"""Tests of pcl_jax.checkpoint."""

import json
import math
import shutil

from flax import nnx
import jax
import numpy as np
import pytest

from pcl_jax import checkpoint
from pcl_jax import errors
from pcl_jax import melspectrogram
from pcl_jax import train_step
from pcl_jax.models import audio
from pcl_jax.models import encoders

AUDIO = {"backbone_type": "sc_cnn", "width": 1, "fc_hidden_dim": 4}
META = {
  "architecture": {"audio": AUDIO},
  "feature": melspectrogram.SETTINGS.as_dict(),
}


def _state(seed=0, with_cf=False, **audio_params):
  """Returns a training state of a very small network, as after `seed` steps."""
  model = encoders.Encoders(
    audio_params=AUDIO | audio_params,
    cf_params={"input_dim": 3, "hidden_dim": 2} if with_cf else None,
    rngs=nnx.Rngs(seed),
  )
  _, state = train_step.new_state(model, train_step.make_optimizer(0.1, 0.1))
  mesh = jax.make_mesh(
    (1,),
    ("data",),
    axis_types=(jax.sharding.AxisType.Auto,),
    devices=jax.devices()[:1],
  )
  return jax.device_put(state, jax.NamedSharding(mesh, jax.P()))


def _meta(step):
  return META | {"progress": {"step": step}}


def _write(workdir, losses, **kind):
  """Saves step 1, 2, ... with these validation losses; None for none."""
  checkpoints = checkpoint.Checkpoints(workdir)
  for step, loss in enumerate(losses, start=1):
    metrics = None if loss is None else {"total": loss}
    checkpoints.save(_state(step, **kind), _meta(step), metrics)
  checkpoints.close()


def _steps(workdir):
  folder = workdir / checkpoint.FOLDER
  return sorted(int(path.name) for path in folder.iterdir())


def _assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype and x.sharding == y.sharding
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("with_cf", [False, True])
def test_a_state_comes_back_bitwise(tmp_path, with_cf):
  _write(tmp_path, [1.0], with_cf=with_cf)
  checkpoints = checkpoint.Checkpoints(tmp_path)
  assert checkpoints.latest_step() == 1
  assert checkpoints.restore_meta(1) == _meta(1)
  restored = checkpoints.restore(1, _state(9, with_cf))
  _assert_same(restored, _state(1, with_cf))
  checkpoints.close()


@pytest.mark.parametrize(
  "losses, kept, best",
  [
    ([3.0, 1.0, 2.0], [2, 3], 2),
    ([3.0, 2.0, 1.0], [3], 3),
    ([2.0, None, None], [1, 3], 1),
    ([None, None], [2], 2),
    ([2.0, math.nan], [1, 2], 1),
    ([math.inf, 5.0, None, 6.0], [2, 4], 2),
  ],
)
def test_the_best_and_the_latest_step_are_kept(tmp_path, losses, kept, best):
  _write(tmp_path, losses)
  assert _steps(tmp_path) == kept
  checkpoints = checkpoint.Checkpoints(tmp_path)
  assert checkpoints.best_step() == best
  assert checkpoints.latest_step() == len(losses)
  checkpoints.close()


def test_the_best_of_an_earlier_start_stays_the_best(tmp_path):
  _write(tmp_path, [1.0, 2.0])
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(_state(3), _meta(3), {"total": 1.5})
  checkpoints.close()
  assert _steps(tmp_path) == [1, 3]


def test_a_folder_without_checkpoints_has_no_step(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  assert checkpoints.latest_step() is None and checkpoints.best_step() is None
  checkpoints.close()


@pytest.mark.parametrize(
  "other", [{"width": 2}, {"backbone_type": "resnet"}, {"with_cf": True}]
)
def test_a_state_of_other_networks_is_refused(tmp_path, other):
  _write(tmp_path, [1.0])
  checkpoints = checkpoint.Checkpoints(tmp_path)
  with pytest.raises(errors.InputError, match="checkpoint 1 .* does not fit"):
    checkpoints.restore(1, _state(0, **other))
  checkpoints.close()


def _encoder_state(encoder):
  _, params, stats = nnx.split(encoder, nnx.Param, nnx.BatchStat)
  return {
    "params": nnx.to_pure_dict(params), "batch_stats": nnx.to_pure_dict(stats)
  }  # fmt: skip


@pytest.mark.parametrize("which, step", [("best", 1), ("latest", 2)])
def test_the_encoder_alone_is_that_of_the_state(tmp_path, which, step):
  _write(tmp_path, [1.0, 2.0], with_cf=True)
  encoder, meta = checkpoint.load_encoder(tmp_path, which)
  assert isinstance(encoder, audio.AudioEncoder)
  assert meta == _meta(step)
  state = _state(step, with_cf=True)
  for kind, found in _encoder_state(encoder).items():
    expected = state[kind]["audio"]
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_loading_an_encoder_disturbs_no_run_that_is_under_way(tmp_path):
  _write(tmp_path, [1.0, 2.0])
  folder = tmp_path / checkpoint.FOLDER
  half_written = folder / "3.orbax-checkpoint-tmp"
  for path in (half_written, folder / ".trash" / "0"):
    path.mkdir(parents=True)
    (path / "data").touch()
  before = sorted(folder.rglob("*"))
  checkpoint.load_encoder(tmp_path)
  assert sorted(folder.rglob("*")) == before


def test_what_an_interrupted_save_left_is_no_step_and_is_removed(tmp_path):
  _write(tmp_path, [1.0, 2.0])
  folder = tmp_path / checkpoint.FOLDER
  shutil.copytree(folder / "2", folder / "3.orbax-checkpoint-tmp")
  checkpoints = checkpoint.Checkpoints(tmp_path)
  assert checkpoints.latest_step() == 2
  checkpoints.close()
  assert _steps(tmp_path) == [1, 2]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match="not the workdir of a run"):
    checkpoint.load_encoder(tmp_path)
  (tmp_path / checkpoint.FOLDER).mkdir()
  with pytest.raises(errors.InputError, match="no finished checkpoint"):
    checkpoint.load_encoder(tmp_path)


def test_an_encoder_of_another_feature_is_refused(tmp_path):
  other = META["feature"] | {"mel_bands": 96}
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(_state(), _meta(1) | {"feature": other})
  checkpoints.close()
  with pytest.raises(errors.InputError, match="mel_bands: 96 there, 48 here"):
    checkpoint.load_encoder(tmp_path)


def _spoil(path, how):
  if how == "cut":
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  elif how == "removed":
    path.unlink()
  else:
    path.write_bytes(b"\0" * path.stat().st_size)


@pytest.mark.parametrize("how", ["cut", "removed", "zeros"])
@pytest.mark.parametrize("item", ["meta", "encoder"])
def test_a_damaged_checkpoint_is_refused_by_its_name(tmp_path, item, how):
  _write(tmp_path, [1.0])
  folder = tmp_path / checkpoint.FOLDER / "1" / item
  files = sorted(
    (path for path in folder.rglob("*") if path.is_file()),
    key=lambda path: path.stat().st_size,
  )
  _spoil(files[-1], how)
  with pytest.raises(errors.InputError, match="checkpoint 1 .* cannot be read"):
    checkpoint.load_encoder(tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
  (tmp_path / checkpoint.FOLDER).touch()
  with pytest.raises(errors.InputError, match="cannot be made a folder"):
    checkpoint.Checkpoints(tmp_path)


def test_what_a_checkpoint_says_of_itself_is_plain_json(tmp_path):
  _write(tmp_path, [1.0])
  (path,) = (tmp_path / checkpoint.FOLDER / "1" / "meta").glob("metadata")
  assert json.loads(path.read_text()) == _meta(1)
